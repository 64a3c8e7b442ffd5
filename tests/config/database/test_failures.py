"""A failing database: the worker logs it, rolls back, and continues when it works again."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

import channels.outbox.dispatch
from channels.outbox.unknown import settle_lost
from config.database.engine import Database, Tx
from config.database.failures import of_the_database
from config.timing import TIMING
from journeys.dsl import Email, Journey, OnEvent, Send, Wait
from journeys.engine.move import Moved, Mover
from journeys.operations.heartbeat import record_heartbeat
from tests.support.failures import until, worked
from tests.support.shop import MONDAY, House


@pytest.fixture
def busy_house(house: House) -> House:
    """Five profiles with an event that is not processed yet; a worker with a short retry."""
    house.shorten(after_trouble=0.05)
    steps = [Send("s", Email("hello")), Wait("1d")]
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=steps))
    for _ in range(5):
        house.did(house.customer(), "came", blob="x" * 3000)
    return house


def recovers(
    busy_house: House,
    caplog: pytest.LogCaptureFixture,
    trouble: AbstractContextManager[object],
    says: str,
) -> None:
    """Assert that the worker logs the error, changes nothing, and continues afterwards."""

    async def scenario() -> None:
        # not only housekeeping, which may be the first to meet it
        await until(lambda: says in caplog.text and "database error" in caplog.text)
        assert busy_house.rows() == []
        assert {(one.step, one.phase, one.attempts) for one in busy_house.people()} <= {("s", 0, 0)}
        assert busy_house.providers.requests == []
        trouble.__exit__(None, None, None)
        await until(lambda: [row.state for row in busy_house.rows()] == ["sent"] * 5)
        await until(lambda: {one.step for one in busy_house.people()} == {"wait 1d"})

    trouble.__enter__()
    worked(busy_house, scenario)
    assert "database error" in caplog.text
    assert len(busy_house.providers.accepted) == 5
    assert "@" not in caplog.text
    assert "xxx" not in caplog.text


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_connection_lost_in_mid_chunk(
    busy_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    move = Mover.move

    def losing(self: Mover, tx: Tx, *given: Any, **options: Any) -> Moved:
        moved = move(self, tx, *given, **options)
        tx.conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return moved

    recovers(busy_house, caplog, patch.object(Mover, "move", losing), "AdminShutdown")


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("function", "states"),
    [("claim_planned", set[str]()), ("record", {"sending"})],
    ids=["claiming", "recording"],
)
def test_a_connection_lost_at_the_hand_over(
    busy_house: House, caplog: pytest.LogCaptureFixture, function: str, states: set[str]
) -> None:
    """Before the request nothing has changed; after it the outcomes are kept in memory."""
    real = getattr(channels.outbox.dispatch, function)

    def losing(tx: Tx, *given: Any, **named: Any) -> Any:
        done = real(tx, *given, **named)
        tx.conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return done

    async def scenario() -> None:
        with patch.object(channels.outbox.dispatch, function, losing):
            await until(lambda: "AdminShutdown" in caplog.text)
            await until(lambda: {row.state for row in busy_house.rows()} == states)
        await until(lambda: [row.state for row in busy_house.rows()] == ["sent"] * 5)

    worked(busy_house, scenario)
    assert len(busy_house.providers.requests) == 5
    assert {row.attempts for row in busy_house.rows()} == {1}


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_a_locked_file(busy_house: House, caplog: pytest.LogCaptureFixture) -> None:
    engine = busy_house.db.engine
    engine.dispose()

    @event.listens_for(engine, "connect")
    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 20")

    @contextmanager
    def locked() -> Iterator[None]:
        file = engine.url.database
        assert file is not None
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    recovers(busy_house, caplog, locked(), "database is locked")


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_a_full_disk(busy_house: House, caplog: pytest.LogCaptureFixture) -> None:
    pages = [1]  # less than there are: no more than there are

    @event.listens_for(busy_house.db.engine, "checkout")
    def small(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")

    @contextmanager
    def full() -> Iterator[None]:
        yield
        pages[0] = 2**30

    recovers(busy_house, caplog, full(), "database or disk is full")


TROUBLE = OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))


def test_outcomes_are_recorded_when_the_database_works_again(
    busy_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with patch("channels.outbox.dispatch.record", side_effect=TROUBLE):
            await until(lambda: "outcomes can't be recorded yet" in caplog.text)
            assert {row.state for row in busy_house.rows()} == {"sending"}
        await until(lambda: {row.state for row in busy_house.rows()} == {"sent"})

    worked(busy_house, scenario)
    assert len(busy_house.providers.requests) == 5
    assert "5 outcomes can't be recorded yet: OperationalError: disk I/O error" in caplog.text


def test_a_worker_stops_during_a_database_failure_and_sends_nothing_twice(
    busy_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await until(lambda: "outcomes can't be recorded yet" in caplog.text)

    with patch("channels.outbox.dispatch.record", side_effect=TROUBLE):
        worked(busy_house, scenario)
    assert {row.state for row in busy_house.rows()} == {"sending"}
    busy_house.db.now = MONDAY + TIMING.claim_lasts + TIMING.lost_after + 1
    with busy_house.db.transaction() as tx:
        assert settle_lost(tx) == 5
    busy_house.later("2d")
    assert {row.state for row in busy_house.rows()} == {"unknown"}
    assert len(busy_house.providers.requests) == 5


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_value_that_is_too_large_is_not_a_database_failure(db: Database) -> None:
    """One row is the cause: the others do not wait as for a failing database."""
    large = Random(1).randbytes(5000).hex()

    def write() -> None:
        with db.transaction() as tx:
            record_heartbeat(tx, large)

    with pytest.raises(DBAPIError, match="index row") as caught:
        write()
    assert not of_the_database(caught.value)
