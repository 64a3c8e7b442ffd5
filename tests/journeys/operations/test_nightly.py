"""Computed traits in journeys: current after an event, and as time passes."""

from pathlib import Path

import pytest
from sqlalchemy import select

from config.policy import Policy
from journeys.definition.catalog import read_library
from journeys.dsl import (
    Email,
    OnEvent,
    OnSegment,
    Segment,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    trait,
    when,
)
from journeys.operations.nightly import Nightly
from profiles.computed.definitions import ComputedTraits, EventTrait
from profiles.tables import profiles
from tests.support.shop import House, described

ORDERS = EventTrait(name="orders", description="Orders", measure="count", event="ordered")
RECENT = EventTrait(
    name="recent",
    description="Orders within a week",
    measure="count",
    event="ordered",
    within="7d",
)
SPENT = EventTrait(
    name="spent", description="Spent", measure="sum", event="ordered", property="total"
)
TRAITS = ComputedTraits([ORDERS, RECENT, SPENT])
LOYAL = Segment("loyal", "Three orders", trait("orders") >= 3)


def computed(house: House, profile_id: int) -> object:
    with house.db.transaction(write=False) as tx:
        return tx.conn.execute(
            select(profiles.c.computed).where(profiles.c.id == profile_id)
        ).scalar_one()


def night(house: House) -> None:
    Nightly(house.segue.engine).work()
    house.run()


def test_an_event_changes_traits_before_journeys_react(house: House) -> None:
    """The third order enters by the segment, and the entry by the event already sees it."""
    entered = described(Wait("1d"), entry=OnSegment("loyal"), name="loyal")
    third = Split("third?", when(trait("orders") == 3, [Update("mark", third=True)]))
    by_event = described(third, Wait("1s"), entry=OnEvent("ordered", again="always"), name="all")
    house.open(entered, by_event, segments={"loyal": LOYAL}, traits=TRAITS)
    ann = house.customer("ann")
    for number in range(3):
        assert [one.journey for one in house.people() if one.journey == "loyal"] == []
        house.did(ann, "ordered", total=number + 0.5)
        house.run()
        house.later("1h")
    assert computed(house, ann) == {"orders": 3, "recent": 3, "spent": 4.5}
    assert [one.journey for one in house.people() if one.journey == "loyal"] == ["loyal"]
    took = [outcome for step, outcome in house.passed(ann) if step == "third?"]
    assert took == ["otherwise", "otherwise", "yes"]


def test_time_alone_ends_a_wait_at_night(house: House) -> None:
    wait = WaitUntil("quiet", trait("recent") == 0, timeout="30d", then=[Update("q", quiet=True)])
    house.open(described(wait, Wait("30d"), entry=OnEvent("ordered")), traits=TRAITS)
    ann = house.customer("ann")
    house.did(ann, "ordered")
    house.run()
    for _ in range(6):
        house.later("1d")
        night(house)
    assert house.people(ann)[0].step == "quiet"
    house.later("1d")
    night(house)
    assert computed(house, ann) == {"orders": 1, "recent": 0, "spent": 0}
    assert house.people(ann)[0].step != "quiet"


def test_everybody_has_traits_after_a_night(house: House) -> None:
    house.open(traits=TRAITS)
    ann = house.customer("ann")
    night(house)
    assert computed(house, ann) == {"orders": 0, "recent": 0, "spent": 0}
    bob = house.customer("bob")
    night(house)
    assert computed(house, bob) is None, "once a day is enough"
    assert Nightly(house.segue.engine).compute_traits(again=True) == 1


def test_without_definitions_nothing_is_computed(house: House) -> None:
    house.open()
    ann = house.customer("ann")
    house.did(ann, "ordered")
    house.run()
    night(house)
    assert computed(house, ann) is None


def test_templates_print_traits(house: House) -> None:
    text = {"hello.email.html": "Subject: {{ trait.orders }} orders\n\n<p>Hi</p>"}
    house.open(
        described(Send("s", Email("hello")), entry=OnEvent("ordered")), texts=text, traits=TRAITS
    )
    house.did(house.customer("ann"), "ordered")
    house.run()
    [accepted] = house.providers.accepted
    assert accepted.text == "1 orders"


@pytest.mark.parametrize(
    ("journey", "segments", "says"),
    [
        (
            'when(trait("orders") > 2, [Wait("1d")])',
            '[a]\ndescription = "d"\ntrait = "ordrs"\nabove = 2',
            "segment 'a': there is no",
        ),
        ('when(trait("ordrs") > 2, [Wait("1d")])', "", "journey j: there is no"),
    ],
)
def test_a_trait_that_is_not_defined(
    tmp_path: Path, journey: str, segments: str, says: str
) -> None:
    folder = tmp_path / "library" / "j"
    folder.mkdir(parents=True)
    (folder / "journey.py").write_text(
        "from journeys.dsl import Journey, OnLaunch, Split, Wait, trait, when\n"
        f'journey = Journey("j", entry=OnLaunch(), topic="t", steps=[Split("s", {journey}), '
        'Wait("2d")])'
    )
    (tmp_path / "segments.toml").write_text(segments)
    (tmp_path / "traits.toml").write_text(
        '[traits.orders]\ndescription = "Orders"\ncount = "ordered"\n'
    )
    catalog, faults = read_library(Policy(), tmp_path / "library", tmp_path)
    assert list(catalog.traits.all) == ["orders"]
    assert [says in str(one) for one in faults] == [True], faults
    assert "computed trait 'ordrs'; did you mean 'orders'?" in str(faults[0])
