"""The doctor reports each problem with its duration and its fix."""

from unittest.mock import patch

import httpx
import pytest
from sqlalchemy import select, update

from channels.messages import messages
from channels.outbox.unknown import CLOSED_AFTER, REPORT_EXPECTED_FOR, close_unsettled, settle_lost
from config.clock.times import DAY, HOUR, MINUTE
from config.database.engine import Database
from config.timing import TIMING
from journeys.dsl import SMS, Email, Journey, OnLaunch, Send, Update, Wait
from journeys.engine.entry import enter_people
from journeys.operations import control
from journeys.operations.doctor import LATE, Finding, diagnose
from journeys.operations.heartbeat import record_heartbeat
from journeys.tables import heartbeats
from tests.support.shop import MONDAY, House


@pytest.fixture
def house(db: Database) -> House:
    house = House(db)
    steps = [Send("s", Email("hello"), SMS("hello", after="1h")), Wait("30d")]
    house.open(
        Journey("j", entry=OnLaunch(), topic="news", steps=steps),
        Journey("k", entry=OnLaunch(), topic="news", steps=[Update("u", x=1), Wait("30d")]),
    )
    return house


def complaints(house: House) -> list[Finding]:
    """While a worker is on."""
    with house.db.transaction() as tx:
        record_heartbeat(tx, "w")
        return diagnose(tx)


def reported(house: House) -> list[tuple[str, str, int, int]]:
    return [(one.what, one.where, one.number, one.for_seconds) for one in complaints(house)]


def test_no_findings(house: House) -> None:
    assert complaints(house) == []
    house.customer()
    house.launch("j")
    assert complaints(house) == []
    house.later("9d")
    assert complaints(house) == []


def test_overdue_enrollments(house: House) -> None:
    people = [house.customer() for _ in range(3)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), people, None)
        enter_people(tx, house.segue.catalog.journey("k"), people[:1], None)
    house.db.now = MONDAY + LATE
    assert complaints(house) == []
    house.db.now = MONDAY + LATE + 1
    assert reported(house) == [
        ("overdue enrollments", "j", 3, LATE + 1),
        ("overdue enrollments", "k", 1, LATE + 1),
    ]
    assert {one.mend for one in complaints(house)} == {"start a worker: segue work"}
    # who is held on purpose is not late
    control.pause(house.db, "j")
    assert [where for _, where, _, _ in reported(house)] == ["k"]
    house.run()
    assert complaints(house) == []


def test_journeys_with_no_worker(house: House) -> None:
    """Long before anybody is past due."""

    def told_without() -> list[tuple[str, str, int, int]]:
        with house.db.transaction(write=False) as tx:
            found = [(one.what, one.where, one.number, one.for_seconds) for one in diagnose(tx)]
            return [one for one in found if one[0] == "no worker is running"]

    assert told_without() == []
    people = [house.customer() for _ in range(3)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), people, None)
        enter_people(tx, house.segue.catalog.journey("k"), people[:1], None)
    house.run()
    house.db.now = MONDAY + 10
    no_worker = "no worker is running"
    # there never was one
    assert told_without() == [(no_worker, "j", 3, 10), (no_worker, "k", 1, 10)]
    with house.db.transaction() as tx:
        record_heartbeat(tx, "a:1")
        record_heartbeat(tx, "a:2")
    house.db.now = MONDAY + HOUR
    with house.db.transaction() as tx:
        record_heartbeat(tx, "a:2")
    house.db.now += LATE
    assert told_without() == []
    house.db.now += 1
    assert told_without() == [(no_worker, "j", 3, LATE + 1), (no_worker, "k", 1, LATE + 1)]
    control.pause(house.db, "j")
    assert told_without() == [(no_worker, "k", 1, LATE + 1)]
    # who is gone for long is forgotten
    house.db.now = MONDAY + HOUR + DAY + 1
    with house.db.transaction() as tx:
        record_heartbeat(tx, "b:1")
        assert tx.conn.execute(select(heartbeats.c.worker)).scalars().all() == ["b:1"]


def test_overdue_messages(house: House) -> None:
    house.customer()
    house.launch("j")
    house.db.now = MONDAY + HOUR + LATE + 1
    with house.db.transaction() as tx:
        tx.conn.execute(update(messages).where(messages.c.channel == "email").values(state="sent"))
    found = reported(house)
    assert ("overdue messages", "sms", 1, LATE + 1) in found
    assert {what for what, *_ in found} <= {"overdue messages", "overdue enrollments"}
    control.pause(house.db, "j")
    assert complaints(house) == []


def test_claims_of_dead_processes_are_named_and_fixed(house: House) -> None:
    house.customer()
    with (
        patch("channels.outbox.dispatch.Dispatcher._hand_over", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        house.launch("j")
    lost = MONDAY + TIMING.claim_lasts + TIMING.lost_after
    house.db.now = lost
    assert complaints(house) == []
    house.db.now = lost + 1
    assert reported(house) == [("claims without an owner", "email", 1, TIMING.lost_after + 1)]
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 1
    assert complaints(house) == []


def test_unknown_messages_without_a_later_webhook_are_named(house: House) -> None:
    house.customer()
    house.providers.answer("email", httpx.ReadError("cut"))
    house.launch("j")
    house.until(MONDAY + REPORT_EXPECTED_FOR)
    assert complaints(house) == []
    house.until(MONDAY + REPORT_EXPECTED_FOR + 1)
    assert reported(house) == [("unknown messages", "email", 1, REPORT_EXPECTED_FOR + 1)]
    [one] = complaints(house)
    assert "segue resolve" in one.mend
    # the last day, then it is closed
    house.until(MONDAY + CLOSED_AFTER)
    with house.db.transaction() as tx:
        assert close_unsettled(tx) == 0
    assert len(complaints(house)) == 1
    house.until(MONDAY + CLOSED_AFTER + 1)
    with house.db.transaction() as tx:
        assert close_unsettled(tx) == 1
    assert complaints(house) == []


def test_a_step_that_fails(house: House) -> None:
    house.customer()
    with patch("journeys.engine.handlers.update_profile", side_effect=KeyError):
        house.launch("k")
    assert reported(house) == [("failing steps", "k / u", 1, 0)]
    house.later("1h")
    assert complaints(house) == []


def test_unprocessed_events(house: House) -> None:
    ann = house.customer()
    for _ in range(2):
        house.did(ann, "looked", MONDAY - DAY)
    house.db.now = MONDAY + LATE
    assert complaints(house) == []
    house.db.now = MONDAY + LATE + 1
    assert reported(house) == [("unprocessed events", "looked", 2, LATE + 1)]
    house.run()
    assert complaints(house) == []


def test_the_oldest_comes_first(house: House) -> None:
    ann = house.customer()
    house.did(ann, "looked")
    house.db.now = MONDAY + 10 * MINUTE
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    house.db.now = MONDAY + 20 * MINUTE
    assert reported(house) == [
        ("unprocessed events", "looked", 1, 20 * MINUTE),
        ("overdue enrollments", "j", 1, 10 * MINUTE),
    ]
