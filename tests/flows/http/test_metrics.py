"""/metrics and /healthz: counts of the actual work, and red when work is not done."""

import asyncio
import re
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from channels.feedback.apply import apply
from channels.outbox.dispatch import Dispatcher
from config.clock.times import HOUR, MINUTE
from config.database.engine import Database
from config.policy import Policy
from flows.http.app import create_app
from flows.worker.worker import Worker
from journeys.dsl import SMS, Email, Journey, OnEvent, OnLaunch, Push, Send, Wait, WaitUntil, did
from journeys.engine.events import react
from journeys.engine.turn import Turn
from journeys.enrollments import enrollments
from journeys.operations import control
from profiles.calls.record_calls import take_calls
from tests.support.failures import until
from tests.support.http.receiving import WRITE_KEY, track
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.dispatching import sending
from tests.support.shop import MONDAY, House


@pytest.fixture
def house(sqlite_house: House) -> House:
    return sqlite_house


def get(house: House, path: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(house.segue, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get(path)

    return asyncio.run(asked())


def gauges(house: House) -> dict[str, float]:
    """The queue gauges of /metrics."""
    text = get(house, "/metrics").text
    found = re.findall(r"^(segue_(?:\w+_due|\w+_waiting|oldest_\w+)(?:{.*?})?) (.+)$", text, re.M)
    return {name: float(value) for name, value in found}


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


class Counting:
    """How much counters grow in a block."""

    def __init__(self, *asked: tuple[str, dict[str, str]]) -> None:
        self._asked = asked

    def _now(self) -> list[float]:
        return [counted(name, **labels) for name, labels in self._asked]

    def __enter__(self) -> "Counting":
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        pairs = zip(self._now(), self._before, strict=True)
        self.grown = [int(now - before) for now, before in pairs]


def messages_total(channel: str, outcome: str) -> tuple[str, dict[str, str]]:
    return "segue_messages_total", {"channel": channel, "outcome": outcome}


def decisions(channel: str, decision: str) -> tuple[str, dict[str, str]]:
    return "segue_decisions_total", {"channel": channel, "decision": decision}


def said(channel: str, kind: str) -> tuple[str, dict[str, str]]:
    return "segue_feedback_total", {"channel": channel, "kind": kind}


# Counts -------------------------------------------------------------------------------------------


def test_sends_by_channel_and_outcome_and_decisions_by_reason(house: House) -> None:
    house.open(
        sending(Email("hello"), SMS("hello"), Push("hello")),
        texts={
            "hello.email.html": "Subject: {{ profile.missing }}\n\n<p>x</p>",
            "hello.sms.txt": "hello",
            "hello.push.txt": "Title: hello\n\nhello",
        },
    )
    house.customer()
    house.customer(consent={("email", "*"): True})
    house.providers.answer("push", httpx.Response(400, json={}))
    with Counting(
        messages_total("sms", "sent"),
        messages_total("push", "sent"),
        messages_total("push", "failed"),
        messages_total("email", "missing_data"),
        decisions("sms", "planned"),
        decisions("sms", "no_consent"),
    ) as counting:
        house.launch("j")
    assert counting.grown == [1, 1, 1, 2, 1, 1]


def test_messages_refused_at_the_hand_over_are_counted(house: House) -> None:
    journey = Journey("j", entry=OnLaunch(), topic="news", exit_when=did("bought"),
                       steps=[Send("s", Email("hello", after="1h"))])  # fmt: skip
    house.open(journey)
    ann, bob, _ = (house.customer() for _ in range(3))
    house.launch("j")
    house.db.now = MONDAY + HOUR
    house.did(ann, "bought")
    house.say(bob, "email", "*", granted=False)
    outcomes = ("sent", "cancelled", "no_consent")
    with Counting(*(messages_total("email", outcome) for outcome in outcomes)) as counting:
        house.dispatch()
    assert counting.grown == [1, 1, 1]


def test_the_channels_that_were_not_needed_are_decisions_too(house: House) -> None:
    house.open(sending(Email("hello"), SMS("hello"), mode="first", fallback_after="2h",
                       unless="opened"))  # fmt: skip
    ann = house.customer()
    with Counting(decisions("email", "planned"), decisions("sms", "not_chosen")) as counting:
        house.launch("j")
        house.did(ann, "email_opened")
        house.run()
    assert counting.grown == [1, 1]


def test_provider_reports_are_counted(house: House) -> None:
    house.open(sending(Email("hello"), SMS("hello")))
    house.customer("ann")
    house.launch("j")
    mail, text = house.rows()
    outside = FromProviders(house.segue)
    words = [
        mail_event(name, mail.id, "ann@example.com")
        for name in ("processed", "delivered", "open", "click", "bounce", "spamreport")
    ]
    kinds = ("sent", "delivered", "opened", "clicked", "bounced", "complained")
    ignored = "segue_feedback_ignored_total"
    with Counting(
        *(said("email", kind) for kind in kinds),
        said("sms", "delivered"),
        (ignored, {"why": "known"}),
        (ignored, {"why": "not ours"}),
    ) as counting:
        assert outside.mail(*words, mail_event("open", mail.id, "eve@example.com")).is_success
        assert outside.mail(*words).is_success
        assert outside.status(text.id, "delivered", "+447700900001").is_success
    # of a "sent" no record is kept, so it counts again
    assert counting.grown == [2, 1, 1, 1, 1, 1, 1, 5, 1]


def test_only_committed_changes_are_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.open(sending(Email("hello")))
    house.customer("ann")
    house.launch("j")
    [mail] = house.rows()
    outside = FromProviders(house.segue)

    def lost(*given: Any) -> None:
        apply(*given)
        raise ValueError

    monkeypatch.setattr("flows.http.hooks.providers.apply", lost)
    with Counting(said("email", "opened")) as counting:
        assert outside.mail(mail_event("open", mail.id, "ann@example.com")).status_code == 500
    assert counting.grown == [0]


# Queues -------------------------------------------------------------------------------------------


def test_the_queues(db: Database) -> None:
    house = House(db)
    house.open(
        Journey("j", entry=OnEvent("came"), topic="news",
                 steps=[Send("s", Email("hello", after="1h"), SMS("hello")), Wait("1d")])
    )  # fmt: skip
    people = [house.customer() for _ in range(3)]
    assert set(gauges(house).values()) == {0}
    for person in people:
        house.did(person, "came")
    house.db.now = MONDAY + 30
    assert gauges(house) == {
        "segue_events_waiting": 3,
        "segue_people_due": 0,
        'segue_messages_due{channel="email"}': 0,
        'segue_messages_due{channel="sms"}': 0,
        'segue_messages_due{channel="push"}': 0,
        "segue_oldest_due_seconds": 0,
        "segue_oldest_event_seconds": 30,
    }
    house.run()
    house.db.now = MONDAY + 2 * HOUR
    found = gauges(house)
    assert found["segue_events_waiting"] == 0
    assert found["segue_people_due"] == 3
    assert found['segue_messages_due{channel="email"}'] == 3
    assert found['segue_messages_due{channel="sms"}'] == 0
    assert found["segue_oldest_due_seconds"] == HOUR - 30
    control.pause(house.db, "j")
    assert set(gauges(house).values()) == {0}


# Health -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "status"), [(MINUTE, 200), (MINUTE + 1, 503)])
@pytest.mark.parametrize("what", ["a person", "a message", "an event"])
def test_red_when_the_oldest_is_older_than_a_minute(
    db: Database, what: str, late: int, status: int
) -> None:
    house = House(db)
    house.open(sending(Email("hello", after="1h")))
    ann = house.customer()
    if what == "an event":
        house.did(ann, "came")
    else:
        house.launch("j")
        columns: dict[str, int] = {"due_at": MONDAY if what == "a person" else MONDAY + 9 * HOUR}
        with house.db.transaction() as tx:
            tx.conn.execute(update(enrollments).values(**columns))
    due = MONDAY + HOUR if what == "a message" else MONDAY
    house.db.now = due + late
    answer = get(house, "/healthz")
    assert (answer.status_code, answer.json()["late"]) == (status, late)
    assert answer.json()["status"] == ("red" if status == 503 else "green")


def test_red_when_the_database_does_not_answer(house: House) -> None:
    house.open(sending(Email("hello")))
    object.__setattr__(house.segue, "db", Database("postgresql+psycopg://nobody@127.0.0.1:1/x"))
    answer = get(house, "/healthz")
    assert (answer.status_code, answer.json()["why"]) == (503, "the database does not respond")


def test_red_when_events_are_not_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.open()
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("flows.http.limits.work.time", clock)
    stuck, released = threading.Event(), threading.Event()

    def take(*given: Any) -> Any:
        stuck.set()
        released.wait()
        return take_calls(*given)

    monkeypatch.setattr("flows.http.ingest.segment.take_calls", take)

    async def scenario() -> None:
        transport = httpx.ASGITransport(create_app(house.segue, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
            posted = asyncio.create_task(
                client.post("/v1/track", json=track(), auth=(WRITE_KEY, ""))
            )
            await asyncio.to_thread(stuck.wait)
            clock.monotonic = lambda: 60.0
            assert (await client.get("/healthz")).json()["status"] == "green"
            clock.monotonic = lambda: 61.0
            answer = await client.get("/healthz")
            assert answer.status_code == 503
            assert answer.json() == {
                "status": "red",
                "why": "received requests are not written",
                "late": 61,
            }
            released.set()
            assert (await posted).status_code == 200
            assert (await client.get("/healthz")).json()["status"] == "green"

    try:
        asyncio.run(scenario())
    finally:
        released.set()


def test_concurrent_requests_share_one_health_check(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.open()
    look = Mock(return_value=0)
    monkeypatch.setattr("flows.http.health.oldest_event", look)

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(create_app(house.segue, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
            answers = await asyncio.gather(*(client.get("/healthz") for _ in range(50)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(scenario()) == [200] * 50
    assert look.call_count < 50


# The worker ---------------------------------------------------------------------------------------


def test_from_the_event_to_the_message(sqlite_url: str) -> None:
    """Once for all that events cause at once, when it has gone; not for what causes nothing."""
    house = House(Database(sqlite_url))
    steps = [Send("s", Email("hello")), Wait("1d")]
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=steps))
    ann = house.customer()
    took = "segue_event_to_message_seconds_count"

    async def scenario() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        events = counted("segue_events_total")
        house.did(ann, "looked around")
        await until(lambda: counted("segue_events_total") == events + 1)
        house.did(ann, "came")
        await until(lambda: counted(took) > before)
        stop.set()
        await working

    before = counted(took)
    with house.providers.listening():
        asyncio.run(scenario())
    assert [row.state for row in house.rows()] == ["sent"]
    assert counted(took) == before + 1


@pytest.mark.parametrize(
    ("waits", "heard", "least"),
    [(600, False, 600), (600, True, 600), (1, False, 1), (1, True, 0)],
    ids=["waited", "waited while others came", "another worker's", "our own"],
)
def test_the_latency_of_an_event_counts_from_its_receipt(
    house: House, waits: int, heard: bool, least: int
) -> None:
    """By our own clock what we received just now; by the database's whole seconds the rest."""
    steps = [Send("s", Email("hello"))]
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=steps))
    house.did(house.customer(), "looked around")
    house.db.now = MONDAY + HOUR
    house.did(house.customer(), "came")
    house.db.now += waits
    name = "segue_event_to_message_seconds_sum"
    before, began = counted(name), time.monotonic()

    async def work(dispatcher: Dispatcher) -> None:
        turn = Turn(house.segue.engine, dispatcher)
        arrived_at = time.monotonic() if heard else None
        while counted(name) == before:
            await turn.work(arrived_at)
            arrived_at = None

    house.dispatching(work)
    took = counted(name) - before
    assert least <= took <= least + time.monotonic() - began


def test_a_reaction_reports_the_age_of_its_oldest_cause(db: Database) -> None:
    house = House(db)
    waiting = WaitUntil("w", did("looked"), timeout="30d")
    house.open(Journey("j", entry=OnLaunch(), topic="news", steps=[waiting]))
    ann = house.customer()
    house.launch("j")
    for name in ("came", "looked", "looked"):
        house.db.now = house.now + MINUTE
        house.did(ann, name)
    house.db.now = house.now + MINUTE
    with house.db.transaction() as tx:
        reaction, _ = react(tx, house.segue.catalog, 500)
    assert (reaction.events, reaction.woken["j"], reaction.waited) == (3, 1, 2 * MINUTE)


def test_the_providers_time(house: House) -> None:
    house.open(sending(Email("hello")))
    house.customer()
    name = "segue_provider_request_seconds_count", {"channel": "email", "provider": "sendgrid"}
    with Counting(name) as counting:
        house.launch("j")
    assert counting.grown == [1]


def test_refusals_by_caps_are_counted(house: House) -> None:
    policy = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 0, "per": "day"}]})
    house.open(sending(Email("hello")), policy=policy)
    house.customer()
    with Counting(decisions("email", "capped")) as counting:
        house.launch("j")
    assert counting.grown == [1]
