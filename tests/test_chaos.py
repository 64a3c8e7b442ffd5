"""The short form of `make chaos`, and that it would notice what it looks for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from channels.tables import messages
from config.database import Database, Tx
from config.policy import load_policy
from config.times import DAY
from journeys.tables import enrollments
from profiles.events import NewEvent, record_events
from profiles.tables import events
from tests.chaos.provider import Heard
from tests.chaos.run import schedule
from tests.chaos.shop import ENTRIES, Event, day
from tests.chaos.verdict import Verdict, judge
from tests.chaos.worker import BREAK, CLAIM_LASTS, LIBRARY, POLICY
from tests.house import MONDAY, House

ROOT = Path(__file__).parent.parent


def chaos(engine: str, seconds: int, seed: int, **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the line."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", str(seconds), str(seed), engine],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout, done.stderr
    line: dict[str, Any] = json.loads(done.stdout)
    if not environment:
        assert done.stderr == ""
    return done.returncode, line


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_killing_anything_loses_nothing_and_sends_nothing_twice(engine: str) -> None:
    status, line = chaos(engine, 10, 7)
    assert status == 0
    assert line["kills"] >= 3
    assert line["database_troubles"] == 1
    assert line["provider_faults"] > 0
    assert line["events_accepted"] == 120
    assert line["messages_accepted"] > 60
    wrong = "duplicates", "lost", "stuck", "cap_violations", "unknown_unexplained", "untrue"
    assert [line[one] for one in wrong] == [0] * 6


def test_a_claim_that_is_not_committed_before_the_post_is_found_out() -> None:
    status, line = chaos("sqlite", 4, 7, **{BREAK: "1"})
    assert status == 1
    assert line["duplicates"] > 0


def test_a_seed_repeats_a_run() -> None:
    assert schedule(1, "kills", 60, 2, 1) == schedule(1, "kills", 60, 2, 1)
    assert schedule(1, "kills", 60, 2, 1) != schedule(2, "kills", 60, 2, 1)
    assert schedule(1, "kills", 60, 2, 1) != schedule(1, "freezes", 60, 2, 1)
    assert day(1, 20, 10, 50) == day(1, 20, 10, 50) != day(2, 20, 10, 50)


class Run:
    """A run in which all went well: what happened, and what is left of it."""

    def __init__(self, db: Database) -> None:
        self.house = house = House(db)
        self.policy = load_policy(POLICY)
        house.open_library(LIBRARY, self.policy)
        people = [house.customer(f"u{number}") for number in range(4)]
        self.taken = {
            event.message_id: event for event in day(1, 3, 10, len(people)) if event.name in ENTRIES
        }
        self.heard: list[Heard] = []
        for event in self.taken.values():
            person = people[int(event.user_id[1:])]
            with db.transaction() as tx:
                new = NewEvent(person, event.name, tx.now, event.message_id, event.properties)
                record_events(tx, [new], worked=False)
            house.later("3s")
            self._listen()
        house.later("1m")
        self._listen()

    def _listen(self) -> None:
        went = {row.id: row.send_at for row in self.house.rows()}
        self.heard = [
            Heard(one.message_id, went[one.message_id], accepted=True, fault=None)
            for one in self.house.providers.accepted
        ]

    def verdict(self) -> Verdict:
        db, heard = self.house.db, self.heard
        return judge(db, self.policy, self.taken, heard, {17}, [MONDAY + DAY], CLAIM_LASTS)


def accepted_twice(run: Run, tx: Tx) -> None:
    run.heard.append(run.heard[0])


def entered_twice(run: Run, tx: Tx) -> None:
    row = tx.conn.execute(enrollments.select().limit(1)).one()
    tx.conn.execute(insert(enrollments).values(**{**row._mapping, "id": 10_000}))


def event_gone(run: Run, tx: Tx) -> None:
    tx.conn.execute(delete(events).where(events.c.name == "ordered"))


def event_not_worked(run: Run, tx: Tx) -> None:
    tx.conn.execute(update(events).where(events.c.name == "ordered").values(worked_at=None))


def nobody_entered(run: Run, tx: Tx) -> None:
    run.taken["x"] = Event(0, "u1", "ordered", "x", {"order_id": "x"})
    new = NewEvent(1, "ordered", tx.now, "x", {"order_id": "x"})
    record_events(tx, [new], worked=True)


def receipt_not_sent(run: Run, tx: Tx) -> None:
    first = messages.select().where(messages.c.journey == "receipts").limit(1)
    row = tx.conn.execute(first).one()
    tx.conn.execute(update(messages).where(messages.c.id == row.id).values(state="skipped"))
    run.heard = [one for one in run.heard if one.message_id != row.id]


def somebody_stands_still(run: Run, tx: Tx) -> None:
    still = {"due_at": MONDAY, "ended_at": None, "entry_key": "still"}
    tx.conn.execute(update(enrollments).where(enrollments.c.id == 1).values(still))


def message_forgotten(run: Run, tx: Tx) -> None:
    skipped = messages.select().where(messages.c.state == "skipped").limit(1)
    row = tx.conn.execute(skipped).one()
    tx.conn.execute(update(messages).where(messages.c.id == row.id).values(state="planned"))


def all_at_once(run: Run, tx: Tx) -> None:
    tx.conn.execute(update(messages).where(messages.c.state == "sent").values(send_at=MONDAY))
    run.heard = [one._replace(at=MONDAY) for one in run.heard]


def fate_unknown(run: Run, tx: Tx) -> None:
    tx.conn.execute(update(messages).where(messages.c.state == "sent").values(state="unknown"))


def by_somebody_alive(run: Run, tx: Tx) -> None:
    lost = {"state": "unknown", "claimed_by": "host:18"}
    tx.conn.execute(update(messages).where(messages.c.state == "sent").values(lost))


def never_accepted(run: Run, tx: Tx) -> None:
    run.heard.pop()


def taken_back(run: Run, tx: Tx) -> None:
    tx.conn.execute(update(messages).where(messages.c.state == "sent").values(state="failed"))


def too_late(run: Run, tx: Tx) -> None:
    run.heard = [one._replace(at=one.at + CLAIM_LASTS + 2) for one in run.heard]


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (accepted_twice, "duplicates"),
        (entered_twice, "duplicates"),
        (event_gone, "lost"),
        (event_not_worked, "lost"),
        (nobody_entered, "lost"),
        (receipt_not_sent, "lost"),
        (somebody_stands_still, "stuck"),
        (message_forgotten, "stuck"),
        (all_at_once, "caps"),
        (fate_unknown, "unexplained"),
        (by_somebody_alive, "unexplained"),
        (never_accepted, "untrue"),
        (taken_back, "untrue"),
        (too_late, "untrue"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_verdict_can_tell(sqlite_url: str, tamper: Any, found: str) -> None:
    run = Run(Database(sqlite_url))
    before = run.verdict()
    assert before.wrong() == []
    assert before.accepted > 15
    with run.house.db.transaction() as tx:
        tamper(run, tx)
    run.house.db.now = run.house.now + 60
    assert getattr(run.verdict(), found)


@pytest.mark.parametrize(
    "why",
    [
        {"claimed_by": "host:17"},  # killed
        {"reason": "ReadTimeout: slow"},
        {"claimed_by": "host:18", "send_at": MONDAY + DAY},  # it lost the database
    ],
    ids=["killed", "slow", "database"],
)
def test_what_explains_a_fate_that_is_unknown(sqlite_url: str, why: dict[str, Any]) -> None:
    run = Run(Database(sqlite_url))
    [last] = [one for one in run.heard if one.message_id == run.heard[-1].message_id]
    with run.house.db.transaction() as tx:
        changed = update(messages).where(messages.c.id == last.message_id)
        tx.conn.execute(changed.values({"state": "unknown", **why}))
    assert run.verdict().unknown == 1
    assert run.verdict().unexplained == []
