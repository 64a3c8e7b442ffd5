"""Rate limits: the most messages per second on a channel, over all processes."""

import asyncio

import pytest
from sqlalchemy import select

from channels.outbox.dispatch import Dispatcher
from channels.outbox.rate_limit import RateLimits, channel_paces
from config.clock.times import HOUR, Instant
from config.database.engine import Database
from journeys.dsl import SMS, Email, Push, Send
from journeys.engine.entry import enter_people
from tests.support.clocks import own_clock
from tests.support.failures import at, entered
from tests.support.shop import MONDAY, House, described


def test_a_rate_is_shared_by_all_processes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock = own_clock(db, monkeypatch)

    def take(wanted: int, now: Instant) -> int:
        """How much a process gets that leases and claims so many messages."""
        limits = RateLimits(db, {"twilio": 5})
        limits.lease({"twilio": wanted, "sendgrid": 7})
        assert limits.left("sendgrid", now) is None
        left = limits.left("twilio", now)
        assert left is not None
        limits.spend("twilio", left, now)
        limits.settle()
        return left

    set_clock(MONDAY)
    assert [take(3, MONDAY) for _ in range(3)] == [3, 2, 0]
    set_clock(MONDAY + 1)
    assert [take(3, MONDAY + 1) for _ in range(3)] == [3, 2, 0]
    with db.transaction(write=False) as tx:
        [row] = tx.conn.execute(select(channel_paces))
    assert (row.channel, row.second, row.used) == ("twilio", MONDAY + 1, 5)
    # a transaction that began a second ago, and waited for the row
    set_clock(MONDAY)
    assert take(1, MONDAY) == 0
    # the clock was set back
    set_clock(MONDAY - HOUR)
    assert take(9, MONDAY - HOUR) == 5


def test_a_lease_is_used_in_its_second_only(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock = own_clock(db, monkeypatch)
    limits = RateLimits(db, {"twilio": 100})
    set_clock(MONDAY)
    limits.lease({"twilio": 10})
    limits.lease({"twilio": 10})  # it has them
    limits.spend("twilio", 4, MONDAY)
    limits.lease({"twilio": 10})
    assert limits.left("twilio", MONDAY) == 10
    assert limits.left("twilio", MONDAY + 1) == 0
    with db.transaction(write=False) as tx:
        assert [row.used for row in tx.conn.execute(select(channel_paces))] == [14]
    set_clock(MONDAY + 1)
    limits.lease_ahead()
    assert limits.left("twilio", MONDAY + 1) == 5


def test_two_dispatchers_keep_a_rate_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(house, SMS("hello"), Email("hello"), people=10, rates={"sms": 4})

    async def both(one: Dispatcher) -> None:
        async with house.segue.dispatcher() as other:
            await asyncio.gather(one.run(), other.run())
            # What one of them had leased while the other held the messages.
            await one.run()
            await other.run()

    set_clock = own_clock(house.db, monkeypatch)
    for seconds in range(3):
        set_clock(MONDAY + seconds)
        house.dispatching(both)
        assert at(house, "sms") == min(10, 4 * (seconds + 1))
    assert at(house, "email") == 10
    assert len({one.message_id for one in house.providers.accepted}) == 20


def test_an_excess_over_the_rate_is_deducted_from_the_next_seconds(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock = own_clock(db, monkeypatch)

    def leased(now: Instant, spent: int = 0) -> int | None:
        """What another process can lease."""
        set_clock(now)
        limits = RateLimits(db, {"push": 2})
        limits.lease({"push": 500})
        left = limits.left("push", now)
        limits.spend("push", spent, now)
        limits.settle()
        return left

    assert leased(MONDAY, spent=7) == 2
    assert [leased(MONDAY + seconds) for seconds in range(5)] == [0, 0, 0, 1, 2]


def test_a_rate_counts_the_devices_of_a_push(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four per second: two profiles with two devices, then one with five, which is sent alone."""
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

    set_clock = own_clock(house.db, monkeypatch)
    posts = []
    for seconds in range(5):
        set_clock(MONDAY + seconds)
        house.dispatching(once)
        posts.append(at(house, "push"))
    assert posts == [4, 9, 11, 11, 11]
    assert {row.state for row in house.rows()} == {"sent"}
