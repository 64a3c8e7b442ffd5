"""Protect servers on this machine from requests by pages of other sites.

A page of any site can make a browser send requests to a server on the same machine. CORS prevents
it from reading the response, but not from sending the request. CORS does not apply if the site's
name resolves to 127.0.0.1 (DNS rebinding) or if the page opens a WebSocket.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from config.access.login import is_loopback

_READS = ("GET", "HEAD", "OPTIONS")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class OwnPagesOnly:
    """ASGI middleware, for HTTP and WebSockets.

    400: the Host is not a name of this server. On loopback only the names of loopback are accepted,
    and those of a proxy on this machine (`proxied`). Otherwise the names are unknown, so every Host
    is accepted, and a login must protect the server.
    403: the request comes from a page of another origin.
    415, with `json_only`: the body is not declared as JSON. A browser sends such a body to other
    origins without a preflight request.
    """

    def __init__(
        self, app: ASGIApp, host: str, *, json_only: bool = False, proxied: Sequence[str] = ()
    ) -> None:
        own = [host, *_THIS_MACHINE, *proxied] if is_loopback(host) else ["*"]
        self._inner = TrustedHostMiddleware(self._checked, own, www_redirect=False)
        self._app = app
        self._json_only = json_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] in ("http", "websocket"):
            refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        if any(_host_of(origin) != headers.get("host", "").lower() for origin in origins):
            return PlainTextResponse("Requests from pages of other origins are refused.\n", 403)
        if not self._json_only or scope["type"] != "http" or scope["method"] in _READS:
            return None
        kinds = headers.getlist("content-type") or [""]
        if _has_body(headers) and not all(_is_json(kind) for kind in kinds):
            return PlainTextResponse("Send the body as Content-Type: application/json.\n", 415)
        return None


def _host_of(origin: str) -> str | None:
    """Host and port of an origin; None for "null" and for an invalid origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
