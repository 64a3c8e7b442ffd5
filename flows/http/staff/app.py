"""The staff site as an application: its routes and what is around all of them."""

from typing import Any, cast
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from config.access.same_origin import OwnPagesOnly
from flows.app import Segue
from flows.http.limits.guessing import Guesses
from flows.http.staff import (
    account,
    approvals,
    joins,
    people,
    personas,
    reports,
    segments,
    sign_in,
    staff_log,
    today,
)
from flows.http.staff.journeys import journey, message_preview, runs
from flows.http.staff.rendering import style_sheets
from flows.http.staff.site import PEER, Site

_PARTS = (
    sign_in,
    account,
    today,
    people,
    joins,
    journey,
    runs,
    message_preview,
    reports,
    segments,
    personas,
    approvals,
    staff_log,
)


def create_app(segue: Segue, guesses: Guesses | None = None) -> ASGIApp:
    """The staff site. guesses: delays wrong passwords."""
    site = Site(segue, guesses or Guesses())
    settings = segue.settings

    async def unknown(_request: Request, _error: Exception) -> Response:
        return site.pages.notice(404, "Not found", "There is no such page.")

    async def wrong_method(_request: Request, _error: Exception) -> Response:
        return site.pages.notice(405, "Not found", "This address is for a form.")

    routes = [route for part in _PARTS for route in part.routes(site)]
    app = Starlette(
        routes=[*style_sheets(), *routes], exception_handlers={404: unknown, 405: wrong_method}
    )
    app.router.redirect_slashes = False
    proxied = [urlsplit(settings.staff_url).hostname or ""]
    own_pages = cast(Any, OwnPagesOnly(app, settings.host, proxied=proxied))  # uvicorn's own types
    proxies = [str(network) for network in settings.trusted_proxies]
    forwarded = cast(ASGIApp, ProxyHeadersMiddleware(own_pages, proxies))

    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the address of the connection, which decides whose login header is used."""
        if client := scope.get("client"):
            scope[PEER] = client[0]
        await forwarded(scope, receive, send)

    return with_peer
