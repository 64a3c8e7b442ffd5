"""A process that only receives, for `intake` and `profile-reads`.

    python -m benchmarks.baselines.receivers segue|bare

`segue` is the worker's receiver without the rest of a worker. `bare` is the least that an ASGI
application does for the same rows: it parses the body, inserts the events of the request by one
prepared statement, commits, and answers. Its profile ids are the numbers in the user ids; it checks
no key, no call and no limit, and resolves nobody. GET of a path that ends with a user id reads the
attributes by primary key.
"""

import asyncio
import sys
from typing import Any

import orjson
import uvicorn
import uvloop
from prometheus_client import REGISTRY, generate_latest
from starlette.types import Receive, Scope, Send

from config.database.engine import Database
from config.settings import load_settings
from flows.app import open_segue
from flows.http.serving import serving
from profiles.bucketing import bucket_of

_COLUMNS = (
    "profile_id, name, occurred_at, received_at, properties, dedupe_key, identifier_kind, "
    "identifier_value, bucket"
)


class Bare:
    """The application without Segue."""

    def __init__(self, db: Database) -> None:
        self._db = db
        marks = ", ".join(["?" if db.is_sqlite else "%s"] * 9)
        self._insert = f"INSERT INTO event ({_COLUMNS}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        mark = "?" if db.is_sqlite else "%s"
        self._read = f"SELECT attributes FROM profile WHERE id = {mark} AND bucket = {mark}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/metrics":
            await answer(send, generate_latest(REGISTRY))
            return
        number = scope["path"].rpartition("u-")[2]
        if scope["method"] == "GET" and number.isdecimal():
            await answer(send, await asyncio.to_thread(self._attributes, int(number)))
            return
        if body := await body_of(receive):
            said = orjson.loads(body)
            await asyncio.to_thread(self._write, said.get("batch") or [said])
        await answer(send, b'{"success":true}')

    def _attributes(self, number: int) -> bytes:
        with self._db.transaction(write=False) as tx:
            [(attributes,)] = tx.conn.exec_driver_sql(self._read, (number, bucket_of(number)))
        return attributes.encode() if isinstance(attributes, str) else orjson.dumps(attributes)

    def _write(self, calls: list[dict[str, Any]]) -> None:
        with self._db.transaction() as tx:
            rows = []
            for call in calls:
                profile_id = int(call["userId"].removeprefix("u-"))
                row = (
                    profile_id,
                    call["event"],
                    tx.now,
                    tx.now,
                    orjson.dumps(call["properties"]).decode(),
                    call["messageId"],
                    "user_id",
                    call["userId"],
                    bucket_of(profile_id),
                )
                rows.append(row)
            tx.conn.exec_driver_sql(self._insert, rows)


async def body_of(receive: Receive) -> bytes:
    """The whole body of a request."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    return body


async def answer(send: Send, body: bytes) -> None:
    """Answer with 200 and this JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _bare() -> None:
    settings = load_settings()
    app = Bare(Database(settings.database))
    config = uvicorn.Config(
        app, settings.host, settings.receiver_port, log_level="warning", lifespan="off"
    )
    await uvicorn.Server(config).serve()


async def _segue() -> None:
    async with serving(open_segue(), lambda _: None) as server:
        await server


if __name__ == "__main__":
    uvloop.run({"bare": _bare, "segue": _segue}[sys.argv[1]]())
