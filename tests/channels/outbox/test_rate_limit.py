"""Rates: what all processes together may send on a channel in a second."""

import asyncio

import pytest
from sqlalchemy import select, text

from channels.outbox.dispatch import Dispatcher
from channels.outbox.rate_limit import allowance, channel_paces, spend
from config.clock.times import HOUR
from config.database.engine import Database
from journeys.dsl import SMS, Email, Push, Send
from journeys.engine.entry import enter_people
from tests.support.failures import at, entered
from tests.support.shop import MONDAY, House, described


def test_a_rate_is_shared_by_all_processes(db: Database) -> None:
    rates: dict[str, int] = {"twilio": 5}
    providers = ["sendgrid", "twilio"]

    def take(wanted: int) -> int:
        """What one process gets in a transaction of its own."""
        with db.transaction() as tx:
            allowed = allowance(tx, rates, providers, 500)
            assert allowed["sendgrid"] == 500
            got = min(wanted, allowed.get("twilio", 0))
            spend(tx, rates, {"twilio": got, "sendgrid": 7})
            return got

    db.now = MONDAY
    assert [take(3), take(3), take(3)] == [3, 2, 0]
    db.now = MONDAY + 1
    assert [take(3), take(3), take(3)] == [3, 2, 0]
    with db.transaction(write=False) as tx:
        [row] = tx.conn.execute(select(channel_paces))
    assert (row.channel, row.second, row.used) == ("twilio", MONDAY + 1, 5)
    # whose transaction began a second ago, and who waited for the row
    db.now = MONDAY
    assert take(1) == 0
    # the clock was set back
    db.now = MONDAY - HOUR
    assert take(9) == 5


def test_two_dispatchers_keep_a_rate_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(house, SMS("hello"), Email("hello"), people=10, rates={"sms": 4})

    async def both(one: Dispatcher) -> None:
        async with house.segue.dispatcher() as other:
            await asyncio.gather(one.run(), other.run())
            # what one of them held while the other looked
            await other.run()

    # a clock that stands still, but is the database's own
    house.db.now = None
    for seconds in range(3):
        second = text(f"SELECT {MONDAY + seconds}")
        monkeypatch.setattr(
            "config.database.engine.NOW", dict.fromkeys(("sqlite", "postgresql"), second)
        )
        house.dispatching(both)
        assert at(house, "sms") == min(10, 4 * (seconds + 1))
    assert at(house, "email") == 10
    assert len({one.message_id for one in house.providers.accepted}) == 20


def test_what_one_push_takes_beyond_the_rate_is_taken_off_the_seconds_that_follow(
    db: Database,
) -> None:
    rates: dict[str, int] = {"push": 2}

    def allowed(now: int) -> int | None:
        db.now = now
        with db.transaction() as tx:
            return allowance(tx, rates, ["push"], 500).get("push")

    db.now = MONDAY
    with db.transaction() as tx:
        spend(tx, rates, {"push": allowance(tx, rates, ["push"], 500)["push"] + 5})
    assert [allowed(MONDAY + seconds) for seconds in range(5)] == [None, None, None, 1, 2]
    db.now = MONDAY + 3
    with db.transaction() as tx:
        spend(tx, rates, {"push": 1})
    assert [allowed(MONDAY + 3), allowed(MONDAY + 4)] == [None, 2]


def test_a_rate_counts_the_devices_of_a_push(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four a second: two people with two devices, then somebody with five, who goes alone."""
    house.open(described(Send("s", Push("hello"))), rates={"push": 4})
    people = [
        house.customer(push_tokens={f"device-{number}-{one}": "ios" for one in range(devices)})
        for number, devices in enumerate((2, 2, 5, 2))
    ]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), people, None)
    house.advance()

    async def once(one: Dispatcher) -> None:
        await one.run()

    house.db.now = None
    posts = []
    for seconds in range(5):
        second = text(f"SELECT {MONDAY + seconds}")
        monkeypatch.setattr(
            "config.database.engine.NOW", dict.fromkeys(("sqlite", "postgresql"), second)
        )
        house.dispatching(once)
        posts.append(at(house, "push"))
    assert posts == [4, 9, 11, 11, 11]
    assert {row.state for row in house.rows()} == {"sent"}
