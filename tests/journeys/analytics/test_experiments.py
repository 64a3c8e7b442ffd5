"""The figures of an experiment are those of its people, each counted once in the arm they drew."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import DAY, Instant
from config.errors import SegueError
from journeys.analytics.experiment_views import arm_rows, as_json, difference_rows, plot, sentences
from journeys.analytics.experiments import (
    ExperimentReport,
    plan_experiment,
    report_experiment,
)
from journeys.analytics.revenue import RevenueMapping
from journeys.analytics.statistics import compare, mean, proportion
from journeys.dsl import Experiment, Goal, OnLaunch, Update, arm, did
from journeys.operations.merge import merge
from journeys.operations.promotion import promote
from journeys.operations.retention import Retention
from journeys.tables import experiment_arms, passages
from profiles.consent.changes import ConsentChange, change_consent
from profiles.identity.mergers import Merger
from tests.support.shop import House, described

ARMS = (arm("a", 1, [Update("mark a", arm="a")]), arm("b", 1, [Update("mark b", arm="b")]))
TEST = Experiment("which", *ARMS, holdout=20)
JOURNEY = described(
    TEST, entry=OnLaunch(again="always"), goal=Goal(did=did("bought"), within="14d")
)
NAMES = ("holdout", "a", "b")


def report(house: House) -> ExperimentReport:
    house.segue.engine.count_goals("j")
    with house.db.transaction(write=False) as tx:
        mapping = RevenueMapping.of(house.segue.settings)
        return report_experiment(tx, house.segue.catalog, "j", "which", mapping)


def withdraw(house: House, profile_id: int, at: Instant) -> None:
    change = ConsentChange(
        profile_id=profile_id, channel="email", topic="*", granted=False, occurred_at=at
    )
    with house.db.transaction() as tx:
        change_consent(tx, [change], "test")


def drawn(house: House, profile_id: int) -> str:
    return [took for step, took in house.passed(profile_id) if step == "which"][-1]


def test_figures_are_those_that_a_plain_count_gives(house: House) -> None:
    house.open(JOURNEY)
    rng = Random(14)
    people = [house.customer() for _ in range(60)]
    begin = house.now + 400 * DAY
    for person in people:
        for _ in range(rng.randrange(3)):
            at = begin - rng.randrange(1, 395) * DAY
            house.did(person, "order_completed", at=at, total_gbp=rng.randrange(1, 9000) / 100)
    house.until(begin)
    house.launch("j")
    bought = {one for one in people if rng.random() < 0.4}
    spent: dict[int, list[float]] = {one: [] for one in people}
    for person in people:
        for _ in range(rng.randrange(3)):
            day, amount = rng.randrange(20), rng.randrange(-500, 9000) / 100
            house.did(person, "order_completed", at=begin + day * DAY + 1, total_gbp=amount)
            if day < 14:
                spent[person].append(amount)
        if person in bought:
            house.did(person, "bought", at=begin + DAY)
    noes = {one for one in people if rng.random() < 0.2}
    house.later("5d")
    for one in noes:
        withdraw(house, one, house.now)
    house.later("10d")
    withdraw(house, min(set(people) - noes), house.now)
    house.later("6d")
    house.run()
    found = report(house)

    members = {name: [one for one in people if drawn(house, one) == name] for name in NAMES}
    assert found.control == "holdout"
    assert [one.arm for one in found.arms] == list(NAMES)
    for figures in found.arms:
        theirs = members[figures.arm]
        assert figures.people == len(theirs) > 0
        assert figures.conversions == len(bought.intersection(theirs))
        assert figures.unsubscribes == len(noes.intersection(theirs))
        total = sum(sum(spent[person]) for person in theirs)
        assert figures.revenue == pytest.approx(total / len(theirs))
    assert [one.expected for one in found.arms] == pytest.approx([12, 24, 24])
    assert 0.001 < found.ratio <= 1
    assert not found.ratio_is_wrong
    assert found.within == 14 * DAY
    assert found.currency == "GBP"

    differences = {(one.measure.name, one.arm): one for one in found.differences}
    assert len(differences) == 6

    def sample(name: str, *, money: bool) -> Any:
        theirs = members[name]
        if not money:
            return proportion(len(theirs), len(bought.intersection(theirs)))
        values = [sum(spent[person]) for person in theirs]
        return mean(len(values), sum(values), sum(value**2 for value in values))

    for name, money in (("conversions", False), ("revenue a person", True)):
        plain = compare(sample("holdout", money=money), sample("b", money=money))
        ours = differences[name, "b"]
        assert float(ours.plain.absolute_fixed.difference) == pytest.approx(
            float(plain.absolute_fixed.difference)
        )
        for key in ("low", "high", "p"):
            assert float(getattr(ours.plain.absolute_sequential, key)) == pytest.approx(
                float(getattr(plain.absolute_sequential, key))
            )
        assert ours.adjusted is not None
    assert differences["unsubscribes", "b"].adjusted is None


def test_re_entry_keeps_the_arm_and_counts_a_person_once(house: House) -> None:
    house.open(JOURNEY)
    people = [house.customer() for _ in range(20)]
    house.launch("j")
    first = report(house)
    before = {person: drawn(house, person) for person in people}
    house.later("30d")
    house.did(people[0], "bought")
    house.launch("j")
    assert {person: drawn(house, person) for person in people} == before
    assert [one.people for one in report(house).arms] == [one.people for one in first.arms]


def test_after_a_join_the_earlier_arm_holds_and_the_person_is_mixed(house: House) -> None:
    house.open(JOURNEY)
    people = [house.customer() for _ in range(30)]
    house.launch("j")
    one, other = people[0], next(p for p in people if drawn(house, p) != drawn(house, people[0]))
    same = next(p for p in people[1:] if drawn(house, p) == drawn(house, one))
    sizes = Counter({arm.arm: arm.people for arm in report(house).arms})
    earlier, later = drawn(house, one), drawn(house, other)
    with house.db.transaction() as tx:
        moved = passages.update().where(passages.c.profile_id == other)
        tx.conn.execute(moved.values(at=passages.c.at + 60))
        merge(tx, [Merger(from_id=one, into_id=other, why="test")])
    house.later("1d")
    house.launch("j")
    assert drawn(house, other) == earlier
    found = report(house)
    assert found.mixed == 1
    assert found.left_out == [
        "1 people took several arms before they were joined; they are left out"
    ]
    after = Counter({arm.arm: arm.people for arm in found.arms})
    assert sizes - after == {earlier: 1, later: 1}
    # Who drew the same arm twice is one person of it.
    with house.db.transaction() as tx:
        third = next(
            p for p in people if p not in (one, other, same) and drawn(house, p) == earlier
        )
        merge(tx, [Merger(from_id=same, into_id=third, why="test")])
    found = report(house)
    assert found.mixed == 1
    assert after - Counter({arm.arm: arm.people for arm in found.arms}) == {earlier: 1}


def test_the_retention_of_passages_changes_nothing(house: House) -> None:
    house.open(JOURNEY, passage_retention=30 * DAY)
    for _ in range(20):
        house.customer()
    house.launch("j")
    house.later("10d")
    before = report(house)
    house.later("60d")
    Retention(house.segue.engine, house.segue.settings).apply()
    with house.db.transaction(write=False) as tx:
        assert not tx.conn.execute(select(passages)).all()
        assert len(tx.conn.execute(select(experiment_arms)).all()) == 20
    assert report(house).arms == before.arms


def test_who_takes_a_promoted_arm_is_not_part_of_the_experiment(house: House) -> None:
    house.open(JOURNEY)
    people = [house.customer() for _ in range(20)]
    house.launch("j")
    before = report(house)
    with house.db.transaction() as tx:
        promote(tx, house.segue.catalog, "j", "which", "a")
    house.later("1d")
    for _ in range(10):
        house.customer()
    house.launch("j")
    found = report(house)
    assert {drawn(house, person) for person in people} == {"a"}
    assert found.arms == before.arms
    assert (found.mixed, found.promoted) == (0, "a")
    assert next(sentences(found)) == "a is promoted: everybody who enters takes it."


def test_an_experiment_without_people_says_so(house: House) -> None:
    house.open(described(Experiment("which", *ARMS)))
    found = report(house)
    assert (found.control, [one.people for one in found.arms]) == ("a", [0, 0])
    assert [one.conversions for one in found.arms] == [None, None]
    assert len(difference_rows(found)) == 2
    said = list(sentences(found))
    assert said[0].startswith("revenue a person, b against a: nothing can be said yet")
    assert as_json(found)["differences"][0]["absolute_fixed"] is None
    assert plot(found).startswith("<?xml")
    with pytest.raises(SegueError, match="there is no journey 'k'"), house.db.transaction() as tx:
        report_experiment(
            tx, house.segue.catalog, "k", "s", RevenueMapping.of(house.segue.settings)
        )


def test_arms_of_other_sizes_than_their_weights_are_an_error(house: House) -> None:
    house.open(described(Experiment("which", *ARMS)))
    people = [house.customer() for _ in range(120)]
    house.launch("j")
    assert not report(house).ratio_is_wrong
    with house.db.transaction() as tx:
        tx.conn.execute(
            passages.delete().where(passages.c.outcome == "b", passages.c.profile_id > people[20])
        )
    found = report(house)
    assert found.ratio_is_wrong
    assert next(sentences(found)).startswith("Do not use these figures: the arms do not have")
    assert as_json(found)["sample_ratio_is_wrong"] is True


def test_a_plan_says_what_a_size_can_show(house: House) -> None:
    house.open(JOURNEY)
    with house.db.transaction(write=False) as tx:
        small = plan_experiment(tx, house.segue.catalog, "j", "which", 1000, 0.02)
        large = plan_experiment(tx, house.segue.catalog, "j", "which", 100_000, 0.02)
        with pytest.raises(SegueError, match="has converted nobody yet; give --rate"):
            plan_experiment(tx, house.segue.catalog, "j", "which", 1000, None)
    assert (small.control, small.arm) == (200, 400)
    assert large.smallest_fixed < small.smallest_fixed < small.smallest_sequential
    people = [house.customer() for _ in range(10)]
    house.launch("j")
    house.did(people[0], "bought")
    house.later("1d")
    report(house)
    with house.db.transaction(write=False) as tx:
        assert plan_experiment(tx, house.segue.catalog, "j", "which", 1000, None).rate == 0.1


def test_rows_have_a_cell_for_each_heading(sqlite_house: House) -> None:
    house = sqlite_house
    house.open(JOURNEY)
    for _ in range(30):
        house.customer()
    house.launch("j")
    found = report(house)
    assert [row[0] for row in arm_rows(found)] == list(NAMES)
    assert all(len(row) == 9 for row in difference_rows(found))
