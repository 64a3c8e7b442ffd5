"""Live counts are reported to Prefect after the work, at a limited rate, without waiting for it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import respx
from sqlalchemy import insert, select

from channels.messages import messages
from channels.outbox.outcomes import Tally
from config.clock.times import DAY
from config.database.engine import Database
from config.settings import Settings
from config.timing import Timing
from flows.orchestration.api.prefect_events import EVENT, Reporter
from flows.worker.worker import Worker
from journeys.dsl import Email, Journey, OnEvent, Send
from journeys.engine.events import Reaction
from journeys.operations.live_counts import LiveCounts, share, take_due
from journeys.tables import journey_news
from tests.support.failures import until
from tests.support.shop import MONDAY, House, bare_message

API = "http://prefect.example/api"
NOTHING = Reaction()


@pytest.fixture
def prefect() -> Iterator[respx.Router]:
    """A Prefect server on which every journey is deployed."""
    with respx.mock(base_url=API, assert_all_called=False) as router:
        router.get(path__regex=r".*/deployments/name/(?P<name>[^/]+)/.*", name="deployment").mock(
            side_effect=lambda request, name: httpx.Response(200, json={"id": f"id-of-{name}"})
        )
        router.post("/events", name="events").respond(204)
        yield router


@pytest.fixture
def teller(db: Database) -> Reporter:
    return new_teller(db)


def new_teller(db: Database) -> Reporter:
    db.now = MONDAY
    db.timing = Timing(report_every=0.01, report_again=0.05)
    return Reporter(db, Settings(prefect_api_url=API))


def telling(teller: Reporter, scenario: Callable[[], Awaitable[None]]) -> None:
    """Activity happens while the reporter runs."""

    async def both() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(teller.run(stop))
        await scenario()
        stop.set()
        async with asyncio.timeout(60):
            await running

    asyncio.run(both())


def reported(prefect: respx.Router) -> list[dict[str, Any]]:
    return [event for call in prefect["events"].calls for event in orjson.loads(call[0].content)]


def posted(prefect: respx.Router, times: int) -> bool:
    return prefect["events"].call_count >= times


def moved(prefect: respx.Router) -> list[tuple[str, int]]:
    return [(one["payload"]["journey"], one["payload"]["moved"]) for one in reported(prefect)]


def test_what_happens_within_a_second_is_one_event(prefect: respx.Router, teller: Reporter) -> None:
    async def scenario() -> None:
        reaction = Reaction(entered=Counter(cart=2), exited=Counter(cart=1))
        reaction.about_messages["cart", "email_opened"] = 3
        for _ in range(2):
            teller.note(reaction, {"cart": 4}, Tally({("cart", "push", "sent"): 5}))
        teller.note(NOTHING, {"welcome": 1}, Tally())
        await until(lambda: prefect["events"].called)

    telling(teller, scenario)
    cart, welcome = reported(prefect)
    assert (cart["event"], cart["occurred"]) == (EVENT, "2026-03-02T10:00:00Z")
    assert cart["resource"] == {
        "prefect.resource.id": "prefect.deployment.id-of-cart",
        "prefect.resource.name": "cart",
    }
    assert cart["payload"] == {
        "journey": "cart",
        "entered": 4,
        "moved": 8,
        "left": 2,
        "converted": 0,
        "messages": {"push": {"sent": 10}},
        "heard": {"email_opened": 6},
        "bounced_percent": None,
        "see": "http://prefect.example/v2/deployments/deployment/id-of-cart",
        "ask": "segue report cart",
    }
    assert welcome["payload"]["moved"] == 1
    assert cart["id"] != welcome["id"]


def test_at_most_one_event_a_journey_a_second(
    db: Database, prefect: respx.Router, teller: Reporter
) -> None:
    async def scenario() -> None:
        for number in range(5):
            teller.note(NOTHING, {"cart": 1}, Tally())
            await until(lambda: prefect["events"].called)
            if number == 2:
                teller.note(NOTHING, {"welcome": 1}, Tally())
                await until(lambda: prefect["events"].call_count == 2)
        await asyncio.sleep(0.1)
        db.now = MONDAY + 1
        await until(lambda: prefect["events"].call_count == 3)

    telling(teller, scenario)
    assert moved(prefect) == [("cart", 1), ("welcome", 1), ("cart", 4)]


def test_all_workers_together_report_once_a_second(db: Database, prefect: respx.Router) -> None:
    tellers = [new_teller(db) for _ in range(3)]

    async def scenario() -> None:
        for second in range(4):
            db.now = MONDAY + second
            for number, teller in enumerate(tellers):
                teller.note(NOTHING, {"cart": 10**number}, Tally())
            await until(partial(posted, prefect, second + 1))
            await asyncio.sleep(0.1)
        db.now = MONDAY + 4
        await until(lambda: sum(number for _, number in moved(prefect)) == 444)

    async def all_of_them() -> None:
        stop = asyncio.Event()
        running = [asyncio.create_task(teller.run(stop)) for teller in tellers]
        await scenario()
        stop.set()
        await asyncio.gather(*running)

    asyncio.run(all_of_them())
    moments = [event["occurred"] for event in reported(prefect)]
    assert len(moments) in (4, 5)
    assert len(set(moments)) == len(moments)


def test_another_worker_reports_the_counts_of_a_stopped_worker(
    db: Database, prefect: respx.Router, teller: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect["events"].side_effect = httpx.ConnectError("refused")

    async def scenario() -> None:
        teller.note(NOTHING, {"cart": 3}, Tally())
        await until(lambda: prefect["events"].called)

    telling(teller, scenario)
    asyncio.run(teller.keep())
    assert moved(prefect) == [("cart", 3)]
    prefect["events"].side_effect = [httpx.Response(204)]
    other = new_teller(db)
    db.now = MONDAY + 1
    telling(other, lambda: until(lambda: prefect["events"].call_count > 1))
    assert moved(prefect) == [("cart", 3)] * 2


def test_unsent_counts_are_reported_by_any_worker(
    db: Database, prefect: respx.Router, teller: Reporter
) -> None:
    """So a worker that is killed while Prefect is away takes no more than its last second along."""
    prefect["events"].side_effect = httpx.ConnectError("refused")

    async def scenario() -> None:
        teller.note(NOTHING, {"cart": 3}, Tally())
        await until(lambda: untold(db) == {("moved",): 3})

    telling(teller, scenario)


def untold(db: Database) -> LiveCounts:
    """The unreported counts of the only journey; empty without a row."""
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(journey_news).where(journey_news.c.told_at > 0)).all()
    return LiveCounts({tuple(place): number for row in rows for *place, number in row.counts})


def test_an_earlier_clock_does_not_restart_the_second(db: Database) -> None:
    """Its transaction began before and waited for the row; a clock that was set back counts too."""
    for now, told in ((MONDAY, True), (MONDAY - 1, False), (MONDAY + 1, True), (0, True)):
        db.now = now
        with db.transaction() as tx:
            share(tx, {"cart": LiveCounts({("moved",): 1})})
            assert bool(take_due(tx)[0]) == told


def test_the_log_reports_lost_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teller = new_teller(Database(f"sqlite:///{tmp_path}/without-tables.db"))
    teller.note(NOTHING, {"cart": 3}, Tally())
    asyncio.run(teller.keep())
    assert "unreported counts are lost" in caplog.text


def test_nothing_is_reported_without_activity(prefect: respx.Router, teller: Reporter) -> None:
    async def scenario() -> None:
        teller.note(NOTHING, {}, Tally())
        await asyncio.sleep(0.1)

    telling(teller, scenario)
    assert not prefect.calls


def test_unsent_counts_are_reported_later(
    db: Database, prefect: respx.Router, teller: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    gone = httpx.ConnectError("refused")
    prefect["events"].side_effect = [gone, httpx.Response(500), httpx.Response(204)]

    async def scenario() -> None:
        teller.note(NOTHING, {"cart": 1}, Tally())
        for second in (1, 2):
            await until(partial(posted, prefect, second))
            db.now = MONDAY + second
            teller.note(NOTHING, {"cart": 5}, Tally())
        await until(lambda: prefect["events"].call_count == 3)

    with caplog.at_level(logging.INFO, "flows.orchestration.api.prefect_events"):
        telling(teller, scenario)
    assert reported(prefect)[-1]["payload"]["moved"] == 11
    assert len({event["id"] for event in reported(prefect)}) == 3, "none of them was taken"
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "reporting to Prefect failed and will be retried",
        "reporting to Prefect works again",
    ]


def test_a_journey_without_a_deployment_is_not_reported(
    prefect: respx.Router, teller: Reporter
) -> None:
    prefect["deployment"].side_effect = lambda request, name: httpx.Response(404)

    async def scenario() -> None:
        teller.note(NOTHING, {"cart": 1}, Tally())
        await until(lambda: prefect["deployment"].called)

    telling(teller, scenario)
    assert reported(prefect) == []


def test_without_an_api_url_nothing_is_reported(prefect: respx.Router, sqlite_url: str) -> None:
    teller = Reporter(Database(sqlite_url), Settings(prefect_api_url=""))
    teller.note(NOTHING, {"cart": 1}, Tally())
    asyncio.run(teller.run(asyncio.Event()))  # it does not wait for the end
    assert not prefect.calls


def test_the_key_and_the_password_are_sent(db: Database, prefect: respx.Router) -> None:
    for number, (setting, secret, header) in enumerate(
        [
            ("prefect_api_key", "pnu_1", "Bearer pnu_1"),
            ("prefect_api_auth_string", "ann:secret", "Basic YW5uOnNlY3JldA=="),
        ]
    ):
        db.now = MONDAY + number
        told = Settings.model_validate({"prefect_api_url": API, setting: secret})
        teller = Reporter(db, told)

        async def scenario(teller: Reporter = teller) -> None:
            calls = prefect["events"].call_count
            teller.note(NOTHING, {"cart": 1}, Tally())
            await until(lambda: prefect["events"].call_count > calls)

        telling(teller, scenario)
        assert prefect["events"].calls.last.request.headers["Authorization"] == header


@pytest.mark.parametrize(
    ("bounced", "others", "share", "label"),
    [
        (6, 94, 6.0, "over 5 %"),
        (5, 95, 5.0, "over 2 %"),
        (1, 99, 1.0, None),
        (20, 20, None, None),  # too few to say
    ],
)
def test_the_share_of_bounces_is_a_label(
    db: Database,
    prefect: respx.Router,
    bounced: int,
    others: int,
    share: float | None,
    label: str | None,
) -> None:
    db.now = MONDAY
    house = House(db)
    house.open(Journey("cart", entry=OnEvent("came"), topic="news", steps=[Send("s", Email("x"))]))
    with db.transaction() as tx:
        states = ["failed"] * bounced + ["sent", "delivered"] * (others // 2) + ["sent"]
        states = states[: bounced + others]
        rows = [
            bare_message("cart", number, state, MONDAY - 60) for number, state in enumerate(states)
        ]
        rows += [
            bare_message("cart", 1000 + number, "failed", MONDAY - 2 * DAY) for number in range(100)
        ]
        tx.conn.execute(insert(messages), rows)
    teller = Reporter(db, Settings(prefect_api_url=API))

    async def scenario() -> None:
        reaction = Reaction()
        reaction.about_messages["cart", "email_bounced"] = 1
        teller.note(reaction, {}, Tally())
        await until(lambda: prefect["events"].called)

    telling(teller, scenario)
    [event] = reported(prefect)
    assert event["payload"]["bounced_percent"] == share
    assert event["resource"].get("segue.bounced") == label


def test_messages_are_sent_while_prefect_is_gone_or_hangs(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(db)
    house.shorten(report_within=0.5)
    steps = [Send("s", Email("hello"))]
    cart = Journey("cart", entry=OnEvent("came"), topic="news", steps=steps)
    house.open(cart, prefect_api_url=API)
    hung = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        hung.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        for number in range(3):
            house.did(house.customer(), "came")
            await until(partial(all_sent, house, number + 1))
            await hung.wait()
        stop.set()
        async with asyncio.timeout(60):
            await working

    house.providers.hosts["prefect.example"] = hang
    with house.providers.listening():
        asyncio.run(scenario())


def all_sent(house: House, number: int) -> bool:
    return [row.state for row in house.rows()] == ["sent"] * number
