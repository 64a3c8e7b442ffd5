"""A simulation that gets a snapshot and the recorded inputs decides as the live system did.

Two worker processes on PostgreSQL live through a month with events, windows, caps, a clock change,
an experiment, launches, unsubscriptions and purchases that end enrollments. Then the simulation
gets the state from before, and the inputs with the times at which they were worked.
"""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import and_, or_, select

from channels.messages import messages
from config.clock.times import DAY, HOUR, Instant, parse_instant
from config.database.engine import Database, Tx
from journeys.enrollments import enrollments
from journeys.simulation.clock import SimulatedShop, Simulation
from journeys.simulation.copy import CopyScope, copy
from journeys.simulation.replay import recorded_inputs
from journeys.tables import passages
from tests.support.proof import cases
from tests.support.worlds.recording import POLICY, Recording, open_house, populate, workers

# Clocks go forward on 8 March in New York and on 29 March in Berlin.
START = parse_instant("2026-03-05T06:00:00Z")
PEOPLE, DAYS = cases(test=200, prove=10_000), cases(test=10, prove=30)
# Customers do something at these times, so that there are not too many moments.
GRAIN = 4 * HOUR
_KEY = [enrollments.c[name] for name in ("profile_id", "journey", "entered_at", "entry_key")]
_STAYS = (
    *("version", "since", "step", "arrived_at", "phase", "due_at", "ended_at", "end_reason"),
    *("converted_at", "launch_id", "context", "attempts"),
)
_LETTERS = (
    *("channel", "kind", "topic", "state", "reason", "wanted_at", "send_at", "decision"),
    *("attempts", "priority", "address"),
)

Decided = dict[tuple[Any, ...], tuple[Any, ...]]


def decided(tx: Tx, since: Instant) -> Decided:
    """Every decision from `since` on, by what names it."""
    e, m, p = enrollments.c, messages.c, passages.c
    found: Decided = {}
    stays = select(*_KEY, *(e[name] for name in _STAYS)).where(
        or_(e.ended_at.is_(None), e.ended_at >= since)
    )
    letters = (
        select(*_KEY, m.step, m.member, *(m[name] for name in _LETTERS))
        .join_from(messages, enrollments, m.enrollment_id == e.id)
        .where(or_(m.wanted_at >= since, m.send_at >= since))
    )
    passed = (
        select(*_KEY, p.step, p.outcome, p.at)
        .join_from(passages, enrollments, and_(p.enrollment_id == e.id))
        .where(p.at >= since)
    )
    for what, rows, size in (("stay", stays, 4), ("message", letters, 6), ("passage", passed, 5)):
        for row in tx.conn.execute(rows):
            found[(what, *row[:size])] = tuple(row[size:])
    return found


@pytest.mark.long
@pytest.mark.proof
def test_a_replayed_log_gives_every_decision_of_the_live_system(postgresql_url: str) -> None:
    db = Database(postgresql_url)
    house = open_house(db, START - DAY)
    people = populate(db, PEOPLE, seed=1)
    live = Recording(house, people, grain=GRAIN, seed=1)
    # A day before, so that the snapshot has enrollments and messages under way.
    live.happens(START - DAY, DAYS + 1)
    with workers(postgresql_url, START - DAY) as work:
        live.run(START, work)
        segue = house.segue
        with db.transaction(write=False) as tx:
            snapshot = copy(tx, CopyScope(catalog=segue.catalog, policy=POLICY, now=START))
        live.run(START + DAYS * DAY, work)
    with db.transaction(write=False) as tx:
        inputs = recorded_inputs(tx, START, START + DAYS * DAY)
        there = decided(tx, START)
    db.close()

    simulation = Simulation(
        snapshot,
        SimulatedShop(catalog=segue.catalog, policy=POLICY, settings=segue.settings),
        inputs=inputs,
    )
    simulation.run(START + DAYS * DAY)
    with snapshot.transaction(write=False) as tx:
        here = decided(tx, START)
    snapshot.close()

    differing = {key for key in there.keys() | here.keys() if there.get(key) != here.get(key)}
    shown = {key: (there.get(key), here.get(key)) for key in sorted(differing, key=str)[:5]}
    assert len(differing) == 0, shown

    # It was no idle month: everything that decisions depend on did happen.
    sent = Counter(key[0] for key in there)
    assert sent["message"] > PEOPLE
    letters = [value for key, value in there.items() if key[0] == "message"]
    assert {"sent", "delivered", "skipped", "cancelled"} <= {value[3] for value in letters}
    assert {"capped", "no_consent", "no_address"} <= {value[4] for value in letters}
    assert any(value[6] > value[5] + 6 * HOUR for value in letters), "no window held anything back"
    ends = {value[7] for key, value in there.items() if key[0] == "stay"}
    assert "exited: exit rule" in ends
    arms = {value[0] for key, value in there.items() if key[0] == "passage" and key[5] == "which"}
    assert arms == {"mail", "both", "holdout"}
