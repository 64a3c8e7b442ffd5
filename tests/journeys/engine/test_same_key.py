"""Conditions match events by the entry key: the purchase of this cart, not of another one."""

from typing import Any

import pytest

from config.clock.times import days
from config.errors import SegueError
from config.policy import Policy
from journeys.definition.journey import Version
from journeys.definition.validation import find_faults
from journeys.dsl import (
    Goal,
    Journey,
    OnEvent,
    Segment,
    Split,
    Update,
    Wait,
    WaitUntil,
    did,
    everyone,
    when,
)
from tests.support.shop import House, described

BOUGHT = did("ordered", same="cart_id")
ENTRY = OnEvent("left_cart", key="cart_id", again="always")
WAIT = WaitUntil("w", BOUGHT, timeout="2d", then=[Update("yes", bought=True)])


def left_cart(house: House, person: int, cart: Any) -> None:
    house.did(person, "left_cart", cart_id=cart)
    house.run()


@pytest.mark.parametrize(
    ("cart", "bought", "ends"),
    [
        ("c1", {"cart_id": "c1"}, True),
        ("c1", {"cart_id": "c2"}, False),
        ("c1", {}, False),
        ("c1", {"cart_id": None}, False),
        (1042, {"cart_id": "1042"}, True),
        ("1042", {"cart_id": 1042}, True),
        (None, {"cart_id": None}, False),
        ("", {"cart_id": ""}, False),
        ('o"c', {"cart_id": 'o"c'}, True),
    ],
)
def test_a_wait_ends_with_the_same_carts_purchase(
    house: House, cart: Any, bought: dict[str, Any], ends: bool
) -> None:
    house.open(described(WAIT, entry=ENTRY))
    ann = house.customer()
    left_cart(house, ann, cart)
    house.later("1h")
    house.did(ann, "ordered", **bought)
    house.later("3d")
    assert house.attributes(ann) == ({"bought": True} if ends else {})


def test_each_cart_waits_for_its_own(house: House) -> None:
    house.open(described(WaitUntil("w", BOUGHT, timeout="2d"), entry=ENTRY))
    ann = house.customer()
    left_cart(house, ann, "c1")
    left_cart(house, ann, "c2")
    house.later("1h")
    house.did(ann, "ordered", cart_id="c2")
    house.run()
    assert [(one.entry_key, one.end_reason) for one in house.people()] == [
        ("c1", None),
        ("c2", "completed"),
    ]


def test_exit_rule_goal_and_split_match_by_key_too(house: House) -> None:
    split = Split("s", when(BOUGHT, [Update("yes", bought=True)]))
    goal = Goal(did=BOUGHT, within=days(3))
    house.open(
        described(Wait("1d"), entry=ENTRY, exit_when=BOUGHT, goal=goal, name="leaves"),
        described(Wait("1d"), split, entry=ENTRY, name="splits"),
    )
    ann, bob = house.customer(), house.customer()
    for person in (ann, bob):
        left_cart(house, person, "c1")
    house.later("1h")
    house.did(ann, "ordered", cart_id="c1")
    house.did(bob, "ordered", cart_id="c2")
    house.later("2d")
    found = {(one.journey, one.profile_id): one for one in house.people()}
    assert found["leaves", ann].end_reason == "exited: exit rule"
    assert found["leaves", bob].end_reason == "completed"
    assert found["leaves", ann].converted_at is not None
    assert found["leaves", bob].converted_at is None
    assert house.attributes(ann) == {"bought": True}
    assert house.attributes(bob) == {}


def test_a_launched_enrollment_has_no_entry_key(house: House) -> None:
    house.open(described(WAIT, entry=ENTRY))
    ann = house.customer()
    house.launch("j")
    house.did(ann, "ordered", cart_id="")
    house.later("3d")
    assert house.attributes(ann) == {}


@pytest.mark.parametrize(
    "journey",
    [
        described(WAIT),
        described(WAIT, entry=OnEvent("left_cart")),
        described(WAIT, entry=OnEvent("left_cart", key="basket")),
        described(Wait("1d"), exit_when=~(BOUGHT | everyone())),
        described(Wait("1d"), goal=Goal(did=BOUGHT, within=days(1))),
        described(Split("s", when(BOUGHT & everyone(), [Wait("1d")]))),
    ],
)
def test_a_journey_without_that_key_is_refused(journey: Journey) -> None:
    [fault] = find_faults({"j": Version(journey, {})}, [], Policy())
    assert "OnEvent(..., key='cart_id')" in str(fault)


def test_a_segment_has_no_key() -> None:
    with pytest.raises(SegueError, match="leave same= out"):
        Segment("s", "", everyone() & ~BOUGHT)
