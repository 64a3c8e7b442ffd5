"""One kept connection to a provider, by httpcore, which is httpx's lower layer.

httpx's client, and its pool around a single connection, cost more processor time than the request
itself. Providers need no cookies, redirects or hooks, and the transport opens one connection for
each concurrent post (`python -m benchmarks --only dispatch`).
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import httpcore
import httpx

from channels.providers.sending import ProviderRequest

# Seconds. Idle connections are closed before servers close them (the earliest after 5 s), because a
# request on a closing connection has an unknown outcome.
_IDLE_AT_MOST = 4.0
# SendGrid requires Accept-Encoding.
_HEADERS = {"User-Agent": "segue", "Accept": "application/json", "Accept-Encoding": "gzip"}
# The names of httpcore's errors are those of httpx's.
_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class ProviderResponse(NamedTuple):
    """An HTTP response, read to its end and decompressed. headers: by lower-case name."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class ProviderConnection:
    """Sends one request at a time to one host, over HTTP/1.1.

    It connects with its first request, and again if the connection is closed or was idle for long.

    Parameters
    ----------
    proxy: the address of an HTTP proxy.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        self._origin = target_of(url).origin
        self._tls = tls
        self._proxy = proxy
        self._http = self._new()

    def _new(self) -> httpcore.AsyncHTTPConnection | httpcore.AsyncHTTPProxy:
        if self._proxy is None:
            return httpcore.AsyncHTTPConnection(
                self._origin, ssl_context=self._tls, keepalive_expiry=_IDLE_AT_MOST
            )
        return httpcore.AsyncHTTPProxy(
            self._proxy,
            ssl_context=self._tls,
            max_connections=1,
            max_keepalive_connections=1,
            keepalive_expiry=_IDLE_AT_MOST,
        )

    async def ready(self) -> bool:
        """Whether the next request needs no new connection. Closes one that can't be used."""
        http = self._http
        if isinstance(http, httpcore.AsyncHTTPProxy):
            return False  # its pool does not say
        if http.is_available() and not http.has_expired():
            return True
        await http.aclose()
        self._http = self._new()
        return False

    async def send(
        self, request: ProviderRequest, authorization: str | None, extensions: dict[str, Any]
    ) -> ProviderResponse:
        """Send a request and read the answer. Raises httpx's errors.

        Parameters
        ----------
        authorization: the value of that header, if the request has none.
        extensions: httpcore's: timeouts in seconds, a trace callback.
        """
        target = target_of(request.url)
        headers = {"Host": _host(target), **_HEADERS, **request.headers}
        if authorization is not None:
            headers["Authorization"] = authorization
        headers["Content-Length"] = str(len(request.content))
        try:
            response = await self._http.handle_async_request(
                httpcore.Request(
                    request.method,
                    target,
                    headers=list(headers.items()),
                    content=request.content,
                    extensions=extensions,
                )
            )
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        except _ERRORS as error:
            raise getattr(httpx, type(error).__name__)(str(error)) from error
        answered = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        if "content-encoding" in answered:
            content = httpx.Response(200, headers=response.headers, content=content).content
        return ProviderResponse(response.status, answered, content)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()


@lru_cache(maxsize=64)
def target_of(url: str) -> httpcore.URL:
    """The parts of a URL. Raises InvalidURL, and UnsupportedProtocol if it is not http or https."""
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"the URL {url!r} does not begin with http:// or https://")
    return httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
    )


def _host(target: httpcore.URL) -> str:
    """The Host header (RFC 9110, 7.2): an IPv6 address in brackets, the port unless the default."""
    host = target.host.decode("ascii")
    host = f"[{host}]" if ":" in host else host
    return host if target.port is None else f"{host}:{target.port}"
