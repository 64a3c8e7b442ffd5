"""Workers that hang, wait, are older or have a wrong clock do not stop the others, and no message
is sent twice or too early.
"""

import threading
import time
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from channels.messages import messages
from channels.outbox.claim import claim
from channels.outbox.claims import Claimed
from channels.providers.registry import Route
from config.clock.times import HOUR, MINUTE
from config.database.engine import Database, Tx
from config.database.failures import of_the_database
from config.timing import TIMING
from journeys.dsl import SMS, Email, Journey, OnLaunch, Send, Update, Wait
from journeys.engine.advance import Engine
from journeys.engine.entry import enter_people
from journeys.engine.hand_over import CatalogJourneys
from journeys.engine.move import Moved, Mover
from journeys.operations.heartbeat import last_seen
from tests.support.failures import entered, until, worked
from tests.support.patience import PATIENCE
from tests.support.shop import MONDAY, House, advance, described


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_locks_of_a_hanging_process_are_released(db: Database) -> None:
    with db.transaction(write=False) as tx:
        held = tx.conn.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    assert held == "1min"

    def hang() -> None:
        with db.transaction() as tx:
            tx.conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
            # The server ends the transaction between two of our statements.
            for _ in range(1000):
                time.sleep(0.05)
                tx.conn.execute(select(1))

    with pytest.raises(DBAPIError, match=r"closed the connection|idle-in-transaction") as caught:
        hang()
    assert of_the_database(caught.value)


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_rows_locked_by_a_hanging_claim_are_skipped(house: House) -> None:
    """However many it holds, and though they are the earliest."""
    entered(house, SMS("hello"), people=25)
    outbox = CatalogJourneys(house.segue.engine.mover)

    def claimed(tx: Tx) -> Claimed:
        return claim(
            tx,
            house.segue.engine.planner,
            outbox,
            claimed_by="w",
            routes={"sms": Route("twilio")},
            limits={"twilio": 10},
        )

    with house.db.transaction(keep=False) as hanging:
        first = {one.message_id for one in claimed(hanging).claims}
        with house.db.transaction() as tx:
            second = claimed(tx)
        with house.db.transaction() as tx:
            third = claimed(tx)
    others = {one.message_id for one in (*second.claims, *third.claims)}
    assert (len(first), second.more, third.more, len(others)) == (10, True, False, 15)
    assert not first & others


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_claim_does_not_wait_for_a_cancellation(house: House) -> None:
    """So that no order of theirs can be a deadlock."""
    people = entered(house, SMS("hello"), people=3)
    cancelling = update(messages).where(messages.c.profile_id == people[0])
    with house.db.transaction(keep=False) as other:
        other.conn.execute(cancelling.values(state="cancelled"))
        with house.db.transaction() as tx:
            tx.conn.execute(text("SET LOCAL lock_timeout = '60s'"))
            outbox = CatalogJourneys(house.segue.engine.mover)
            claimed = claim(
                tx,
                house.segue.engine.planner,
                outbox,
                claimed_by="w",
                routes={"sms": Route("twilio")},
                limits={"twilio": 10},
            )
    assert {one.profile_id for one in claimed.claims} == set(people[1:])


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_another_worker_takes_over_the_work_of_a_hanging_one(house: House) -> None:
    """It hangs with its work done and not committed; what it did is gone, and is done again."""
    house.open(described(Send("s", Email("hello"))))
    people = [house.customer() for _ in range(3)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), people, None)
    hangs, taken_over = threading.Event(), threading.Event()
    move = Mover.move

    def hang(self: Mover, tx: Tx, *given: Any, **options: Any) -> Moved:
        moved = move(self, tx, *given, **options)
        if self is hanging.mover:
            tx.conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = '500ms'"))
            hangs.set()
            taken_over.wait(PATIENCE)
        return moved

    def work() -> None:
        with pytest.raises(DBAPIError, match=r"closed the connection|idle-in-transaction"):
            advance(hanging)

    other = Database(house.db.url, now=MONDAY)
    engine = house.segue.engine
    hanging = Engine(other, house.segue.catalog, engine.planner)
    with patch.object(Mover, "move", hang):
        thread = threading.Thread(target=work)
        thread.start()
        assert hangs.wait(PATIENCE)
        moved = 0
        deadline = time.monotonic() + PATIENCE
        while not moved and time.monotonic() < deadline:
            moved = advance(engine).total()
        taken_over.set()
        thread.join()
    other.close()
    assert moved == 3
    assert [row.state for row in house.rows()] == ["planned"] * 3
    assert {person.phase for person in house.people()} == {1}


@pytest.mark.parametrize("minutes", [-7, 7, 90])
def test_a_wrong_clock_of_a_worker_moves_no_enrollment_early(
    house: House, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """The database's time is used: no enrollment moves too early."""
    right = time.time
    monkeypatch.setattr("time.time", lambda: right() + minutes * MINUTE)
    waiting_first = Journey("j", entry=OnLaunch(), topic="news", steps=[Wait("1h"), Wait("1d")])
    house.open(waiting_first, described(Send("s", Email("hello")), name="k"))
    ann = house.customer()
    house.db.now = None
    before = int(right())
    with house.db.transaction() as tx:
        for name in "jk":
            enter_people(tx, house.segue.catalog.journey(name), [ann], None)
    while house.advance():
        pass
    seen: list[Any] = []
    house.providers.meanwhile = lambda: seen.extend(house.rows())
    house.run()
    waiting, done = house.people()
    assert waiting.step == "wait 1h"
    assert before + HOUR <= waiting.due_at <= int(right()) + HOUR
    assert done.end_reason == "completed"
    [claimed] = seen
    assert before <= claimed.send_at <= int(right())
    assert claimed.not_after == claimed.send_at + TIMING.claim_lasts


def test_a_version_registered_after_the_start_is_loaded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process enters a profile on it, and no other event happens to that profile."""
    house.shorten(housekeeping=0.05)
    steps = [Wait("1h", name="w"), Update("u", seen=True)]
    older = house.open(Journey("j", entry=OnLaunch(), topic="news", steps=steps[:1]))
    ann = house.customer()

    async def scenario() -> None:
        await until(lambda: signed_in(house))
        house.open(Journey("j", entry=OnLaunch(), topic="news", steps=steps))
        with house.db.transaction() as tx:
            enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
        house.db.now = MONDAY + HOUR
        await until(lambda: house.attributes(ann) == {"seen": True})

    house.segue = older
    worked(house, scenario)


def signed_in(house: House) -> bool:
    with house.db.transaction(write=False) as tx:
        return last_seen(tx) == house.now
