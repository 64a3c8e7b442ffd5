"""Computed traits, compared with plain Python over random events and windows."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from config.clock.times import DAY, HOUR, Instant
from config.database.engine import Database
from profiles.bucketing import bucket_of
from profiles.computed.definitions import (
    MEASURES,
    ComputedTraits,
    EventTrait,
    QuantileTrait,
)
from profiles.computed.nightly import compute_all, is_due
from profiles.computed.update import update_after_events
from profiles.computed.values import cuts_of, score
from profiles.conditions.language import Test
from profiles.tables import events, profiles
from tests.support.proof import cases

NOW: Instant = 1_772_445_600  # 2026-03-02T10:00:00Z
PEOPLE = (1, 2, 3)
_keys = count()
CHANGED = "profile_changed"


class Happened(NamedTuple):
    profile_id: int
    name: str
    at: Instant
    properties: Mapping[str, Any]


def ordered(profile_id: int, at: Instant, **properties: Any) -> Happened:
    return Happened(profile_id=profile_id, name="ordered", at=at, properties=properties)


# The reference -----------------------------------------------------------------------------------


def expected(trait: EventTrait, all_: Sequence[Happened], profile_id: int, now: Instant) -> Any:
    """The value of a trait, event by event; None: there is none."""
    own = [
        one
        for one in all_
        if one.profile_id == profile_id
        and one.name == trait.event
        and one.at <= now
        and (trait.within is None or one.at > now - trait.within)
        and all(one.properties.get(test.name) == test.value for test in trait.where)
    ]
    if trait.measure == "count":
        return len(own)
    if trait.measure == "days_since":
        return (now - max(one.at for one in own)) // DAY if own else None
    stated = [(one.at, read(one.properties, trait.property)) for one in own]
    stated = [(at, value) for at, value in stated if isinstance(value, bool | int | float | str)]
    # Of the same second, in the order of their types and texts.
    stated.sort(key=lambda one: (one[0], type(plain(one[1])).__name__, str(plain(one[1]))))
    values = [plain(value) for _, value in stated]
    numbers = [
        Fraction(str(one))
        for one in values
        if isinstance(one, int | float) and one is not True and one is not False
    ]
    match trait.measure:
        case "sum":
            return plain_fraction(sum(numbers, Fraction(0)))
        case "average":
            return plain_fraction(statistics.mean(numbers)) if numbers else None
        case "distinct":
            return len({(isinstance(one, bool), one) for one in values})
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
    often = Counter((isinstance(one, bool), one) for one in values)
    latest = {(isinstance(one, bool), one): place for place, one in enumerate(values)}
    return max(often, key=lambda one: (often[one], latest[one]))[1] if often else None


def read(properties: Mapping[str, Any], path: str) -> Any:
    if path in properties:
        return properties[path]
    found: Any = properties
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_fraction(number: Fraction) -> float:
    return int(number) if number.denominator == 1 else float(number)


# Random events and traits ------------------------------------------------------------------------

values = st.sampled_from(
    [0, 1, 1.0, 2.5, 0.1, 0.2, -3, 10**15, "a", "b", "", True, False, None, [1], {"x": 1}]
)
properties = st.fixed_dictionaries(
    {}, optional={"x": values, "y": st.sampled_from([1, 2]), "o": st.just({"x": 7}), "o.x": values}
)
moments = st.sampled_from(
    [NOW - 40 * DAY, NOW - 7 * DAY, NOW - 7 * DAY + 1, NOW - DAY, NOW - HOUR, NOW, NOW + HOUR]
)
happened = st.builds(
    Happened,
    profile_id=st.sampled_from(PEOPLE),
    name=st.sampled_from(["ordered", "viewed"]),
    at=moments,
    properties=properties,
)


@st.composite
def traits_of(draw: st.DrawFn) -> EventTrait:
    measure = draw(st.sampled_from(MEASURES))
    needs = measure not in ("count", "days_since")
    return EventTrait(
        name="t",
        description="A trait",
        measure=measure,
        event=draw(st.sampled_from(["ordered", "viewed"])),
        property=draw(st.sampled_from(["x", "o.x"])) if needs else "",
        within=draw(st.sampled_from([None, timedelta(days=1), timedelta(days=7)])),
        where=draw(st.sampled_from([(), (Test(of="property", name="y", op="==", value=1),)])),
    )


def make_people(db: Database) -> None:
    db.now = NOW
    with db.transaction() as tx:
        row = {"attributes": {}, "created_at": NOW, "updated_at": NOW}
        tx.conn.execute(insert(profiles), [{"id": one, **row} for one in PEOPLE])


def store(db: Database, found: Sequence[Happened]) -> None:
    with db.transaction() as tx:
        for one in found:
            tx.conn.execute(
                insert(events).values(
                    profile_id=one.profile_id,
                    name=one.name,
                    occurred_at=one.at,
                    received_at=NOW,
                    properties=dict(one.properties),
                    dedupe_key=str(next(_keys)),
                )
            )


def compute(
    db: Database, traits: ComputedTraits, by_name: Mapping[str, Sequence[int]]
) -> list[int]:
    with db.transaction() as tx:
        return update_after_events(tx, traits, by_name, CHANGED)


def computed(db: Database) -> dict[int, dict[str, Any] | None]:
    with db.transaction(write=False) as tx:
        return dict(tx.conn.execute(select(profiles.c.id, profiles.c.computed)).tuples().all())


def nobody(*_: object) -> None:
    """Report to no journey."""


def same(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, bool) != isinstance(wanted, bool):
        return False
    return bool(stored == wanted)


@pytest.mark.proof
def test_traits_agree_with_plain_python(db: Database) -> None:
    """Events come in two parts, the later ones of which may be older; then two people are joined,
    and time passes.
    """
    make_people(db)

    @settings(max_examples=cases(test=40, prove=2000), deadline=None)
    @given(traits_of(), st.lists(happened, max_size=12), st.lists(happened, max_size=4))
    def agree(trait: EventTrait, first: list[Happened], late: list[Happened]) -> None:
        traits = ComputedTraits([trait])
        db.now = NOW
        with db.transaction() as tx:
            tx.conn.execute(delete(events))
            tx.conn.execute(update(profiles).values(computed=None))
        said: list[Happened] = []
        for part in (first, late):
            store(db, part)
            said += part
            names = {one.name for one in part}
            compute(
                db,
                traits,
                {name: [one.profile_id for one in part if one.name == name] for name in names},
            )
            check(trait, said, {one.profile_id for one in said})
        # The merge of profiles moves the events, and records that the profile has changed.
        with db.transaction() as tx:
            moved = update(events).where(events.c.profile_id == 2)
            tx.conn.execute(moved.values(profile_id=1, bucket=bucket_of(1)))
        said = [one._replace(profile_id=1) if one.profile_id == 2 else one for one in said]
        compute(db, traits, {CHANGED: [1]})
        check(trait, said, {1})
        db.now = NOW + 3 * DAY
        compute_all(db, traits, "2026-03-05", nobody)
        check(trait, said, {*PEOPLE})

    def check(trait: EventTrait, said: Sequence[Happened], people: set[int]) -> None:
        assert db.now is not None
        found = computed(db)
        for one in people:
            wanted = expected(trait, said, one, db.now)
            stored = (found[one] or {}).get(trait.name)
            assert same(stored, wanted), (trait, one, stored, wanted)

    agree()


# Groups of customers -----------------------------------------------------------------------------

ORDERS = EventTrait(name="orders", description="Orders", measure="count", event="ordered")
SINCE = EventTrait(name="since", description="Days", measure="days_since", event="ordered")
FREQUENCY = QuantileTrait(name="frequency", description="F", quantile="orders", groups=3)
RECENCY = QuantileTrait(
    name="recency", description="R", quantile="since", groups=3, lowest_is_best=True
)


def test_quantiles_put_people_into_groups(db: Database) -> None:
    make_people(db)
    traits = ComputedTraits([ORDERS, SINCE], [FREQUENCY, RECENCY])
    store(
        db,
        [
            *(ordered(1, NOW - number * DAY) for number in range(5)),
            ordered(2, NOW - 9 * DAY),
        ],
    )
    compute(db, traits, {"ordered": [1, 2]})
    assert computed(db)[1] == {"orders": 5, "since": 0}, "no group before the first pass"
    with db.transaction(write=False) as tx:
        assert is_due(tx, traits, "2026-03-02")
    assert compute_all(db, traits, "2026-03-02", nobody) > 0
    with db.transaction(write=False) as tx:
        assert not is_due(tx, traits, "2026-03-02")
        assert is_due(tx, traits, "2026-03-03")
    assert computed(db) == {
        1: {"orders": 5, "since": 0, "frequency": 3, "recency": 3},
        2: {"orders": 1, "since": 9, "frequency": 2, "recency": 2},
        3: {"orders": 0, "frequency": 1},
    }
    # An event moves a customer at once, by the cuts of the last pass.
    store(db, [ordered(2, NOW - number, n=number) for number in range(5)])
    assert compute(db, traits, {"ordered": [2]}) == [2]
    assert computed(db)[2] == {"orders": 6, "since": 0, "frequency": 3, "recency": 3}


def test_cuts_and_scores() -> None:
    cuts = cuts_of([1.0, 1.0, 2.0, 3.0, 10.0], 5)
    assert cuts == [1, 1, 2, 3]
    assert [score(one, cuts, lowest_is_best=False) for one in (0, 1, 2, 3, 4, 99)] == [
        1,
        1,
        3,
        4,
        5,
        5,
    ]
    assert [score(one, cuts, lowest_is_best=True) for one in (0, 1, 2, 3, 4)] == [5, 5, 3, 2, 1]
    assert cuts_of([], 5) == []


def test_a_changed_definition_is_computed_again(db: Database) -> None:
    make_people(db)
    store(db, [ordered(1, NOW - 9 * DAY)])
    compute_all(db, ComputedTraits([ORDERS, SINCE]), "2026-03-02", nobody)
    recent = ORDERS.model_copy(update={"within": DAY})
    with db.transaction(write=False) as tx:
        assert is_due(tx, ComputedTraits([recent]), "2026-03-02")
    compute_all(db, ComputedTraits([recent]), "2026-03-02", nobody)
    assert computed(db)[1] == {"orders": 0}, "and the other one is gone"


def test_a_pass_can_be_stopped(db: Database) -> None:
    make_people(db)
    traits = ComputedTraits([ORDERS], [FREQUENCY])
    compute_all(db, traits, "2026-03-02", nobody, lambda: True)
    with db.transaction(write=False) as tx:
        assert is_due(tx, traits, "2026-03-02")
    assert computed(db)[1] is None
