"""The whole loop on one machine, over real HTTP and in real time: an event becomes a message, the
sandbox's customers react, its providers report it, and journeys move on.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import select

from config.database.engine import Database
from config.settings import Settings
from flows.local.stack import free_ports
from flows.worker.worker import Worker
from journeys.dsl import SMS, Email, Journey, OnEvent, Send, Update
from profiles.tables import consent_records, events
from sandbox.app import create_app
from sandbox.providers.caller import Callbacks
from sandbox.store import Store
from tests.support.logged import logging_at
from tests.support.patience import PATIENCE
from tests.support.providers.sandbox_requests import AUTH, LOGIN
from tests.support.shop import House

TEXTS = {
    "hello.email.html": 'Subject: Hello\n\n<a href="https://shop.example/cart">Your cart</a>',
    "hello.sms.txt": "{{ profile.first_name }}, your cart is waiting. Reply STOP to end.",
}
CART = Journey(
    "cart",
    entry=OnEvent("cart_abandoned"),
    topic="promotions",
    steps=[
        Send(
            "nudge",
            Email("hello"),
            SMS("hello"),
            mode="first",
            fallback_after="1h",
            unless="opened",
        ),
        Update("done", nudged=True),
    ],
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    receiver, sandbox = free_ports(2)
    return Settings(
        data_dir=tmp_path,
        receiver_port=receiver,
        sandbox_port=sandbox,
        public_url=f"http://127.0.0.1:{receiver}",
    )


@pytest.fixture
def sandbox(settings: Settings) -> Iterator[str]:
    """The sandbox on its port."""
    store = Store(settings.data_dir / "sandbox.db")
    app = create_app(store, None, Callbacks(settings, store.now), login=LOGIN)
    config = uvicorn.Config(app, port=settings.sandbox_port, access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield settings.sandbox_url
    server.should_exit = True
    thread.join()
    store.close()


def test_a_message_is_answered_and_the_journey_moves_on(
    db: Database, settings: Settings, sandbox: str
) -> None:
    house = House(db)
    given = settings.model_dump(exclude={"brand"})
    house.open(CART, texts=TEXTS, **given)
    about = {"first_name": "Annabel", "last_name": "Lee"}
    ann = house.customer("ann", attributes=about)
    bob = house.customer("bob", email=None, attributes=about)
    db.now = None
    behaviour = {
        **{"seed": 1, "dead": 0, "blocked": 0, "opens": 1, "clicks": 1, "stops": 1},
        **{"delivered_within": 0.2, "answered_within": 0.2, "gathered": 0.1, "twice": 0.5},
    }
    assert httpx.post(f"{sandbox}/behaviour", json=behaviour, auth=AUTH).status_code == 204
    for person in (ann, bob):
        house.did(person, "cart_abandoned")

    def settled() -> bool:
        moved_on = "nudged" in house.attributes(ann)
        return moved_on and "email_clicked" in _heard(db, ann) and bool(_stops(db, bob))

    async def work() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        async with asyncio.timeout(PATIENCE):
            while not (working.done() or await asyncio.to_thread(settled)):
                await asyncio.sleep(0.02)
        stop.set()
        await working

    with logging_at("debug") as log:
        asyncio.run(work())
    assert [(row.channel, row.state, row.reason) for row in house.rows(ann)] == [
        ("email", "delivered", None),
        ("sms", "skipped", "not_chosen"),
    ]
    assert [(row.channel, row.state) for row in house.rows(bob)] == [
        ("email", "skipped"),
        ("sms", "delivered"),
    ]
    assert _stops(db, bob) == ["twilio STOP"]
    for name in ("email_delivered", "email_opened", "email_clicked"):
        assert _heard(db, ann).count(name) == 1
    assert httpx.get(f"{sandbox}/behaviour", auth=AUTH).json()["given_up"] == 0
    # every message left its trace, and nobody's address or name did
    sent = {row.id for row in house.rows() if row.state == "delivered"}
    assert sent <= {line.get("message_id") for line in log.lines}
    given_away = ("example.com", "7700900", "token-", "Annabel", "Lee")
    assert [one for one in given_away if one in log.text] == []


def _heard(db: Database, person: int) -> list[str]:
    """What a person did, by name."""
    names = select(events.c.name).where(events.c.profile_id == person)
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(names).scalars())


def _stops(db: Database, person: int) -> list[str]:
    """Where each no of a person came from."""
    said = select(consent_records.c.source).where(
        consent_records.c.profile_id == person, consent_records.c.granted.is_(False)
    )
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(said).scalars())
