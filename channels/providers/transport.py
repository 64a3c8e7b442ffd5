"""Post requests to providers with httpx. Retries are left to the outbox."""

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

# One connection in each pool: httpx scans all connections of a pool at each event, so one pool of a
# hundred connections is several times slower than a hundred pools of one.
# Idle connections are closed before servers close them (the earliest after 5 s), because a request
# on a closing connection has an unknown outcome.
LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=4)
# SendGrid requires Accept-Encoding.
_HEADERS = {"User-Agent": "segue", "Accept": "application/json", "Accept-Encoding": "gzip"}
# Raised before the first byte of a request is sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# The URL setting is invalid.
_NO_ADDRESS = (httpx.InvalidURL, httpx.UnsupportedProtocol)

# httpx logs each request at INFO, which is one line for each message.
logging.getLogger("httpx").setLevel(logging.WARNING)

_url = lru_cache(maxsize=16)(httpx.URL)

MayLeave = Callable[[], Awaitable[bool]]


class _NotAllowed(Exception):
    """`may_leave` returned False; nothing was sent."""


class Transport:
    """Connections to the providers; an async context manager, for one event loop.

    It opens one connection for each concurrent `post`; the caller limits their number.
    """

    def __init__(self, settings: Settings, timing: Timing = TIMING) -> None:
        self._within = timing.post_within
        self._timeout = httpx.Timeout(
            connect=timing.connect_within,
            write=timing.write_within,
            read=timing.read_within,
            pool=timing.connect_within,
        ).as_dict()

        # The sandbox is local, so proxies of the environment are ignored.
        self._trust_env = settings.providers == "live"
        # Shared, because loading the certificates takes 20 ms.
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
        """Hand over a batch of at most `batch_size` messages. Never raises: errors are outcomes.

        `may_leave` is called when the token and the connection are ready, right before the first
        byte is sent. If it returns False, the messages of that request have no outcome.
        """
        found: list[SendOutcome] = []
        left, halving = batch, Halving(len(batch))
        while left:
            some = left[: halving.size]
            try:
                request = provider.sender.prepare(some)
            except Exception as error:
                # DoesNotFit, or one of the messages causes the error.
                if not halving.failed(len(some)):
                    continue
                message_id = some[0].message_id
                log.error(
                    "can't build the request for message %d: %s",
                    message_id,
                    reason_of(error),
                    extra={"message_id": message_id, **_log_fields(provider)},
                )
                found += outcomes(
                    some, "failed", f"can't build the request: {type(error).__name__}"
                )
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
        """Send one request and read the answer; empty if `may_leave` returned False."""
        try:
            response = await self._send(provider, request, may_leave)
        except _NotAllowed:
            return []
        except (SignInFailed, *_NO_ADDRESS) as error:
            return outcomes(batch, "stopped", _describe(error))
        except _NOT_SENT as error:
            return outcomes(batch, "retry", _describe(error))
        except httpx.RequestError as error:
            # The request may have arrived.
            return outcomes(batch, "unknown", _describe(error))
        except Exception as error:
            log.error(
                "posting to %s failed: %s",
                provider.name,
                reason_of(error),
                extra=_log_fields(provider),
            )
            return outcomes(batch, "unknown", type(error).__name__)
        try:
            found = provider.sender.read(
                response.status_code, response.headers, response.content, batch
            )
        except Exception as error:
            log.error(
                "can't read an answer of %s: %s",
                provider.name,
                reason_of(error),
                extra=_log_fields(provider),
            )
            return outcomes(batch, "unknown", f"unreadable answer: {type(error).__name__}")
        # A message without an outcome would count as not posted.
        answered = {outcome.message_id for outcome in found}
        left_out = [one for one in batch if one.message_id not in answered]
        return [*found, *outcomes(left_out, "unknown", "no answer about it")]

    async def _send(
        self, provider: ConnectedProvider, request: ProviderRequest, may_leave: MayLeave
    ) -> httpx.Response:
        """Post with httpx's transport, without its client: saves 20 % of the time. Providers need
        no cookies, redirects or hooks.
        """
        left = False

        async def leave() -> None:
            nonlocal left
            if not await may_leave():
                raise _NotAllowed
            left = True

        async def trace(event: str, _: object) -> None:
            """httpcore's trace callback."""
            if event.endswith("send_request_headers.started"):
                await leave()

        http_request = httpx.Request(
            request.method,
            _url(request.url),
            headers={**_HEADERS, **request.headers},
            content=request.content,
            extensions={"timeout": self._timeout},
        )
        try:
            async with asyncio.timeout(self._within):
                if provider.sender.auth is not None:
                    async with aclosing(provider.sender.auth.async_auth_flow(http_request)) as flow:
                        http_request = await anext(flow)
                if self._idle[provider.name]:
                    # Already connected, so no trace callback is needed; it takes 10 % of the time.
                    await leave()
                if not self._idle[provider.name]:
                    # No connection, or another post took it during `leave`.
                    http_request.extensions["trace"] = trace
                return await self._exchange(provider.name, http_request)
        except TimeoutError as error:
            timeout = httpx.ReadTimeout if left else httpx.ConnectTimeout
            raise timeout(f"not done within {self._within} s") from error

    async def _exchange(self, provider: str, http_request: httpx.Request) -> httpx.Response:
        # The transport used last has the most recent connection.
        idle = self._idle[provider]
        sender = idle.pop() if idle else self._sender(http_request.url)
        try:
            response = await sender.handle_async_request(http_request)
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


def _log_fields(provider: ConnectedProvider) -> dict[str, str]:
    return {"provider": provider.name, "channel": provider.channel}


def _proxy_for(url: httpx.URL) -> str | None:
    """The proxy of the environment for a URL (HTTPS_PROXY, NO_PROXY ...)."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]
