"""Posting to the providers over httpx. No retries here: the outbox decides what happens next."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache
from types import TracebackType
from typing import Self
from urllib.request import getproxies, proxy_bypass

import httpx

from channels.providers.base import ConnectedProvider
from channels.providers.sending import (
    Outgoing,
    ProviderRequest,
    SendOutcome,
    SignInFailed,
    outcomes,
)
from config.batches import Halving
from config.database.failures import reason_of
from config.settings import Settings
from config.timing import TIMING, Timing

log = logging.getLogger(__name__)

# One connection each: httpx looks through all connections of a pool at every event, so that a
# hundred of them in one pool are several times slower than a hundred pools of one.
# An idle connection is dropped before servers drop it (the earliest after 5 s), for a request that
# meets a closing connection may or may not have arrived.
LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=4)
# SendGrid asks for an Accept-Encoding.
_HEADERS = {"User-Agent": "segue", "Accept": "application/json", "Accept-Encoding": "gzip"}
# Raised before the first byte of a request has left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Our own setting is wrong.
_NO_ADDRESS = (httpx.InvalidURL, httpx.UnsupportedProtocol)

# httpx tells of every request at INFO: at a launch that would be a line a message.
logging.getLogger("httpx").setLevel(logging.WARNING)

_url = lru_cache(maxsize=16)(httpx.URL)

MayLeave = Callable[[], Awaitable[bool]]


class _HeldBack(Exception):
    """Nothing has left, and nothing is to leave."""


class Transport:
    """Connections to the providers; an async context manager, for one event loop.

    As many connections are opened as posts are under way at once, which is for the caller to bound.
    """

    def __init__(self, settings: Settings, timing: Timing = TIMING) -> None:
        self._within = timing.post_within
        self._timeout = httpx.Timeout(
            connect=timing.connect_within,
            write=timing.write_within,
            read=timing.read_within,
            pool=timing.connect_within,
        ).as_dict()

        # The sandbox is on this machine, whatever proxy the environment names.
        self._trust_env = settings.providers == "live"
        # Shared, for it takes 20 ms to load the certificates.
        self._tls = httpx.create_ssl_context(trust_env=self._trust_env)
        self._idle: dict[str, list[httpx.AsyncHTTPTransport]] = defaultdict(list)
        self._senders: list[httpx.AsyncHTTPTransport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sender in self._senders:
            await sender.aclose()

    async def post(
        self, provider: ConnectedProvider, batch: Sequence[Outgoing], may_leave: MayLeave
    ) -> list[SendOutcome]:
        """Hand a batch of at most `batch_size` messages over; one outcome for each that
        was not held back.

        Raises nothing: whatever goes wrong is an outcome. `may_leave` is asked when all is ready,
        with a token and a connection, right before the first byte leaves.
        """
        found: list[SendOutcome] = []
        left, halving = batch, Halving(len(batch))
        while left:
            some = left[: halving.size]
            try:
                request = provider.sender.prepare(some)
            except Exception as error:
                # They do not fit into one request, or it can't be made for one of them.
                if not halving.failed(len(some)):
                    continue
                message_id = some[0].message_id
                log.error(
                    "no request for message %d: %s",
                    message_id,
                    reason_of(error),
                    extra={"message_id": message_id, **_named(provider)},
                )
                found += outcomes(some, "failed", f"no request: {type(error).__name__}")
            else:
                halving.worked()
                found += await self._post(provider, request, some, may_leave)
            left = left[len(some) :]
        return found

    async def _post(
        self,
        provider: ConnectedProvider,
        request: ProviderRequest,
        batch: Sequence[Outgoing],
        may_leave: MayLeave,
    ) -> list[SendOutcome]:
        """Send one request and read the answer; no outcome where it was held back."""
        try:
            response = await self._send(provider, request, may_leave)
        except _HeldBack:
            return []
        except (SignInFailed, *_NO_ADDRESS) as error:
            return outcomes(batch, "stopped", _describe(error))
        except _NOT_SENT as error:
            return outcomes(batch, "retry", _describe(error))
        except httpx.RequestError as error:
            # No answer, or a broken one, and the request may have arrived.
            return outcomes(batch, "unknown", _describe(error))
        except Exception as error:
            log.error(
                "posting to %s fails: %s", provider.name, reason_of(error), extra=_named(provider)
            )
            return outcomes(batch, "unknown", type(error).__name__)
        try:
            found = provider.sender.read(
                response.status_code, response.headers, response.content, batch
            )
        except Exception as error:
            log.error(
                "an answer of %s cannot be read: %s",
                provider.name,
                reason_of(error),
                extra=_named(provider),
            )
            return outcomes(batch, "unknown", f"unreadable answer: {type(error).__name__}")
        # A message that the sender leaves out of its answer must not count as not posted.
        told_of = {outcome.message_id for outcome in found}
        left_out = [one for one in batch if one.message_id not in told_of]
        return [*found, *outcomes(left_out, "unknown", "no answer about it")]

    async def _send(
        self, provider: ConnectedProvider, request: ProviderRequest, may_leave: MayLeave
    ) -> httpx.Response:
        """Post by httpx's transport itself: a fifth is saved, for its client keeps cookies, follows
        redirects and calls hooks, none of which a provider needs.
        """
        left = False

        async def leave() -> None:
            nonlocal left
            if not await may_leave():
                raise _HeldBack
            left = True

        async def about_to(event: str, _: object) -> None:
            """Told by httpcore of each thing that it does."""
            if event.endswith("send_request_headers.started"):
                await leave()

        asked = httpx.Request(
            request.method,
            _url(request.url),
            headers={**_HEADERS, **request.headers},
            content=request.content,
            extensions={"timeout": self._timeout},
        )
        try:
            async with asyncio.timeout(self._within):
                if provider.sender.auth is not None:
                    async with aclosing(provider.sender.auth.async_auth_flow(asked)) as flow:
                        asked = await anext(flow)
                if self._idle[provider.name]:
                    # Connected: it leaves now. To be told of each thing takes a tenth of the post.
                    await leave()
                if not self._idle[provider.name]:
                    # None is connected, or another post took it while this one was looked at.
                    asked.extensions["trace"] = about_to
                return await self._exchange(provider.name, asked)
        except TimeoutError as error:
            late = httpx.ReadTimeout if left else httpx.ConnectTimeout
            raise late(f"not done within {self._within} s") from error

    async def _exchange(self, provider: str, asked: httpx.Request) -> httpx.Response:
        # The one used last has the freshest connection.
        idle = self._idle[provider]
        sender = idle.pop() if idle else self._sender(asked.url)
        try:
            response = await sender.handle_async_request(asked)
            try:
                await response.aread()
            finally:
                await response.aclose()
        finally:
            idle.append(sender)
        return response

    def _sender(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        proxy = _proxy_for(url) if self._trust_env else None
        sender = httpx.AsyncHTTPTransport(verify=self._tls, limits=LIMITS, proxy=proxy)
        self._senders.append(sender)
        return sender


def _named(provider: ConnectedProvider) -> dict[str, str]:
    return {"provider": provider.name, "channel": provider.channel}


def _proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY ...)."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]
