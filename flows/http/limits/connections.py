"""Limits on connections: how many there may be, how large a head is, how slow a client.

With httptools uvicorn limits none of these. When all connections are in use, the one that has
waited longest for its client makes room: who holds connections open without a request locks nobody
out.
"""

import logging
from asyncio import AbstractEventLoop, Transport
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from flows.http.errors import Refusal, answer
from flows.http.limits.clients import client_of

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

# Bytes given to the parser at once: so much more than allowed it may hold.
_PIECE = 16 * 1024
# Connections that the kernel keeps until they are taken. They are taken all at once, before any is
# closed to make room, and each needs a file descriptor.
_BACKLOG = 128
_RETRY_AFTER = "5"


class Limits(NamedTuple):
    """Of a server.

    connections: open at once. share: of them, from one client; proxies have no share.
    url, head: bytes; the head is the URL and the header fields. fields: header fields.
    ahead: requests that a client may send before it has the answer to an earlier one.
    head_within: seconds from the connection, or the answer before, to the end of a head.
    body_within: seconds from there to the end of the body.
    taken_within: seconds in which a client takes what waits to be sent to it.
    """

    connections: int = 512
    share: int = 64
    url: int = 8 * 1024
    head: int = 32 * 1024
    fields: int = 100
    ahead: int = 16
    head_within: float = 10
    body_within: float = 60
    taken_within: float = 60


class Connections:
    """All connections of a server.

    Parameters
    ----------
    proxies: from whom connections are not counted by client.
    """

    def __init__(self, limits: Limits, proxies: Sequence[Network]) -> None:
        self.limits = limits
        self._proxies = proxies
        self.clock = 0.0  # seconds
        self._last: float | None = None
        self._all: set[Connection] = set()
        self._of_client: Counter[str] = Counter()
        # Those that wait for their client, the longest first. A dict, for a set has no order.
        self._waiting: dict[Connection, None] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._all)

    @property
    def working(self) -> int:
        """Of how many the clients wait for us."""
        return len(self._all) - len(self._waiting)

    def enter(self, one: "Connection") -> Refusal | None:
        """Count one in; or why it can't be."""
        of_client = self._of_client[one.counted_as] if one.counted_as else 0
        if of_client >= self.limits.share:
            if not self._make_room(one.counted_as):
                return _too_many(429, f"there are {of_client} connections from your address")
        elif len(self._all) >= self.limits.connections and not self._make_room(""):
            return _too_many(503, "all connections are in use")
        self._all.add(one)
        if one.counted_as:
            self._of_client[one.counted_as] += 1
        return None

    def leave(self, one: "Connection") -> None:
        """Count it no more."""
        self._waiting.pop(one, None)
        if one in self._all:
            self._all.remove(one)
            if one.counted_as:
                self._of_client[one.counted_as] -= 1
                if not self._of_client[one.counted_as]:
                    del self._of_client[one.counted_as]

    def waits(self, one: "Connection") -> None:
        """From now on it waits for its client."""
        self._waiting.pop(one, None)
        if one in self._all:
            self._waiting[one] = None

    def works(self, one: "Connection") -> None:
        """From now on its client waits for us."""
        self._waiting.pop(one, None)

    def counts_as(self, host: str) -> str:
        """The client to whose share a connection from this host counts; empty: to nobody's."""
        try:
            address = ip_address(host)
        except ValueError:
            return ""
        return "" if any(address in network for network in self._proxies) else client_of(host)

    def _make_room(self, counted_as: str) -> bool:
        """Close the one that has waited longest for its client; whether there was any."""
        for one in self._waiting:
            if counted_as in ("", one.counted_as):
                break
        else:
            return False
        log.warning("all connections are in use: one that waited for its client was closed")
        self.leave(one)
        one.transport.abort()
        return True

    def tick(self, now: float) -> None:
        """Close those that are too slow. To be called often, with a monotonic time in seconds.

        A loop that stalls has not read what came meanwhile, so a stall counts as a second at most.
        """
        passed = 0.0 if self._last is None else min(now - self._last, 1.0)
        self._last = now
        self.clock += passed
        for one in list(self._all):
            one.check(passed)


def _too_many(status: int, why: str) -> Refusal:
    message = f"{why}; come again later"
    return Refusal(status, "too_many", message, headers={"Retry-After": _RETRY_AFTER})


def _too_large(status: int, what: str, most: str) -> Refusal:
    return Refusal(status, "too_large", f"{most} are allowed; send less", field=what)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, within limits."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, Config)
        self._group = config.connections
        self._limits = self._group.limits
        self.counted_as = ""
        # By the group's clock: by when the client must have sent, and taken, what is due.
        self._sent_by: float | None = None
        self._taken_by: float | None = None
        self._in_head = False
        self._received = True  # the whole of the last request
        self._held = 0  # bytes given to the parser of which it has not told yet
        self._head = 0
        self._fields = 0
        self._why: Refusal | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Refuse it, or wait for a request."""
        super().connection_made(transport)
        self.counted_as = self._group.counts_as(self.client[0] if self.client else "")
        refusal = self._group.enter(self)
        if refusal is None:
            self._wait(self._limits.head_within)
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._group.leave(self)
        super().connection_lost(exc)

    # From the transport

    def data_received(self, data: bytes) -> None:
        """Parse in small pieces, so that little is held when they turn out to be too much."""
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._held += len(piece)
            super().data_received(piece)
            if self._held > self._limits.head and not self.transport.is_closing():
                self._refuse(self._too_large_head())

    def pause_writing(self) -> None:
        """Answers pile up."""
        super().pause_writing()
        self._taken_by = self._group.clock + self._limits.taken_within
        self._group.waits(self)

    def resume_writing(self) -> None:
        """They are taken."""
        super().resume_writing()
        self._taken_by = None
        if self._received:
            self._group.works(self)

    # From the parser

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._received = True, False
        self._head = self._fields = 0
        if len(self.pipeline) >= self._limits.ahead:
            self._stop(_too_many(429, "you have sent too many requests ahead"))
        self._wait(self._limits.head_within)

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        super().on_url(url)
        self._held = 0
        self._head += len(url)
        if len(self.url) > self._limits.url:
            self._stop(_too_large(414, "URL", f"{self._limits.url} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or one of the trailer behind a body."""
        self._held = 0
        self._head += len(name) + len(value) + len(b": \r\n")
        self._fields += 1
        if self._fields > self._limits.fields:
            self._stop(_too_large(431, "headers", f"{self._limits.fields} fields"))
        if self._head > self._limits.head:
            self._stop(self._too_large_head())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._held = 0
        self._in_head = False
        self._sent_by = self._group.clock + self._limits.body_within
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        super().on_message_complete()
        self._held = 0
        self._received = True
        self._sent_by = None
        if self.cycle.response_complete:  # it was refused before its body came
            self._wait(self._limits.head_within)
        else:
            self._group.works(self)

    def on_response_complete(self) -> None:
        """The end of an answer."""
        super().on_response_complete()
        if self._received and self.cycle.response_complete:
            self._wait(self._limits.head_within)

    # What goes wrong

    def check(self, passed: float) -> None:
        """Close it if its client is too slow. `passed`: seconds since the last time."""
        now = self._group.clock
        if self.transport.is_closing():
            # It closes once all is sent; some clients take nothing.
            if self._taken_by is None:
                self._taken_by = now + self._limits.taken_within
                self._group.waits(self)
        elif self._sent_by is not None:
            if self.flow.read_paused:  # the client waits for us
                self._sent_by += passed
            elif now > self._sent_by:
                self._too_slow()
        if self._taken_by is not None and now > self._taken_by:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser could not or should not go on with."""
        self._refuse(self._why or Refusal(400, "invalid", msg))

    def _wait(self, within: float) -> None:
        self._sent_by = self._group.clock + within
        self._group.waits(self)

    def _stop(self, why: Refusal) -> None:
        """Have the parser stop, and call `send_400_response`."""
        self._why = why
        raise why

    def _too_large_head(self) -> Refusal:
        return _too_large(431, "headers", f"{self._limits.head} bytes")

    def _too_slow(self) -> None:
        if self._received:  # nothing of a request has come
            self.transport.close()
            return
        what, within = ("body", self._limits.body_within)
        if self._in_head:
            what, within = ("headers", self._limits.head_within)
        message = f"it did not come within {within:g} seconds"
        self._refuse(Refusal(408, "too_slow", message, field=what))

    def _refuse(self, why: Refusal) -> None:
        """Answer and close. Where an earlier answer is due or begun, only close."""
        earlier = self.cycle is not None and not self.cycle.response_complete
        if not (earlier and (self._in_head or self.pipeline or self.cycle.response_started)):
            response = answer(why.status, why.problem, **(why.headers or {}), connection="close")
            lines = [b"%s: %s\r\n" % header for header in response.raw_headers]
            head = b"".join([STATUS_LINE[why.status], *lines, b"\r\n"])
            self.transport.write(head + bytes(response.body))
        self.transport.close()


class Config(uvicorn.Config):
    """uvicorn's, for a server with limits."""

    def __init__(
        self, app: ASGIApp, limits: Limits, proxies: Sequence[Network], **options: Any
    ) -> None:
        self.connections = Connections(limits, proxies)
        super().__init__(
            app,
            http=Connection,
            ws="none",  # a second protocol, which has no limits
            access_log=False,
            log_config=None,  # as everything else that is logged
            log_level="warning",
            lifespan="off",
            forwarded_allow_ips=[str(network) for network in proxies],
            backlog=_BACKLOG,
            **options,
        )
