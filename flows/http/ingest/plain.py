"""Serve the paths of clients as plain ASGI functions, ahead of FastAPI.

FastAPI describes these paths (`/openapi.json`) and answers other methods. A POST to one of them, or
a GET of one, goes straight to the same function, without matching routes, solving dependencies and
opening exit stacks, which take as long as the rest of such a request.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.http.errors import Refusal, refused

Endpoint = Callable[[Request], Awaitable[Response]]


class PlainPaths:
    """Middleware that serves some paths itself.

    Parameters
    ----------
    posts: what serves POST, by path. gets: what serves GET, by the beginning of the path. They take
        only a Starlette request, and may raise Refusal.
    """

    def __init__(
        self, app: ASGIApp, posts: Mapping[str, Endpoint], gets: Mapping[str, Endpoint]
    ) -> None:
        self._app = app
        self._posts = posts
        self._gets = gets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint(scope) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive))
        except Refusal as refusal:
            response = refused(refusal)
        await response(scope, receive, send)

    def _endpoint(self, scope: Scope) -> Endpoint | None:
        path: str = scope["path"]
        if scope["method"] == "POST":
            return self._posts.get(path)
        if scope["method"] == "GET":
            for beginning, endpoint in self._gets.items():
                if path.startswith(beginning):
                    return endpoint
        return None


def endpoints_of(routers: Iterable[APIRouter]) -> dict[str, Endpoint]:
    """The functions of these routers' paths, by path, without a parameter at its end."""
    return {
        route.path.partition("{")[0]: route.endpoint
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
    }
