"""Limits on connections: their number, the size of a head, and the time of each part.

uvicorn with httptools limits none of these. When all connections are in use, the one that has
waited longest for its client is closed, so idle connections do not block other clients.
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

from flows.http.errors import Refusal, json_response
from flows.http.limits.clients import client_of

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

# Bytes that the parser gets at once. It can hold this much above the limit of a head.
_PIECE = 16 * 1024
# Length of the kernel's accept queue. asyncio accepts the whole queue before it closes any
# connection to make room, and each accepted connection needs a file descriptor.
_BACKLOG = 128
_RETRY_AFTER = "5"


class Limits(NamedTuple):
    """The limits of a server.

    connections: the most open ones. share: the most from one client, except proxies.
    url, head: bytes; the head is the URL and the header fields. fields: number of header fields.
    ahead: pipelined requests that a client can send before the response to an earlier one.
    head_within: seconds from the connection, or the previous response, to the end of a head.
    body_within: seconds from the end of the head to the end of the body.
    taken_within: seconds in which a client must read what the server has sent.
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
    proxies: networks whose connections are not counted by client.
    """

    def __init__(self, limits: Limits, proxies: Sequence[Network]) -> None:
        self.limits = limits
        self._proxies = proxies
        self.clock = 0.0  # seconds
        self._last: float | None = None
        self._all: set[Connection] = set()
        self._of_client: Counter[str] = Counter()
        # Connections that wait for their client, the longest wait first. A dict keeps this order.
        self._waiting: dict[Connection, None] = {}

    @property
    def count(self) -> int:
        """The number of open connections."""
        return len(self._all)

    @property
    def working(self) -> int:
        """The number of connections whose clients wait for the server."""
        return len(self._all) - len(self._waiting)

    def enter(self, one: "Connection") -> Refusal | None:
        """Count a connection. Returns the refusal (429 or 503) when there is no room for it."""
        of_client = self._of_client[one.counted_as] if one.counted_as else 0
        if of_client >= self.limits.share:
            if not self._make_room(one.counted_as):
                return _too_many(429, f"your address has {of_client} open connections")
        elif len(self._all) >= self.limits.connections and not self._make_room(""):
            return _too_many(503, "all connections are in use")
        self._all.add(one)
        if one.counted_as:
            self._of_client[one.counted_as] += 1
        return None

    def leave(self, one: "Connection") -> None:
        """Stop counting a connection."""
        self._waiting.pop(one, None)
        if one in self._all:
            self._all.remove(one)
            if one.counted_as:
                self._of_client[one.counted_as] -= 1
                if not self._of_client[one.counted_as]:
                    del self._of_client[one.counted_as]

    def waits(self, one: "Connection") -> None:
        """Note that the connection waits for its client."""
        self._waiting.pop(one, None)
        if one in self._all:
            self._waiting[one] = None

    def works(self, one: "Connection") -> None:
        """Note that the client of the connection waits for the server."""
        self._waiting.pop(one, None)

    def counts_as(self, host: str) -> str:
        """The client whose share a connection from this host uses; empty for proxies."""
        try:
            address = ip_address(host)
        except ValueError:
            return ""
        return "" if any(address in network for network in self._proxies) else client_of(host)

    def _make_room(self, counted_as: str) -> bool:
        """Close the connection that has waited longest for its client.

        counted_as: only connections of this client; empty for all. Returns False when none waits.
        """
        for one in self._waiting:
            if counted_as in ("", one.counted_as):
                break
        else:
            return False
        log.warning("all connections are in use: closed the one that waited longest for its client")
        self.leave(one)
        one.transport.abort()
        return True

    def tick(self, now: float) -> None:
        """Close connections that are too slow. `now`: monotonic seconds; call it often.

        After the event loop stalls, received data is still unread. So a call counts at most one
        second.
        """
        passed = 0.0 if self._last is None else min(now - self._last, 1.0)
        self._last = now
        self.clock += passed
        for one in list(self._all):
            one.check(passed)


def _too_many(status: int, why: str) -> Refusal:
    message = f"{why}; retry later"
    return Refusal(status, "too_many", message, headers={"Retry-After": _RETRY_AFTER})


def _too_large(status: int, what: str, most: str) -> Refusal:
    return Refusal(status, "too_large", f"at most {most} are allowed", field=what)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with limits."""

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
        # Deadlines on the group's clock: for what the client must send, and for what it must read.
        self._sent_by: float | None = None
        self._taken_by: float | None = None
        self._in_head = False
        self._received = True  # whether the last request is complete
        self._held = 0  # bytes that the parser got since its last callback
        self._head = 0
        self._fields = 0
        self._why: Refusal | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Accept the connection and wait for a request, or refuse it."""
        super().connection_made(transport)
        self.counted_as = self._group.counts_as(self.client[0] if self.client else "")
        refusal = self._group.enter(self)
        if refusal is None:
            self._wait(self._limits.head_within)
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        self._group.leave(self)
        super().connection_lost(exc)

    # Callbacks of the transport

    def data_received(self, data: bytes) -> None:
        """Parse in small pieces, so that a head above the limit is noticed early."""
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._held += len(piece)
            super().data_received(piece)
            if self._held > self._limits.head and not self.transport.is_closing():
                self._refuse(self._too_large_head())

    def pause_writing(self) -> None:
        """The client does not read the responses: set a deadline."""
        super().pause_writing()
        self._taken_by = self._group.clock + self._limits.taken_within
        self._group.waits(self)

    def resume_writing(self) -> None:
        """The client has read the responses: clear the deadline."""
        super().resume_writing()
        self._taken_by = None
        if self._received:
            self._group.works(self)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._received = True, False
        self._head = self._fields = 0
        if len(self.pipeline) >= self._limits.ahead:
            self._stop(_too_many(429, "too many pipelined requests"))
        self._wait(self._limits.head_within)

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        super().on_url(url)
        self._held = 0
        self._head += len(url)
        if len(self.url) > self._limits.url:
            self._stop(_too_large(414, "URL", f"{self._limits.url} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer field after a body."""
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
        if self.cycle.response_complete:  # the response was sent before the body arrived
            self._wait(self._limits.head_within)
        else:
            self._group.works(self)

    def on_response_complete(self) -> None:
        """The end of a response."""
        super().on_response_complete()
        if self._received and self.cycle.response_complete:
            self._wait(self._limits.head_within)

    # Violations of the limits

    def check(self, passed: float) -> None:
        """Close the connection if its client is too slow. `passed`: seconds since the last call."""
        now = self._group.clock
        if self.transport.is_closing():
            # It closes once its buffer is sent, but the client may read nothing.
            if self._taken_by is None:
                self._taken_by = now + self._limits.taken_within
                self._group.waits(self)
        elif self._sent_by is not None:
            if self.flow.read_paused:  # the server itself stopped reading
                self._sent_by += passed
            elif now > self._sent_by:
                self._too_slow()
        if self._taken_by is not None and now > self._taken_by:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Respond to a parser error (called by uvicorn), such as one that `_stop` raised."""
        self._refuse(self._why or Refusal(400, "invalid", msg))

    def _wait(self, within: float) -> None:
        self._sent_by = self._group.clock + within
        self._group.waits(self)

    def _stop(self, why: Refusal) -> None:
        """Stop the parser; uvicorn then calls `send_400_response`."""
        self._why = why
        raise why

    def _too_large_head(self) -> Refusal:
        return _too_large(431, "headers", f"{self._limits.head} bytes")

    def _too_slow(self) -> None:
        if self._received:  # no byte of a next request has arrived
            self.transport.close()
            return
        what, within = ("body", self._limits.body_within)
        if self._in_head:
            what, within = ("headers", self._limits.head_within)
        message = f"not received within {within:g} seconds"
        self._refuse(Refusal(408, "too_slow", message, field=what))

    def _refuse(self, why: Refusal) -> None:
        """Respond and close. Only close if an earlier response is still due or has begun."""
        earlier = self.cycle is not None and not self.cycle.response_complete
        if not (earlier and (self._in_head or self.pipeline or self.cycle.response_started)):
            response = json_response(
                why.status, why.problem, **(why.headers or {}), connection="close"
            )
            lines = [b"%s: %s\r\n" % header for header in response.raw_headers]
            head = b"".join([STATUS_LINE[why.status], *lines, b"\r\n"])
            self.transport.write(head + bytes(response.body))
        self.transport.close()


class Config(uvicorn.Config):
    """uvicorn's configuration for a server with limits."""

    def __init__(
        self, app: ASGIApp, limits: Limits, proxies: Sequence[Network], **options: Any
    ) -> None:
        self.connections = Connections(limits, proxies)
        super().__init__(
            app,
            http=Connection,
            ws="none",  # WebSocket is a second protocol, without these limits
            access_log=False,
            log_config=None,  # keep the logging of the process
            log_level="warning",
            lifespan="off",
            forwarded_allow_ips=[str(network) for network in proxies],
            backlog=_BACKLOG,
            **options,
        )
