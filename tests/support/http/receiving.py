"""Run the receiver as a real server on a free port, for tests that use HTTP."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from config.access.api_keys import make_key
from flows.app import Segue
from flows.http.app import create_app
from flows.http.limits.connections import Config, Connections, Limits, Network
from flows.http.limits.guessing import Guesses
from flows.http.serving import Server
from profiles.events import PROFILE_CHANGED
from profiles.tables import events
from tests.support.patience import PATIENCE
from tests.support.shop import House

WRITE_KEY = "write-key-for-the-sandbox-only"


class Receiving:
    """A running receiver. `told`: how often it called `arrived`."""

    def __init__(self, url: str, client: httpx.Client, connections: Connections) -> None:
        self.url = url
        self.connections = connections
        self.client = client
        self.told = 0

    def post(
        self, path: str, *, auth: tuple[str, str] = (WRITE_KEY, ""), **options: Any
    ) -> httpx.Response:
        """Post with the write key by default."""
        return self.client.post(path, auth=auth, **options)


class _Server:
    """uvicorn in a thread, reused by one app after another: a stop takes longer than most tests."""

    def __init__(self, limits: Limits, proxies: Sequence[Network]) -> None:
        self.app: FastAPI | None = None
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = Config(self._serve, limits, proxies, interface="asgi3")
        self.connections = config.connections
        self._server = server = Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        while not server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


_idle: list[_Server] = []
# On a loaded machine a client can be slow to send.
_LIMITS = Limits(head_within=PATIENCE, body_within=PATIENCE, taken_within=PATIENCE)


@contextmanager
def receiving(
    segue: Segue,
    limits: Limits | None = None,
    *,
    proxies: Sequence[Network] = (),
    guesses: Guesses | None = None,
    public: bool = False,
) -> Iterator[Receiving]:
    """Serve until the block ends, by default with the default limits except for the deadlines.

    public: the setting `public_url` is the URL of this server.
    """
    usual = limits is None
    server = _idle.pop() if usual and _idle else _Server(limits or _LIMITS, proxies)
    if public:
        settings = segue.settings.model_copy(update={"public_url": server.url})
        segue = replace(segue, settings=settings)
    # plain HTTP needs no certificates, and loading them takes longer than most requests
    with httpx.Client(base_url=server.url, timeout=PATIENCE, verify=False) as client:
        receiver = Receiving(server.url, client, server.connections)

        def arrived(_buckets: object) -> None:
            receiver.told += 1

        server.app = create_app(segue, arrived, guesses or Guesses(wait=0))
        try:
            yield receiver
        finally:
            server.app = None
            if usual:
                _idle.append(server)
            else:
                server.stop()


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
    """The JSON of an error answer, after a check of its status and code."""
    said: dict[str, Any] = answer.json()
    assert (answer.status_code, said["success"], said["code"]) == (status, False, code)
    return said


SHOP = "https://shop.example"


def made_key(
    house: House, label: str = "web", *, public: bool = True, origins: Sequence[str] = (SHOP,)
) -> str:
    """A new key. Make it before the receiver's first request: keys are read once a second."""
    with house.db.transaction() as tx:
        return make_key(tx, label, public=public, origins=origins if public else ())


def packed(content: bytes) -> dict[str, Any]:
    return {"content": gzip.compress(content), "headers": {"Content-Encoding": "gzip"}}


def leave_unworked(house: House, number: int) -> None:
    """Record events that are not worked."""
    ann = house.customer()
    for _ in range(number):
        house.did(ann, "waiting")
