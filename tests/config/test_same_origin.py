"""Which requests a server on this machine refuses, by their headers."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from config.access.same_origin import OwnPagesOnly

OWN = "127.0.0.1:4200"
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


async def answer(request: Request) -> Response:
    return PlainTextResponse((await request.body()).decode())


async def accept(websocket: WebSocket) -> None:
    await websocket.accept()


APP = Starlette(routes=[Route("/", answer, methods=METHODS), WebSocketRoute("/", accept)])
ON_LOOPBACK = OwnPagesOnly(APP, "127.0.0.1", json_only=True)


def status(method: str = "GET", content: Any = None, **headers: str) -> int:
    """The response to an HTTP request; content in a list is sent in chunks."""
    given = {"host": OWN} | {name.replace("_", "-"): value for name, value in headers.items()}
    return status_of(method, content, list(given.items()))


def status_of(
    method: str, content: Any, headers: list[tuple[str, str]], app: ASGIApp = ON_LOOPBACK
) -> int:
    async def chunks() -> Any:
        for chunk in content:
            yield chunk

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            body = chunks() if isinstance(content, list) else content
            found = await client.request(method, "http://x/", headers=headers, content=body)
            return found.status_code

    return asyncio.run(ask())


def opens(**headers: str) -> bool:
    """Whether a WebSocket is accepted."""
    return opens_at(ON_LOOPBACK, {"host": OWN, **headers})


def opens_at(app: ASGIApp, headers: dict[str, str]) -> bool:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        **{"type": "websocket", "path": "/", "query_string": b"", "subprotocols": []},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}},
    }

    async def connect() -> None:
        await app(scope, receive, send)

    asyncio.run(connect())
    return bool(sent[0]["type"] == "websocket.accept")


@pytest.mark.parametrize(
    "host", [OWN, "127.0.0.1", "localhost:4200", "LOCALHOST", "[::1]:4200", "127.0.0.1:1"]
)
def test_its_own_names(host: str) -> None:
    assert status(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("evil-127.0.0.1", "", "127.0.0.1@evil.example", "127.0.0.2:4200", "[::2]", "localhost.x"),
        *("127.0.0.1, evil.example", "169.254.169.254", "0.0.0.0:4200"),
    ],
)
def test_a_name_of_another_site_is_refused_for_every_method(host: str) -> None:
    for method in METHODS:
        assert status(method, host=host) == 400
    assert not opens(host=host)


@pytest.mark.parametrize("name", ["segue.internal", "10.0.0.5:4200", "evil.example"])
def test_where_it_listens_elsewhere_its_names_are_not_known(name: str) -> None:
    app = OwnPagesOnly(APP, "0.0.0.0")
    assert status_of("GET", None, [("host", name)], app) == 200
    other = [("host", name), ("origin", "http://other.example")]
    assert status_of("GET", None, other, app) == 403
    assert opens_at(app, {"host": name})


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "https://evil.example:4200", "null", "", "file://", "http://["),
        *("http://127.0.0.1:8025", "http://127.0.0.1", "http://localhost:4200", "127.0.0.1:4200"),
        *(
            "http://127.0.0.1:4200.evil.example",
            "http://evil@127.0.0.1:4200",
            "chrome-extension://a",
        ),
    ],
)
def test_another_origin_is_refused_for_every_method(origin: str) -> None:
    for method in METHODS:
        assert status(method, origin=origin) == 403
    assert not opens(origin=origin)


@pytest.mark.parametrize("host", [OWN, "localhost:4200", "[::1]:4200"])
def test_requests_of_its_own_pages_and_of_programs_are_accepted(host: str) -> None:
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
        assert status("POST", "{}", content_type="application/json", **headers) == 200
        assert opens(**headers)


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""),
        *("text/plain; application/json", "text/plain;charset=application/json", "application/jso"),
        *("application/json, text/plain", "application/jsonx"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_body_that_is_not_declared_as_json_is_refused(method: str, kind: str) -> None:
    assert status(method, "{}", content_type=kind) == 415
    assert status(method, [b"{}"], content_type=kind) == 415


def test_a_body_without_a_type_is_refused() -> None:
    """A browser sends a Blob without a type like this, without a preflight request."""
    assert status("POST", b"{}") == 415
    assert status("POST", [b"{}"]) == 415


def test_two_types_are_refused_if_one_is_not_json() -> None:
    for kinds in (["application/json", "text/plain"], ["text/plain", "application/json"]):
        headers = [("host", OWN), *(("content-type", kind) for kind in kinds)]
        assert status_of("POST", "{}", headers) == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_and_no_body_at_all_are_taken(kind: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert status(method, "{}", content_type=kind) == 200
        assert status(method) == 200
