"""The short form of `make chaos`, and that it detects the errors that it looks for."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import KW_ONLY, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from channels.messages import message_devices, messages
from config.clock.times import DAY
from config.database.engine import Database, Tx
from config.policy import load_policy
from journeys.enrollments import enrollments
from profiles.events import NewEvent, record_events
from profiles.tables import events
from tests.chaos.patience import patiently
from tests.chaos.provider import Heard
from tests.chaos.run import launching, outages, schedule
from tests.chaos.shop import ENTRIES, Event, day
from tests.chaos.verdict import Fate, Verdict, judge
from tests.chaos.worker import BREAK, CLAIM_LASTS, LIBRARY, POLICY, Posted
from tests.support.patience import PATIENCE
from tests.support.proof import cases
from tests.support.shop import MONDAY, House

ROOT = Path(__file__).parent.parent


SECONDS = cases(test=4, prove=60)
SEEDS = range(7, 7 + cases(test=1, prove=3))


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """All at once, for most of the time they wait; the last with a claim that is broken."""
    wanted = {
        f"{engine} {number}": (str(SECONDS), str(number), engine)
        for engine in ("sqlite", "postgresql")
        for number in SEEDS
    }
    wanted["broken"] = ("3", "7", "sqlite")
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.chaos", *arguments],
            cwd=ROOT,
            env={**os.environ, **({BREAK: "1"} if name == "broken" else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name, arguments in wanted.items()
    }
    yield running
    for process in running.values():
        if process.poll() is None:
            # with all that it started, which hold its pipes open
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)


def reported(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    """Exit status, the line, and what is wrong. It ends by itself, as slow as the machine is."""
    out, err = process.communicate(timeout=3 * PATIENCE)
    assert out, err
    return process.returncode, json.loads(out), err


@pytest.mark.long
@pytest.mark.xdist_group("chaos")
@pytest.mark.proof
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("number", SEEDS)
def test_killing_anything_loses_nothing_and_sends_nothing_twice(
    runs: dict[str, "subprocess.Popen[str]"], engine: str, number: int
) -> None:
    status, line, wrong = reported(runs[f"{engine} {number}"])
    if status or wrong:
        pytest.fail(wrong)  # all of it, which an assertion would shorten
    assert line["kills"] > 0
    assert line["database_troubles"] >= 2
    assert line["provider_faults"] > 0
    assert line["events_accepted"] == 12 * SECONDS
    assert line["messages_accepted"] > 5 * SECONDS
    assert line["unknown"] == sum(line["unknown_because"].values())
    counted = "duplicates", "lost", "stuck", "cap_violations", "unknown_unexplained", "untrue"
    assert [line[one] for one in counted] == [0] * 6


@pytest.mark.long
@pytest.mark.xdist_group("chaos")
def test_a_claim_that_is_not_committed_before_the_post_is_found_out(
    runs: dict[str, "subprocess.Popen[str]"],
) -> None:
    status, line, wrong = reported(runs["broken"])
    assert status == 1
    assert line["duplicates"] > 0
    assert re.search(r"duplicates: message \d+ was accepted \d+ times", wrong)


def test_a_seed_repeats_a_run() -> None:
    assert schedule(1, "kills", 60, 2, 1) == schedule(1, "kills", 60, 2, 1)
    assert schedule(1, "kills", 60, 2, 1) != schedule(2, "kills", 60, 2, 1)
    assert schedule(1, "kills", 60, 2, 1) != schedule(1, "freezes", 60, 2, 1)
    assert launching(1, 60) == launching(1, 60) != launching(2, 60)
    assert outages(1, 60) == outages(1, 60) != outages(2, 60)
    assert day(1, 20, 10, 50) == day(1, 20, 10, 50) != day(2, 20, 10, 50)


def test_a_slow_system_is_not_reported_as_stuck() -> None:
    turns = count()
    # something happens every now and then, and in the end it is done
    assert patiently(lambda: next(turns) > 2000, lambda: next(turns) // 500, turn=0)
    assert not patiently(lambda: next(turns) > 10_000, lambda: None, turn=0)


@dataclass
class Run:
    """What happened in a run in which all went well, and what is left of it."""

    file: Path
    taken: dict[str, Event]
    _: KW_ONLY
    heard: list[Heard]
    posts: list[Posted]
    now: int = 0

    def verdict(self) -> Verdict:
        trouble = (MONDAY + DAY, MONDAY + DAY + 10.0)
        fate = Fate(
            heard=self.heard,
            posts=self.posts,
            killed={17},
            troubles=[trouble],
            claim_lasts=CLAIM_LASTS,
        )
        with closing(self.database()) as db:
            return judge(db, load_policy(POLICY), self.taken, fate)

    def database(self) -> Database:
        return Database(f"sqlite:///{self.file}", now=self.now)


@pytest.fixture(scope="module")
def finished(_sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Played once, under a simulated clock."""
    file = tmp_path_factory.mktemp("chaos") / "segue.db"
    shutil.copyfile(_sqlite_template, file)
    house = House(Database(f"sqlite:///{file}"))
    house.open_library(LIBRARY, load_policy(POLICY))
    people = [
        house.customer(
            f"u{number}",
            push_tokens={f"token-{number}-{one}": "ios" for one in range(1 + number % 3)},
        )
        for number in range(4)
    ]
    taken = {one.message_id: one for one in day(1, 3, 10, len(people)) if one.name in ENTRIES}
    for event in taken.values():
        person = people[int(event.user_id[1:])]
        with house.db.transaction() as tx:
            new = NewEvent(
                profile_id=person,
                name=event.name,
                occurred_at=tx.now,
                dedupe_key=event.message_id,
                properties=event.properties,
            )
            record_events(tx, [new], worked=False)
        house.later("3s")
    house.launch("news", launch_id="l")
    house.later("1m")
    at = {row.id: row.send_at for row in house.rows()}
    went = [
        (one.message_id, one.to if one.channel == "push" else "")
        for one in house.providers.accepted
    ]
    house.db.close()
    return Run(
        file,
        taken,
        heard=[
            Heard(message_id=one, device=device, at=at[one], accepted=True, fault=None)
            for one, device in went
        ],
        posts=[Posted(one, at[one], at[one]) for one, _ in went],
        now=house.now,
    )


@pytest.fixture
def played(finished: Run, tmp_path: Path) -> Run:
    """The same to tamper with."""
    file = tmp_path / "segue.db"
    shutil.copyfile(finished.file, file)
    return replace(
        finished,
        file=file,
        taken=dict(finished.taken),
        heard=list(finished.heard),
        posts=list(finished.posts),
    )


def accepted_twice(run: Run, tx: Tx) -> None:
    run.heard.append(run.heard[0])


def accepted_twice_for_a_device(run: Run, tx: Tx) -> None:
    run.heard.append(next(one for one in run.heard if one.device))


def device_never_accepted(run: Run, tx: Tx) -> None:
    several = Counter(one.message_id for one in run.heard if one.device).most_common(1)[0][0]
    run.heard.remove(next(one for one in run.heard if one.message_id == several))


def device_taken_back(run: Run, tx: Tx) -> None:
    of_a_device = message_devices.c.token == next(one.device for one in run.heard if one.device)
    tx.conn.execute(update(message_devices).where(of_a_device).values(state="failed"))


def device_forgotten(run: Run, tx: Tx) -> None:
    of_a_device = message_devices.c.token == next(one.device for one in run.heard if one.device)
    run.heard = [one for one in run.heard if not one.device]
    tx.conn.execute(update(message_devices).where(of_a_device).values(state="later"))


def message_apart_from_its_devices(run: Run, tx: Tx) -> None:
    pushes = messages.c.id.in_(select(message_devices.c.message_id))
    tx.conn.execute(update(messages).where(pushes).values(state="delivered"))


def entered_twice(run: Run, tx: Tx) -> None:
    row = tx.conn.execute(enrollments.select().limit(1)).one()
    tx.conn.execute(insert(enrollments).values(**{**row._mapping, "id": 10_000}))


def event_gone(run: Run, tx: Tx) -> None:
    tx.conn.execute(delete(events).where(events.c.name == "ordered"))


def event_not_worked(run: Run, tx: Tx) -> None:
    tx.conn.execute(update(events).where(events.c.name == "ordered").values(worked_at=None))


def nobody_entered(run: Run, tx: Tx) -> None:
    run.taken["x"] = Event(
        after=0, user_id="u1", name="ordered", message_id="x", properties={"order_id": "x"}
    )
    new = NewEvent(
        profile_id=1,
        name="ordered",
        occurred_at=tx.now,
        dedupe_key="x",
        properties={"order_id": "x"},
    )
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


def too_early(run: Run, tx: Tx) -> None:
    run.heard = [one._replace(at=one.at - 1) for one in run.heard]


def too_late(run: Run, tx: Tx) -> None:
    run.posts = [one._replace(at=one.at + CLAIM_LASTS + 4) for one in run.posts]


def not_entered(run: Run, tx: Tx) -> None:
    last = select(func.max(enrollments.c.id)).where(enrollments.c.journey == "news")
    tx.conn.execute(delete(enrollments).where(enrollments.c.id == last.scalar_subquery()))


def not_planned(run: Run, tx: Tx) -> None:
    tx.conn.execute(delete(messages).where(messages.c.state == "skipped"))


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (accepted_twice, "duplicates"),
        (accepted_twice_for_a_device, "duplicates"),
        (device_never_accepted, "untrue"),
        (device_taken_back, "untrue"),
        (device_forgotten, "untrue"),
        (message_apart_from_its_devices, "untrue"),
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
        (too_early, "untrue"),
        (too_late, "untrue"),
        (not_entered, "lost"),
        (not_planned, "lost"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_verdict_detects_errors(played: Run, tamper: Any, found: str) -> None:
    before = played.verdict()
    assert before.wrong() == []
    assert before.accepted > 15
    with closing(played.database()) as db, db.transaction() as tx:
        tamper(played, tx)
    played.now += 60
    assert getattr(played.verdict(), found)


@pytest.mark.parametrize(
    ("why", "explanation"),
    [
        ({"claimed_by": "host:17"}, "killed"),
        ({"reason": "ReadTimeout: slow"}, "no answer"),
        ({"claimed_by": "host:18", "send_at": MONDAY + DAY + 10}, "database"),
        ({"claimed_by": "host:18", "send_at": MONDAY + DAY - CLAIM_LASTS}, "database"),
        ({"claimed_by": "host:18", "send_at": MONDAY + DAY - CLAIM_LASTS - 1}, None),
        ({"claimed_by": "host:18", "send_at": MONDAY + DAY + 12}, None),
    ],
)
def test_faults_that_explain_an_unknown_message(
    played: Run, why: dict[str, Any], explanation: str | None
) -> None:
    last = played.heard[-1].message_id
    with closing(played.database()) as db, db.transaction() as tx:
        changed = update(messages).where(messages.c.id == last)
        tx.conn.execute(changed.values({"state": "unknown", **why}))
    assert played.verdict().unknown == {explanation or "nothing": 1}
    assert len(played.verdict().unexplained) == (explanation is None)
