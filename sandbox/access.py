"""Require the login of this installation, by HTTP basic auth (RFC 7617)."""

import hmac
from base64 import b64encode

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class LoginRequired:
    """ASGI middleware for one route; `login` is `user:password`."""

    def __init__(self, app: ASGIApp, login: str) -> None:
        self._app = app
        self._expected = b64encode(login.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = Headers(scope=scope).get("authorization", "")
        scheme, _, given = header.partition(" ")
        known = hmac.compare_digest(given.strip().encode(), self._expected)
        if scheme.lower() == "basic" and known:
            await self._app(scope, receive, send)
            return
        refusal = PlainTextResponse(
            "Log in with basic auth: user and password are in the file `login` in the data folder "
            '(curl -u "$(cat .segue/login)" ...).\n',
            401,
            headers={"WWW-Authenticate": 'Basic realm="Segue sandbox"'},
        )
        await refusal(scope, receive, send)
