"""The receiver as a real server on a free port, for tests that talk HTTP to it: what they post, and
what they find afterwards.
"""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from flows.app import Segue
from flows.receiver.app import create_app
from profiles.events import PROFILE_CHANGED
from profiles.tables import events
from tests.house import House
from tests.patience import PATIENCE

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
    with httpx.Client(base_url=server.url, timeout=PATIENCE, verify=False) as client:
        receiver = Receiving(server.url, client)

        def arrived() -> None:
            receiver.told += 1

        server.app = create_app(segue, arrived)
        yield receiver
        server.app = None
    _idle.append(server)


def happened(house: House) -> list[Any]:
    with house.db.transaction(write=False) as tx:
        return list(tx.conn.execute(select(events).order_by(events.c.id)))


def names(house: House) -> list[str]:
    return [event.name for event in happened(house) if event.name != PROFILE_CHANGED]


def keys(house: House) -> list[str]:
    return [event.dedupe_key for event in happened(house)]


def track(number: int = 1, **said: Any) -> dict[str, Any]:
    return {"type": "track", "userId": f"u{number}", "event": "x", "messageId": f"m{number}"} | said


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The JSON of an answer that is no success."""
    said: dict[str, Any] = answer.json()
    assert (answer.status_code, said["success"], said["code"]) == (status, False, code)
    return said


def packed(content: bytes) -> dict[str, Any]:
    return {"content": gzip.compress(content), "headers": {"Content-Encoding": "gzip"}}


def leave_unworked(house: House, number: int) -> None:
    """So many events come in that nobody has worked."""
    ann = house.customer()
    for _ in range(number):
        house.did(ann, "waiting")
