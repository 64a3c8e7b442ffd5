"""Post requests to providers. Retries are left to the outbox."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

import httpx

from channels.providers.base import ConnectedProvider
from channels.providers.connection import ProviderConnection, ProviderResponse
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

# Raised before the first byte of a request is sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# The URL setting is invalid.
_NO_ADDRESS = (httpx.InvalidURL, httpx.UnsupportedProtocol)

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
        self._idle: dict[str, list[ProviderConnection]] = defaultdict(list)
        self._connections: list[ProviderConnection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            await connection.aclose()

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
            answer = await self._send(provider, request, may_leave)
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
            found = provider.sender.read(*answer, batch)
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
    ) -> ProviderResponse:
        """Send once it may leave, and read the answer. Raises httpx's errors and _NotAllowed."""
        left = False

        async def ask() -> None:
            if not await may_leave():
                raise _NotAllowed

        async def trace(event: str, _: object) -> None:
            """httpcore's trace callback."""
            nonlocal left
            if event.endswith("send_request_headers.started"):
                await ask()
                left = True

        extensions: dict[str, Any] = {"timeout": self._timeout}
        try:
            async with asyncio.timeout(self._within):
                auth = provider.sender.auth
                authorization = None if auth is None else await auth()
                idle = self._idle[provider.name]
                # The one used last is the most likely to be still connected.
                connection = idle.pop() if idle else self._connection(request.url)
                try:
                    await ask()
                    if await connection.ready():
                        left = True
                    else:
                        # Asks again once it is connected. Tracing takes 10 % of the time.
                        extensions["trace"] = trace
                    return await connection.send(request, authorization, extensions)
                finally:
                    idle.append(connection)
        except TimeoutError as error:
            timeout = httpx.ReadTimeout if left else httpx.ConnectTimeout
            raise timeout(f"not done within {self._within} s") from error

    def _connection(self, url: str) -> ProviderConnection:
        proxy = _proxy_for(httpx.URL(url)) if self._trust_env else None
        connection = ProviderConnection(url, self._tls, proxy)
        self._connections.append(connection)
        return connection


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
