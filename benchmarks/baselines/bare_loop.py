"""The process that replaces the worker of `live`, without Segue.

    python -m benchmarks.baselines.bare_loop

It does the least that turns an event into a message: an ASGI route parses the call and inserts a
row, answers, posts the mail with httpx, and updates the row. It checks no key and no rule, and the
mail is written in advance. The number of the customer is the one in its user id.
"""

import asyncio

import httpx
import orjson
import uvicorn
import uvloop
from prometheus_client import REGISTRY, generate_latest
from starlette.types import Receive, Scope, Send

from benchmarks.baselines.receivers import answer, body_of
from channels.kinds.email import EmailContent
from channels.providers.registry import connect_providers
from channels.providers.sending import Outgoing, ProviderRequest
from config.database.engine import Database
from config.settings import Settings, load_settings
from profiles.bucketing import bucket_of

_CONNECTIONS = 50
_ADDRESS = "customer.%s@example.com"
_TEXT = "You left something in your cart. " * 20


class BareLoop:
    """The ASGI application."""

    def __init__(self, db: Database, mail: ProviderRequest, client: httpx.AsyncClient) -> None:
        self._db = db
        self._mail = mail
        self._client = client
        self._posting: set[asyncio.Task[None]] = set()
        mark = "?" if db.is_sqlite else "%s"
        self._insert = (
            "INSERT INTO event (profile_id, name, occurred_at, received_at, properties, "
            f"dedupe_key, bucket) VALUES ({', '.join([mark] * 7)}) RETURNING id"
        )
        self._update = f"UPDATE event SET received_at = {mark} WHERE id = {mark}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/metrics":
            await answer(send, generate_latest(REGISTRY))
            return
        body = await body_of(receive)
        if body:
            call = orjson.loads(body)
            number = int(call["userId"].removeprefix("u-"))
            properties = orjson.dumps(call["properties"]).decode()
            row = (number, call["event"], 0, 0, properties, "1", bucket_of(number))
            event_id = await asyncio.to_thread(self._write, self._insert, row)
            posting = asyncio.create_task(self._post(number, event_id))
            self._posting.add(posting)
            posting.add_done_callback(self._posting.discard)
        await answer(send, b'{"success":true}')

    async def _post(self, number: int, event_id: int) -> None:
        address = (_ADDRESS % number).encode()
        response = await self._client.post(
            self._mail.url,
            headers=self._mail.headers,
            content=self._mail.content.replace((_ADDRESS % "x").encode(), address),
        )
        assert response.status_code == 202, response.text
        await asyncio.to_thread(self._write, self._update, (1, event_id))

    def _write(self, sql: str, row: tuple[object, ...]) -> int:
        with self._db.transaction() as tx:
            written = tx.conn.exec_driver_sql(sql, row)
            return int(written.scalar_one()) if written.returns_rows else 0


def _mail(settings: Settings) -> ProviderRequest:
    """The request for a mail to the customer `x`."""
    content = EmailContent(subject="Your cart", html=f"<p>{_TEXT}</p>", text=_TEXT)
    one = Outgoing(
        message_id=1,
        to=_ADDRESS % "x",
        content=content,
        platform=None,
        unsubscribe_url=None,
        topic="carts",
        kind="marketing",
        journey="cart-recovery",
        step="nudge",
        ttl=None,
    )
    return connect_providers(settings).by_name["sendgrid"].sender.prepare([one])


async def _serve() -> None:
    settings = load_settings()
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
        app = BareLoop(Database(settings.database), _mail(settings), client)
        config = uvicorn.Config(
            app, settings.host, settings.receiver_port, log_level="warning", lifespan="off"
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(_serve())
