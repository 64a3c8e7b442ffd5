"""Serve the paths of clients as plain ASGI functions, ahead of FastAPI.

FastAPI describes these paths (`/openapi.json`) and answers other methods. A POST to one of them
goes straight to the same function, without matching routes, solving dependencies and opening exit
stacks, which take as long as the rest of such a request.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.http.errors import Refusal, refused

Endpoint = Callable[[Request], Awaitable[Response]]


class PlainPosts:
    """Middleware that serves POST on some paths itself.

    Parameters
    ----------
    endpoints: by path. They take only a Starlette request, and may raise Refusal.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._endpoints.get(scope["path"]) if plain else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except Refusal as refusal:
            response = refused(refusal)
        await response(scope, receive, send)


def endpoints_of(routers: Iterable[APIRouter]) -> dict[str, Endpoint]:
    """The functions of these routers' paths, which all take POST."""
    return {
        route.path: route.endpoint
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    }
