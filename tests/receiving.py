"""The receiver as a real server on a free port, for tests that talk HTTP to it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from flows.app import Segue
from flows.receiver.app import create_app

WRITE_KEY = "write-key-for-the-sandbox-only"


class Receiving:
    """A running receiver. `told`: how often it said that something arrived."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client
        self.told = 0

    def post(
        self, path: str, *, auth: tuple[str, str] = (WRITE_KEY, ""), **options: Any
    ) -> httpx.Response:
        """Post as one who has the write key, unless told otherwise."""
        return self.client.post(path, auth=auth, **options)


class _Server:
    """uvicorn in a thread, for one app after the other: to stop it takes longer than most tests."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                self._serve,
                interface="asgi3",
                access_log=False,
                log_config=None,
                lifespan="off",
                ws="none",
            )
        )
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        while not server.started:
            time.sleep(0.005)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


_idle: list[_Server] = []


@contextmanager
def receiving(segue: Segue) -> Iterator[Receiving]:
    """Serve until the block ends."""
    server = _idle.pop() if _idle else _Server()
    # without certificates, which take longer to read than most requests, and serve no plain HTTP
    with httpx.Client(base_url=server.url, timeout=30, verify=False) as client:
        receiver = Receiving(server.url, client)

        def arrived() -> None:
            receiver.told += 1

        server.app = create_app(segue, arrived)
        yield receiver
        server.app = None
    _idle.append(server)
