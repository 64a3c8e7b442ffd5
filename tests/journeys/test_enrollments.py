"""Every transition of enrollments, from both states, follows ALLOWED."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from sqlalchemy import Row, literal, select, union_all, update
from sqlalchemy.types import BigInteger, SmallInteger, Text

from config.clock.times import HOUR, Instant
from config.database.arrays import any_of
from config.database.engine import Database, Tx
from journeys.enrollments import enrollments, transitions
from journeys.enrollments.states import ALLOWED
from journeys.enrollments.transitions import Arrival, Stay
from profiles.bucketing import bucket_of
from profiles.identity.mergers import Merger
from profiles.tables import JSON_COLUMN
from tests.support.shop import MONDAY
from tests.support.structure.lifecycles import allowed, functions

LATER: Instant = MONDAY + HOUR
PEOPLE = range(1, 5)


def enter(tx: Tx, people: Collection[int]) -> Sequence[tuple[Any, ...]]:
    """Those people, one by one, as an entry does."""
    who = union_all(
        *(
            select(
                literal(one, BigInteger).label("profile_id"),
                literal(bucket_of(one), SmallInteger).label("bucket"),
            )
            for one in people
        )
    )
    given = {
        "journey": "j",
        "version": "v",
        "entry_key": "",
        "step": "s",
        "launch_id": "l",
    }
    times = ("entered_at", "since", "arrived_at")
    found = who.subquery()
    return transitions.enter(
        tx,
        select(
            found.c.profile_id,
            found.c.bucket,
            literal({}, JSON_COLUMN).label("context"),
            *(literal(value, Text).label(name) for name, value in given.items()),
            *(literal(MONDAY, BigInteger).label(name) for name in times),
            literal(LATER, BigInteger).label("due_at"),
        ).where(found.c.profile_id > 0),
        {},
    )


def rows_of(tx: Tx) -> dict[int, Row[Any]]:
    return {row.id: row for row in tx.conn.execute(select(enrollments))}


def state_of(row: Row[Any]) -> str:
    assert (row.due_at is None) != (row.ended_at is None)
    assert (row.ended_at is None) == (row.end_reason is None)
    return "waiting" if row.ended_at is None else "ended"


def each_apart(ids: Collection[int]) -> dict[Any, list[int]]:
    """Many places, most of them without an enrollment."""
    apart = {Stay(LATER + number, 3): [-number] for number in range(1, 20)}
    return {**apart, Stay(LATER + 99, 3): list(ids)}


Act = Callable[[Tx, list[int]], int]
ACTS: dict[str, list[Act]] = {
    "stay": [
        lambda tx, ids: transitions.stay(tx, {Stay(LATER + 1, 2): ids[:3], Stay(7, 1): ids[3:]}),
        lambda tx, ids: transitions.stay(tx, each_apart(ids)),
    ],
    "arrive": [
        lambda tx, ids: transitions.arrive(tx, {Arrival("next", MONDAY, LATER): ids}),
        lambda tx, ids: transitions.arrive(
            tx, {Arrival(f"next {one}", MONDAY, LATER): [one] for one in (*ids, *range(-20, 0))}
        ),
    ],
    "retry": [
        lambda tx, ids: sum(transitions.retry(tx, one, attempts=3, due_at=LATER) for one in ids)
    ],
    "lease": [lambda tx, ids: transitions.lease(tx, ids, LATER)],
    "wake": [lambda tx, ids: transitions.wake(tx, ids)],
    "migrate": [
        lambda tx, ids: transitions.migrate(
            tx, select(enrollments.c.id).where(any_of(enrollments.c.id, "ids")), {"ids": ids}, "w"
        )
    ],
    "end": [lambda tx, ids: transitions.end(tx, ids, "completed")],
    "undo": [lambda tx, ids: transitions.undo(tx, ids, "the launch was undone")],
}


def given_back(tx: Tx, enrollment_id: int) -> int:
    owner = rows_of(tx)[enrollment_id].profile_id
    transitions.give_back(tx, [enrollment_id], owner, 9)
    return 1


def returned(tx: Tx, enrollment_id: int) -> int:
    transitions.return_to_launches(tx, [(enrollment_id, "another launch")])
    return 1


def restored(tx: Tx, enrollment_id: int) -> int:
    transitions.restore_entry_events(tx, [(enrollment_id, 5)])
    return 1


CHANGE_NO_STATE: dict[str, Act] = {
    "convert": lambda tx, ids: transitions.convert(
        tx, select(enrollments.c.id), literal(MONDAY), {}
    ),
    "give_to": lambda tx, ids: sum(
        len(moved)
        for moved in transitions.give_to(tx, [Merger(from_id=1, into_id=9, why="test")]).values()
    ),
    "give_back": lambda tx, ids: given_back(tx, ids[0]),
    "return_to_launches": lambda tx, ids: returned(tx, ids[0]),
    "restore_entry_events": lambda tx, ids: restored(tx, ids[0]),
    "leave_launches": lambda tx, ids: transitions.leave_launches(tx, ids),
    "replace_entry_events": lambda tx, ids: transitions.replace_entry_events(tx, {1: 2}),
}


def changes(db: Database, act: Act) -> list[tuple[Row[Any], Row[Any]]]:
    """What it changes, before and after, of two who wait and two whose way ended; as many as it
    says.
    """
    db.now = MONDAY
    with db.transaction(keep=False) as tx:
        assert len(enter(tx, PEOPLE)) == len(PEOPLE)
        ids = sorted(rows_of(tx))
        tx.conn.execute(update(enrollments).values(entry_event_id=1))
        transitions.end(tx, ids[1::2], "exited")
        before = rows_of(tx)
        changed = act(tx, ids)
        after = rows_of(tx)
    different = [(row, after[key]) for key, row in before.items() if row != after[key]]
    assert len(different) == changed
    return different


def test_every_transition_is_a_function_and_every_function_a_transition() -> None:
    assert functions(transitions) == {*ALLOWED, *CHANGE_NO_STATE}
    assert {*ACTS, "enter"} == set(ALLOWED)


@pytest.mark.parametrize("transition", ACTS)
def test_enrollments_follow_the_allowed_transitions(db: Database, transition: str) -> None:
    for act in ACTS[transition]:
        found = [(state_of(before), state_of(after)) for before, after in changes(db, act)]
        assert set(found) == allowed(ALLOWED, transition)
        # Two of each state from which it leads.
        assert len(found) == 2 * len({before for before, _ in found})


@pytest.mark.parametrize("name", CHANGE_NO_STATE)
def test_transitions_that_change_no_state(db: Database, name: str) -> None:
    found = changes(db, CHANGE_NO_STATE[name])
    assert found
    for before, after in found:
        assert state_of(before) == state_of(after)


def test_a_new_enrollment_waits_and_is_inserted_once(db: Database) -> None:
    with db.transaction() as tx:
        assert len(enter(tx, PEOPLE)) == len(PEOPLE)
        assert len(enter(tx, [*PEOPLE, 5])) == 1
        states = {(None, state_of(row)) for row in rows_of(tx).values()}
    assert states == allowed(ALLOWED, "enter")


def test_an_arrival_resets_phase_and_attempts(db: Database) -> None:
    with db.transaction() as tx:
        enter(tx, [1])
        [one] = rows_of(tx)
        transitions.lease(tx, [one], LATER + 1)
        transitions.stay(tx, {Stay(LATER, 2): [one]})
        row = rows_of(tx)[one]
        assert (row.step, row.phase, row.attempts, row.due_at) == ("s", 2, 1, LATER)
        transitions.arrive(tx, {Arrival("next", LATER, LATER + 5): [one]})
        row = rows_of(tx)[one]
    assert (row.step, row.phase, row.attempts, row.due_at) == ("next", 0, 0, LATER + 5)
    assert row.arrived_at == LATER


def test_a_due_enrollment_is_not_woken(db: Database) -> None:
    db.now = MONDAY
    with db.transaction() as tx:
        enter(tx, [1])
        [one] = rows_of(tx)
        assert transitions.wake(tx, [one]) == 1
        assert transitions.wake(tx, [one]) == 0
