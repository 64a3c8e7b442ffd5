"""The copy of a simulation: what it has, and that it changes nothing."""

import pytest
from sqlalchemy import Table, func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from channels.messages import messages
from config.clock.times import DAY, HOUR
from config.database.engine import Database
from journeys.dsl import Email, Experiment, OnLaunch, Send, Wait, arm, days, did
from journeys.enrollments import enrollments
from journeys.simulation.copy import CopyScope, copied_tables, copy, copy_again, snapshot
from journeys.tables import launches, passages
from profiles.tables import events, identifiers, profiles
from tests.support.shop import House, described

# The tables that no decision of a simulation reads.
LEFT_OUT = {
    # a log of work, and what processes share
    *("alembic_version", "attendance", "bucket_holder", "bucket_lease", "change_counter"),
    *("channel_pace", "journey_news", "retention_position", "step_shown", "signed_call"),
    # reports on what is over
    *("message_total", "passage_total", "past_message", "upgrade", "merge", "launch"),
    *("kept_report", "segment_count", "persona_move"),
    # requests of people, and the addresses of those who were erased, whom a copy does not have
    *("erased_address", "privacy_request"),
    # pairs that are probably one customer
    "duplicate",
    # what joins have left out
    "join_limit_hit",
    # the past of who is one customer
    *("identity_record", "kept_apart"),
    # whether a launch may start is not simulated
    "approval",
    # access, and confirmations that customers have yet to give
    *("api_key", "staff_act", "staff_session", "staff_user", "email_confirmation"),
}


def copied(house: House, people: list[int] | None = None) -> Database:
    segue = house.segue
    scope = CopyScope(catalog=segue.catalog, policy=segue.policy, now=house.now, people=people)
    with snapshot(house.db) as tx:
        return copy(tx, scope)


def number(db: Database, table: Table) -> int:
    with db.transaction(write=False) as tx:
        return tx.conn.execute(select(func.count()).select_from(table)).scalar_one()


def test_every_table_is_copied_or_left_out_for_a_reason(house: House) -> None:
    """Whoever adds a table decides which."""
    house.open(described(Send("s", Email("hello"))))
    scope = CopyScope(catalog=house.segue.catalog, policy=house.segue.policy, now=house.now)
    copying = {table.name for table in copied_tables(scope)}
    assert copying & LEFT_OUT == set()
    assert set(SQLModel.metadata.tables) - copying - LEFT_OUT == set()


def test_a_copy_has_what_decisions_depend_on(house: House) -> None:
    steps = (
        Experiment("e", arm("a", 50, [Wait("1d")]), arm("b", 50, [Wait("2d")])),
        Send("s", Email("hello")),
    )
    house.open(
        described(*steps, entry=OnLaunch(again=days(5)), exit_when=did("bought")),
        described(Send("s", Email("offer")), name="other", entry=OnLaunch(again="always")),
    )
    for _ in range(3):
        person = house.customer()
        house.did(person, "bought", house.now - 400 * DAY, total=3)
        house.did(person, "looked", house.now - HOUR)
    house.launch("j")
    house.launch("other")
    house.later("100d")
    house.launch("j")
    found = copied(house)
    assert number(found, profiles) == 3
    assert number(found, identifiers) == 9
    # Nobody asks for `looked`, and the messages of three months ago count against no cap.
    with found.transaction(write=False) as tx:
        assert set(tx.conn.execute(select(events.c.name)).scalars()) == {"bought"}
        assert tx.conn.execute(select(events.c.properties)).scalars().first() == {"total": 3}
    assert number(found, messages) == 0
    # The first enrollments bar nobody any more.
    assert number(found, enrollments) == 3
    assert number(found, passages) == 6
    again = copy_again(found)
    assert number(again, passages) == 6
    with again.transaction() as tx:
        tx.conn.execute(passages.delete())
    assert (number(again, passages), number(found, passages)) == (0, 6)
    again.close()
    found.close()


def test_a_copy_of_some_people(house: House) -> None:
    house.open(described(Send("s", Email("hello"))))
    ids = [house.customer() for _ in range(4)]
    found = copied(house, ids[1:3])
    with found.transaction(write=False) as tx:
        assert list(tx.conn.execute(select(profiles.c.id)).scalars()) == ids[1:3]
    assert number(found, identifiers) == 6
    found.close()


def test_the_source_can_not_be_written(house: House) -> None:
    house.open(described(Send("s", Email("hello"))))
    reading = Database(house.db.url, read_only=True)
    row = {"id": "l", "journey": "j", "version": "1", "audience": "a", "started_at": 1}
    with pytest.raises(DBAPIError, match=r"read-?only"), reading.transaction() as tx:
        tx.conn.execute(insert(launches), row)
    reading.close()
    if not house.db.is_sqlite:
        with pytest.raises(DBAPIError, match="read-only"), snapshot(house.db) as tx:
            tx.conn.execute(insert(launches), row)
