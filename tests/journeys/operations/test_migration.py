"""Migrating enrollments to the current version: the plan, then the change."""

from typing import Any

import pytest

from config.clock.times import DAY, HOUR
from config.errors import SegueError
from journeys.definition.steps import SendStep
from journeys.dsl import Email, Push, Send, Update, Wait, WaitUntil, did
from journeys.engine.entry import enter_people
from journeys.operations.migration import MigrationCandidate, migrate_people, plan_migration
from profiles.conditions.language import Condition
from tests.support.shop import MONDAY, House, described


def planned(house: House) -> list[MigrationCandidate]:
    with house.db.transaction(write=False) as tx:
        return plan_migration(tx, house.segue.catalog, "j")


def migrated(house: House) -> list[MigrationCandidate]:
    with house.db.transaction() as tx:
        return migrate_people(tx, house.segue.catalog, "j")


def test_no_enrollments_to_migrate(house: House) -> None:
    house.open(described(Wait("1d")))
    house.customer()
    house.launch("j")
    assert planned(house) == migrated(house) == []
    with pytest.raises(SegueError, match="no journey 'other'"), house.db.transaction() as tx:
        plan_migration(tx, house.segue.catalog, "other")


def test_the_plan_lists_steps_targets_and_reasons(house: House) -> None:
    """Six people, two of them a day further than the next, and one who has ended."""
    names = ("same", "changed", "other kind", "gone")
    house.open(described(*(Wait("1d", name=name) for name in names)))
    for day in (0, 1, 1, 2, 3, 4):
        house.until(MONDAY + day * DAY)
        house.customer()
        house.launch("j")
    before = house.people()
    stand = [one.step for one in before if one.ended_at is None]
    assert stand == ["gone", "gone", "other kind", "changed", "same"]
    house.open(
        described(
            Wait("1d", name="same"),
            Wait("2d", name="changed"),
            WaitUntil("other kind", did("x"), timeout="1d"),
            Update("new", seen=True),
        )
    )
    plan = planned(house)
    old, current = before[0].version, house.segue.catalog.journey("j").digest
    assert plan == [
        MigrationCandidate(
            version=old, step="changed", people=1, to_step="changed", why="the step has changed"
        ),
        MigrationCandidate(
            version=old,
            step="gone",
            people=2,
            to_step=None,
            why="the current version has no such step",
        ),
        MigrationCandidate(
            version=old,
            step="other kind",
            people=1,
            to_step=None,
            why="the step was a wait and is now a wait_until",
        ),
        MigrationCandidate(
            version=old, step="same", people=1, to_step="same", why="the step is the same"
        ),
    ]
    # to show it changes nothing
    assert house.people() == before
    assert migrated(house) == plan
    for was, one in zip(before, house.people(), strict=True):
        moves = was.ended_at is None and was.step in ("same", "changed")
        assert one.version == (current if moves else old)
        # they keep their place and their time
        assert (one.step, one.due_at, one.phase) == (was.step, was.due_at, was.phase)
    assert [one.to_step for one in planned(house)] == [None, None]
    house.later("9d")
    assert {one.end_reason for one in house.people()} == {"completed"}
    for one in house.people():
        assert ("seen" in house.attributes(one.profile_id)) == (one.version == current)


def test_planned_messages_survive_a_migration(house: House) -> None:
    house.open(described(Send("s", Email("hello", after="1d")), Wait("1d")))
    house.customer()
    house.launch("j")
    house.open(described(Send("s", Push("offer"), Email("offer")), Update("u", seen=True)))
    [passenger] = migrated(house)
    assert (passenger.step, passenger.to_step, passenger.people) == ("s", "s", 1)
    house.later("3d")
    # not both versions' messages
    assert [sent.text for sent in house.providers.accepted] == ["hello"]
    [person] = house.people()
    assert (person.end_reason, person.version) == (
        "completed",
        house.segue.catalog.journey("j").digest,
    )
    assert house.passed() == [("s", "next"), ("u", "next")]


FALLS_BACK: dict[str, Any] = {"mode": "first", "fallback_after": "2h", "unless": "opened"}


@pytest.mark.parametrize(
    ("before", "goes"),
    [
        (Send("s", Push("hello"), Email("hello"), **FALLS_BACK), ["push", "email"]),
        (Send("s", Email("hello", after="1h"), Push("hello")), ["email", "push"]),
    ],
    ids=["in another order", "all at once"],
)
def test_an_enrollment_in_a_send_with_another_fallback_is_not_migrated(
    house: House, before: SendStep, goes: list[str]
) -> None:
    """The next channel of the new one is one that has gone; who has not begun moves."""
    house.open(described(before))
    ann = house.customer()
    house.launch("j")
    bob = house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [bob], None)
    old = house.segue.catalog.journey("j").digest
    house.open(described(Send("s", Email("hello"), Push("hello"), **FALLS_BACK), Wait("9d")))
    why = "they wait within the send, whose fallbacks have changed"
    plan = [
        MigrationCandidate(version=old, step="s", people=1, to_step=None, why=why),
        MigrationCandidate(
            version=old, step="s", people=1, to_step="s", why="the step has changed"
        ),
    ]
    assert (planned(house), migrated(house), planned(house)) == (plan, plan, plan[:1])
    house.later("5h")
    assert [(row.channel, row.state) for row in house.rows(ann)] == [(one, "sent") for one in goes]
    assert [row.channel for row in house.rows(bob)] == ["email", "push"]
    assert house.passed() == [("s", "next")] * 2


def test_an_enrollment_in_a_send_with_the_same_fallback_is_migrated(house: House) -> None:
    house.open(described(Send("s", Push("hello"), Email("hello"), **FALLS_BACK)))
    house.customer()
    house.launch("j")
    later = FALLS_BACK | {"fallback_after": "3h"}
    house.open(described(Send("s", Push("hello"), Email("hello"), **later), Wait("9d")))
    assert [one.to_step for one in migrated(house)] == ["s"]
    house.until(MONDAY + 3 * HOUR)
    assert [(row.channel, row.send_at - MONDAY) for row in house.rows()] == [
        ("push", 0),
        ("email", 3 * HOUR),
    ]


@pytest.mark.parametrize(
    ("before", "after", "fate"),
    [
        (did("bought"), None, ("sent", None)),
        (None, did("bought"), ("cancelled", "exited: exit rule")),
    ],
    ids=["no exit rule any more", "an exit rule since"],
)
def test_planned_messages_obey_the_exit_rule_of_the_new_version(
    house: House, before: Condition | None, after: Condition | None, fate: tuple[str, str | None]
) -> None:
    """Checked at the claim, before the event is processed."""
    planning = Send("s", Email("hello", after="1h"))
    house.open(described(planning, Wait("1d"), exit_when=before))
    ann = house.customer()
    house.launch("j")
    house.open(described(planning, Wait("2d"), exit_when=after))
    migrated(house)
    house.did(ann, "bought")
    house.db.now = MONDAY + HOUR
    house.dispatch()
    assert [(row.state, row.reason) for row in house.rows()] == [fate]


def test_a_version_registered_by_another_process_is_loaded(house: House) -> None:
    house.open(described(Wait("1d", name="w"), Update("u", seen=True)))
    mine = house.segue
    house.open(described(Wait("2d", name="w")))
    ann = house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    house.segue = mine
    [passenger] = migrated(house)
    assert (passenger.step, passenger.people, passenger.to_step) == ("w", 1, "w")
    house.until(MONDAY + 3 * DAY)
    assert house.attributes(ann) == {"seen": True}


def test_only_enrollments_of_the_journey_are_migrated(house: House) -> None:
    house.open(described(Wait("1d")), described(Wait("1d"), name="k"))
    house.customer()
    house.launch("j")
    house.launch("k")
    old = {one.journey: one.version for one in house.people()}
    house.open(
        described(Wait("1d"), Update("u", x=1)), described(Wait("1d"), Update("u", x=1), name="k")
    )
    migrated(house)
    now = {one.journey: one.version for one in house.people()}
    assert (now["j"] == old["j"], now["k"] == old["k"]) == (False, True)
