"""CORS on the paths of clients: pages of the origins that live public keys name may use them.

The clients of browsers send credentials, so responses name the exact origin and allow credentials
(Fetch standard, 3.2.5). A preflight does not say which key follows, so it allows the origins of
all live public keys; the key itself is checked with the request.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.clock.times import HOUR
from config.database.failures import of_the_database
from flows.http.errors import Problem, json_response
from flows.http.ingest.key_cache import KeyCache

# Segment's clients ask for authorization and x-retry-count; RudderStack's for anonymousid,
# authorization, content-type, sentat and, on retries, several that begin with rsa-.
_HEADERS = re.compile(
    r"authorization|content-type|content-encoding|anonymousid|sentat|x-retry-count|rsa-[a-z-]{1,40}"
)
_METHODS = "GET, POST"
# Chromium keeps the answer to a preflight for at most this long.
_MAX_AGE = 2 * HOUR
_PATHS = re.compile(r"/v1/.*|/beacon/v1/.*|/projects/.*|/sourceConfig/?")


class Cors:
    """ASGI middleware for the paths of clients. It goes around everything that answers them."""

    def __init__(self, app: ASGIApp, keys: KeyCache) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not origin and scope["method"] == "POST":
            await self._app(scope, receive, send)  # of a server or an app, and not cacheable
            return
        allowed = bool(origin) and await self._allows(origin)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if origin and preflight:
            wanted = headers.get("access-control-request-headers", "")
            response = _preflight(origin, wanted) if allowed else _refusal()
            await response(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.add_vary_header("Origin")
                if allowed:
                    added["Access-Control-Allow-Origin"] = origin
                    added["Access-Control-Allow-Credentials"] = "true"
                    added["Access-Control-Expose-Headers"] = "Retry-After"
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _allows(self, origin: str) -> bool:
        try:
            return origin in (await self._keys.current()).origins
        except Exception as error:
            if not of_the_database(error):
                raise
            return False  # the request itself gets 503


def _preflight(origin: str, wanted: str) -> Response:
    names = [name.strip().lower() for name in wanted.split(",")]
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": ", ".join(n for n in names if _HEADERS.fullmatch(n)),
        "Access-Control-Max-Age": str(_MAX_AGE),
        "Vary": "Origin, Access-Control-Request-Headers",
    }
    return Response(status_code=204, headers=headers)


def _refusal() -> Response:
    message = (
        "no public key allows this origin; make one with `segue keys make LABEL --public --origin`"
    )
    return json_response(403, Problem(code="origin", message=message), Vary="Origin")
