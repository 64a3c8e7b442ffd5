"""A small shop to try Segue's client paths with: its page, and its server at sign-in.

The page uses Segment's browser client, from this server, with a public key. It is on another
origin than the receiver, as a real shop's page is. At sign-in the shop's server states the
customer to Segue with the server key, and signs the user token that the page's calls carry
(docs/start/clients.md).
"""

import hashlib
import time
from pathlib import Path

import httpx
import orjson
from liquid import CachingFileSystemLoader, Environment, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from config.access.user_tokens import user_token
from config.clock.times import HOUR
from config.database.engine import Database
from config.errors import SegueError
from config.settings import Settings
from sandbox.shop.page_key import page_key

_FILES = Path(__file__).parent / "static"
_TOKEN_LASTS = HOUR
# Seconds until a call of the shop's server to the receiver fails.
_WITHIN = 10.0
_TYPES = {".js": "text/javascript", ".css": "text/css"}


class _SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=60)
    email: str = Field(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
    anonymous_id: str = Field(default="", max_length=255)


class Shop:
    """The shop's routes.

    Parameters
    ----------
    db: Segue's database, which has the public key of the page.
    receiver: the client of the shop's server; None: one for `settings.public_url`.
    """

    def __init__(
        self, settings: Settings, db: Database, receiver: httpx.AsyncClient | None = None
    ) -> None:
        self._settings = settings
        self._db = db
        self._receiver = receiver or httpx.AsyncClient(
            base_url=settings.public_url, timeout=_WITHIN, trust_env=False
        )
        self._templates = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=CachingFileSystemLoader(_FILES, ext=".html"),
        )

    def routes(self) -> list[Route]:
        """The page at /shop, its files, the sign-in, and the monotonic clock in seconds."""
        return [
            Route("/shop", self.page),
            Route("/shop/sign-in", self.sign_in, methods=["POST"]),
            Route("/shop/moment", lambda _: JSONResponse({"moment": time.monotonic()})),
            *(
                Route(f"/shop/{name}", lambda _, name=name: _file(name))
                for name in ("shop.js", "shop.css", "analytics-next/analytics.js")
            ),
        ]

    def page(self, _request: Request) -> Response:
        """The shop."""
        try:
            key = page_key(self._db, self._settings)
        except (SegueError, DBAPIError) as error:
            return Response(f"The shop has no public key yet: {error}", 503)
        html = self._templates.get_template("shop").render(
            write_key=key, receiver=self._settings.public_url
        )
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; "
            f"img-src data:; connect-src 'self' {self._settings.public_url}; base-uri 'none'; "
            "frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(html, media_type="text/html", headers=headers)

    async def sign_in(self, request: Request) -> Response:
        """Register or recognise a customer by e-mail; answers with the user id and its token."""
        try:
            stated = _SignIn.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"error": error.errors()[0]["msg"]}, 400)
        user_id = "shop-" + hashlib.sha256(stated.email.lower().encode()).hexdigest()[:12]
        call = {
            "userId": user_id,
            "traits": {"email": stated.email, "firstName": stated.name},
            **({"anonymousId": stated.anonymous_id} if stated.anonymous_id else {}),
        }
        try:
            answer = await self._receiver.post(
                "/v1/identify",
                content=orjson.dumps(call),
                auth=(self._settings.write_key.get_secret_value(), ""),
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            return JSONResponse({"error": f"the receiver does not accept the call: {error}"}, 502)
        with self._db.transaction(write=False) as tx:
            expiry = tx.now + _TOKEN_LASTS
        token = user_token(self._settings.user_token_secret, user_id, expiry)
        return JSONResponse({"userId": user_id, "userToken": token, "name": stated.name})


def _file(name: str) -> Response:
    path = _FILES / name
    return FileResponse(path, media_type=_TYPES[path.suffix])
