"""A promoted arm makes a version: new entries take it, the others finish as drawn."""

from collections import Counter

import pytest

from config.errors import SegueError
from journeys.dsl import Experiment, OnLaunch, Update, Wait, arm
from journeys.operations.migration import migrate_people
from journeys.operations.promotion import promote
from tests.support.shop import House, described

TEST = Experiment(
    "which",
    arm("a", 1, [Update("mark a", arm="a")]),
    arm("b", 1, [Experiment("inner", arm("x", 1, []), arm("y", 1, []))]),
    holdout=20,
)
ALWAYS = OnLaunch(again="always")


def arms(house: House) -> Counter[str]:
    """The arms that people took at their last passage."""
    return Counter(
        [took for step, took in house.passed(person.profile_id) if step == "which"][-1]
        for person in house.people()
    )


def promoted(house: House, arm: str, step: str = "which") -> str:
    with house.db.transaction() as tx:
        return promote(tx, house.segue.catalog, "j", step, arm).digest


def test_new_entries_take_the_promoted_arm_and_others_finish_as_drawn(house: House) -> None:
    house.open(described(Wait("1d"), TEST, entry=ALWAYS))
    before = house.segue.catalog.journey("j").digest
    for _ in range(40):
        house.customer()
    house.launch("j")
    after = promoted(house, "b")
    assert after != before
    house.later("1d")
    drawn = arms(house)
    assert drawn.total() == 40
    assert set(drawn) == {"a", "b", "holdout"}
    house.launch("j")
    house.later("1d")
    assert {person.version for person in house.people()} == {before, after}
    assert arms(house) == {"b": 80}


def test_who_is_in_the_journey_can_be_moved(house: House) -> None:
    house.open(described(Wait("1d"), TEST))
    for _ in range(20):
        house.customer()
    house.launch("j")
    promoted(house, "a")
    with house.db.transaction() as tx:
        migrate_people(tx, house.segue.catalog, "j")
    house.later("1d")
    assert arms(house) == {"a": 20}


def test_nobody_gets_a_message_where_no_arm_is_the_best(house: House) -> None:
    house.open(described(TEST))
    promoted(house, "holdout")
    house.customer()
    house.launch("j")
    assert arms(house) == {"holdout": 1}


def test_other_processes_follow_and_later_ones_begin_with_it(house: House) -> None:
    worker = house.open(described(TEST)).catalog
    before = worker.journey("j").digest
    house.open(described(TEST))
    digest = promoted(house, "a")
    assert worker.journey("j").digest == before
    with house.db.transaction(write=False) as tx:
        worker.catch_up(tx)
    assert worker.journey("j").digest == digest
    assert house.open(described(TEST)).catalog.journey("j").digest == digest


def test_a_process_with_other_files_follows_when_it_registers_them(house: House) -> None:
    other = described(TEST, Wait("1d"))
    worker = house.open(other).catalog
    before = worker.journey("j").digest
    house.open(described(TEST))
    promoted(house, "a")
    with house.db.transaction(write=False) as tx:
        worker.catch_up(tx)
    assert worker.journey("j").digest == before  # its version with the arm is not stored
    assert house.open(other).catalog.journey("j").digest != before


def test_a_promotion_of_a_step_that_is_gone_changes_nothing(house: House) -> None:
    house.open(described(TEST))
    promoted(house, "a")
    plain = described(Update("u", x=1))
    digest = house.open(plain).catalog.journey("j").digest
    house.customer()
    house.launch("j")
    assert {person.version for person in house.people()} == {digest}


def test_an_inner_experiment_and_a_second_promotion(house: House) -> None:
    house.open(described(TEST))
    first = promoted(house, "b")
    second = promoted(house, "y", "inner")
    house.customer()
    house.launch("j")
    [person] = house.people()
    assert person.version == second != first
    assert dict(house.passed(person.profile_id)) == {"which": "b", "inner": "y"}
    assert promoted(house, "a") not in (first, second)


def test_what_is_no_arm_is_refused(house: House) -> None:
    house.open(described(TEST, Wait("1d")))
    with pytest.raises(SegueError, match=r"no arm 'c'; it has: \['a', 'b', 'holdout'\]"):
        promoted(house, "c")
    with pytest.raises(SegueError, match="j has no experiment 'wait'; it has: 'which', 'inner'"):
        promoted(house, "a", "wait")
