"""Launches that wait for an approval: nobody enters before it, and everybody once after it."""

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from pydantic import ValidationError

from config.clock.times import DAY, MINUTE, parse_instant
from config.database.engine import Database
from config.errors import SegueError
from config.policy import Policy
from flows.approval import approve_launch, missing_approval, reject_launch
from journeys.dsl import Email, Journey, OnEvent, Segment, Send, Wait, attribute
from journeys.launches.approvals import (
    ApprovalNeeded,
    ApprovalRow,
    NotApproved,
    all_approvals,
)
from journeys.launches.launching import continue_approved, enter_audience, start_launch
from journeys.operations.control import stop
from journeys.operations.doctor import diagnose
from tests.support.failures import until, worked
from tests.support.patience import PATIENCE
from tests.support.shop import MONDAY, House, described

ASKS = Policy.model_validate(
    {"topics": {"news": "News", "orders": "Orders"}, "approval": {"people": 2}}
)
NEWS = described(Send("s", Email("hello")), Wait("9d"))
SEGMENTS = {"odd": Segment("odd", "Odd", attribute("odd") == 1)}
_processes = get_context("forkserver")


def opened(db: Database, *journeys: Journey, policy: Policy = ASKS) -> House:
    house = House(db)
    house.open(*(journeys or (NEWS,)), policy=policy, segments=SEGMENTS)
    return house


def waiting(db: Database, customers: int = 4, **options: Any) -> House:
    """A shop whose launch `spring` waits."""
    house = opened(db)
    for _ in range(customers):
        house.customer()
    said = house.launch("j", launch_id="spring", **options)
    assert "waits_for_approval" in said
    return house


def row(house: House) -> ApprovalRow:
    with house.db.transaction(write=False) as tx:
        [one] = all_approvals(tx)
    return one


def continued(house: House) -> None:
    """What a worker does with the launches that others left."""
    continue_approved(house.segue.engine, lambda: False)


def sent_to(house: House) -> Counter[str]:
    return Counter(sent.to for sent in house.providers.accepted)


# It waits -----------------------------------------------------------------------------------------


def test_a_launch_for_many_waits_with_a_summary_and_nobody_enters(db: Database) -> None:
    house = opened(db)
    for _ in range(3):
        house.customer()
    said = house.launch("j", launch_id="spring")
    summary = said.pop("summary")
    assert said == {
        "launch": "spring",
        "journey": "j",
        "audience": "everyone",
        "waits_for_approval": "it is for 3 profiles, which is more than 2",
        "until": "2026-03-05T10:00:00Z",
    }
    assert summary["entered"] == 3
    assert summary["planned"] == {"email": 3, "sms": 0, "push": 0}
    house.later("1d")
    again = house.launch("j", launch_id="spring")
    assert again == said | {"summary": summary}, "a repeat changes nothing"
    assert house.people() == house.rows() == []
    assert not house.providers.requests
    stored = row(house)
    assert (stored.state, stored.asked_at, stored.summary) == ("waiting", MONDAY, summary)
    with house.db.transaction(write=False) as tx:
        [finding] = diagnose(tx)
    assert (finding.what, finding.where) == ("launches that wait for approval", "j")
    assert finding.number == 1
    assert finding.for_seconds == DAY


def test_a_launch_within_the_limit_does_not_wait(db: Database) -> None:
    house = opened(db)
    for number in range(5):
        house.customer(attributes={"odd": number % 2})
    assert house.launch("j", "odd")["entered"] == 2
    # the limit of the launch counts, not the size of its audience
    assert house.launch("j", people=2)["entered"] == 2
    with house.db.transaction(write=False) as tx:
        assert all_approvals(tx) == []


def test_a_launch_about_a_topic_waits_whoever_it_is_for(db: Database) -> None:
    rule = {"topics": {"news": "News", "orders": "Orders"}, "approval": {"topics": ["orders"]}}
    house = opened(
        db,
        described(Send("a", Email("hello")), Send("b", Email("hello"), topic="orders")),
        described(Send("a", Email("hello")), name="k"),
        policy=Policy.model_validate(rule),
    )
    house.customer()
    assert house.launch("j")["waits_for_approval"] == "it is about orders"
    assert house.launch("k")["entered"] == 1
    with pytest.raises(
        ValidationError, match=r"approval.topics: there is no topic 'order'; did you mean 'orders'"
    ):
        Policy.model_validate(rule | {"approval": {"topics": ["order"]}})


def test_events_enter_people_without_an_approval(db: Database) -> None:
    house = opened(db, described(Send("s", Email("hello")), entry=OnEvent("came")))
    for _ in range(3):
        house.did(house.customer(), "came")
    house.run()
    assert sent_to(house).total() == 3


def test_the_id_of_a_waiting_launch_belongs_to_it(db: Database) -> None:
    house = waiting(db)
    with pytest.raises(SegueError, match="'spring' waits with other values; use another id"):
        house.launch("j", "odd", launch_id="spring")
    with pytest.raises(SegueError, match="use another id"):
        house.launch("j", launch_id="spring", people=1)


# It goes on ---------------------------------------------------------------------------------------


def test_after_the_approval_everybody_enters_once(db: Database) -> None:
    house = waiting(db)
    house.later("1h")
    verdict = approve_launch(house.segue, "spring", "ann")
    assert (verdict.changed, verdict.text) == (True, "ann approved the launch spring.")
    assert house.launch("j", launch_id="spring")["entered"] == 4
    house.later("1m")
    again = approve_launch(house.segue, "spring", "bob")
    assert (again.changed, again.row.decided_by) == (False, "ann")
    assert again.text == "ann approved the launch spring already, on 2026-03-02T11:00:00Z."
    assert house.launch("j", launch_id="spring")["entered"] == 4
    assert sorted(sent_to(house).values()) == [1, 1, 1, 1]
    stored = row(house)
    assert (stored.state, stored.decided_by, stored.decided_at) == (
        "approved",
        "ann",
        MONDAY + 3600,
    )
    assert stored.finished_at == MONDAY + 3600
    with house.db.transaction(write=False) as tx:
        assert stored.standing(stored.lapses_at + DAY) == "approved"
        assert "launches that wait for approval" not in {one.what for one in diagnose(tx)}


def test_two_who_approve_at_once_start_one_launch(db: Database) -> None:
    """Each of them, and a worker, enters the audience: nobody twice, and not above the limit."""
    house = waiting(db, customers=12, people=9)
    names = ["ann", "bob", "cyd", "dan"]
    own = {name: opened(Database(db.url, now=MONDAY)) for name in names}
    together = threading.Barrier(len(names))
    changed: list[str] = []

    def approve(name: str) -> None:
        segue = own[name].segue
        together.wait(PATIENCE)
        if approve_launch(segue, "spring", name).changed:
            changed.append(name)
        version = start_launch(segue.engine, "spring", "j", "everyone", 9)
        for _ in enter_audience(segue.engine, version, "everyone", "spring", 9):
            pass
        segue.db.close()

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(approve, names))
    assert changed == [row(house).decided_by]
    house.run()
    assert len(house.people()) == 9
    assert sorted(sent_to(house).values()) == [1] * 9


def _approve_and_die(url: str) -> None:
    """Approve the launch, then end as by kill -9 before it starts."""
    db = Database(url)
    approve_launch(opened(db).segue, "spring", "ann")
    os.kill(os.getpid(), signal.SIGKILL)


def _enter_some_and_die(url: str) -> None:
    """End in the middle of entering."""
    db = Database(url)
    house = opened(db)
    house.segue.engine.chunks.largest = 1
    version = start_launch(house.segue.engine, "spring", "j", "everyone")
    next(enter_audience(house.segue.engine, version, "everyone", "spring"))
    os.kill(os.getpid(), signal.SIGKILL)


def killed(act: Any, db: Database) -> None:
    process = _processes.Process(target=act, args=(db.url,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def test_a_worker_continues_where_a_process_was_killed(db: Database) -> None:
    house = waiting(db)
    killed(_approve_and_die, db)
    stored = row(house)
    assert (stored.state, stored.decided_by, stored.finished_at) == ("approved", "ann", None)
    assert house.people() == []
    continued(house)
    assert house.people() == [], "its process may be at work"
    killed(_enter_some_and_die, db)
    assert len(house.people()) == 1
    house.db.now = MONDAY + 5 * DAY  # it has started, so it does not lapse
    for _ in range(2):
        continued(house)
    house.run()
    assert sorted(sent_to(house).values()) == [1, 1, 1, 1]
    assert row(house).finished_at == MONDAY + 5 * DAY


def test_a_running_worker_continues_and_sends(db: Database) -> None:
    house = waiting(db)
    approve_launch(house.segue, "spring", "ann")
    house.db.now = MONDAY + 2 * MINUTE

    async def scenario() -> None:
        await until(lambda: len(house.providers.accepted) == 4)

    worked(house, scenario)
    assert sorted(sent_to(house).values()) == [1, 1, 1, 1]
    assert row(house).finished_at == house.now


def test_a_worker_that_stops_leaves_the_rest_to_another(db: Database) -> None:
    house = waiting(db)
    approve_launch(house.segue, "spring", "ann")
    house.db.now = MONDAY + 2 * MINUTE
    house.segue.engine.chunks.largest = 1
    continue_approved(house.segue.engine, lambda: True)
    assert (len(house.people()), row(house).finished_at) == (1, None)
    continued(house)
    assert (len(house.people()), row(house).finished_at) == (4, house.now)


def test_the_version_of_the_summary_is_launched(db: Database) -> None:
    house = waiting(db)
    approved = house.segue.catalog.journey("j").digest
    approve_launch(house.segue, "spring", "ann")
    house = opened(db, described(Send("s", Email("offer"))))
    house.db.now = MONDAY + 2 * MINUTE
    continued(house)
    assert {one.version for one in house.people()} == {approved}


# It never starts ----------------------------------------------------------------------------------


def never_starts(house: House, why: str) -> None:
    with pytest.raises(NotApproved, match=why):
        house.launch("j", launch_id="spring")
    with pytest.raises(NotApproved, match=why):
        approve_launch(house.segue, "spring", "bob")
    with pytest.raises(NotApproved, match=why):
        reject_launch(house.segue, "spring", "bob", "no")
    house.db.now = house.now + 2 * MINUTE
    continued(house)
    assert house.people() == house.rows() == []


def test_a_rejected_launch_never_starts(db: Database) -> None:
    house = waiting(db)
    verdict = reject_launch(house.segue, "spring", "ann", "wrong price")
    assert verdict.text == "ann rejected the launch spring: wrong price"
    never_starts(house, "'spring' was rejected by ann: wrong price")


def test_an_approved_launch_can_not_be_rejected(db: Database) -> None:
    house = waiting(db)
    approve_launch(house.segue, "spring", "ann")
    verdict = reject_launch(house.segue, "spring", "bob", "no")
    assert not verdict.changed
    assert verdict.text.endswith("To end what it started: segue stop j.")
    assert row(house).state == "approved"


def test_an_audience_that_has_changed_much_needs_a_new_summary(db: Database) -> None:
    house = waiting(db, customers=10)
    for _ in range(2):
        house.customer()
    assert missing_approval(house.segue, row(house).request), "20 % are not much"
    house.customer()  # 30 %
    verdict = approve_launch(house.segue, "spring", "ann")
    assert not verdict.changed
    why = "the audience has changed from 10 to 13 profiles since the summary of"
    assert verdict.text == (
        f"Not approved, as {why} 2026-03-02T10:00:00Z. Launch it again for a new summary."
    )
    never_starts(house, f"'spring' is outdated, as {why}")
    assert house.launch("j", launch_id="summer")["summary"]["people"] == 13


def test_an_audience_that_has_changed_a_little_is_launched(db: Database) -> None:
    house = waiting(db, customers=10)
    for _ in range(2):
        house.customer()
    assert approve_launch(house.segue, "spring", "ann").changed
    assert house.launch("j", launch_id="spring")["entered"] == 12


def test_a_journey_that_has_changed_needs_a_new_summary(db: Database) -> None:
    waiting(db)
    house = opened(db, described(Send("s", Email("offer"))))
    verdict = approve_launch(house.segue, "spring", "ann")
    assert "as the journey has changed since the summary" in verdict.text
    never_starts(house, "is outdated, as the journey has changed")


def test_a_launch_that_waits_too_long_lapses(db: Database) -> None:
    house = waiting(db)
    house.db.now = MONDAY + 3 * DAY
    never_starts(house, "'spring' lapsed on 2026-03-05T10:00:00Z; launch it again")
    with house.db.transaction(write=False) as tx:
        assert diagnose(tx) == []


def test_an_approval_that_nobody_uses_in_time_lapses(db: Database) -> None:
    house = waiting(db)
    approve_launch(house.segue, "spring", "ann")
    house.db.now = parse_instant("2026-03-05T10:00:00Z")
    continued(house)
    with pytest.raises(NotApproved, match="'spring' lapsed on"):
        house.launch("j", launch_id="spring")
    assert row(house).as_json(house.now)["state"] == "lapsed"
    assert house.people() == []


def test_a_launch_of_a_stopped_journey_can_not_be_approved(db: Database) -> None:
    house = waiting(db)
    stop(house.db, "j")
    with pytest.raises(SegueError, match="'j' is stopped; resume it first"):
        approve_launch(house.segue, "spring", "ann")
    assert row(house).state == "waiting"


def test_an_unknown_launch_names_those_that_wait(db: Database) -> None:
    house = waiting(db)
    with pytest.raises(SegueError, match="no launch 'x' waits for approval; there are: spring"):
        approve_launch(house.segue, "x", "ann")
    reject_launch(house.segue, "spring", "ann", "no")
    with pytest.raises(SegueError, match="no launch 'x' waits for approval; none does"):
        reject_launch(house.segue, "x", "ann", "no")


def test_the_start_itself_refuses_a_launch_without_an_approval(db: Database) -> None:
    """Whoever calls it: the check does not depend on the command or the flow."""
    house = waiting(db)
    for launch_id in ("spring", "another"):
        with pytest.raises(ApprovalNeeded, match=f"'{launch_id}' waits for approval: it is for 4"):
            start_launch(house.segue.engine, launch_id, "j", "everyone")
