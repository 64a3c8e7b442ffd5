"""Old events enter nobody; the age of an event is measured when it is received."""

from typing import Any

import pytest

from config.clock.times import DAY, HOUR, days
from journeys.dsl import Goal, OnEvent, Update, Wait, did
from journeys.engine.events import react
from profiles.events import NewEvent, record_events
from tests.support.shop import MONDAY, House, described


def entered(house: House) -> int:
    return len(house.people())


@pytest.mark.parametrize(
    ("options", "age", "enters"),
    [
        ({}, 0, True),
        ({}, DAY - 1, True),
        ({}, DAY, False),
        ({}, 300 * DAY, False),
        ({"max_age": "2h"}, 2 * HOUR - 1, True),
        ({"max_age": "2h"}, 2 * HOUR, False),
        ({"max_age": days(30)}, 29 * DAY, True),
    ],
)
def test_only_events_younger_than_max_age_enter(
    house: House, options: dict[str, Any], age: int, enters: bool
) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("signed_up", **options)))
    house.did(house.customer(), "signed_up", at=MONDAY - age)
    house.run()
    assert entered(house) == enters


def test_time_spent_waiting_for_a_worker_does_not_count_as_age(house: House) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("signed_up")))
    ann, bob = house.customer(), house.customer()
    house.did(ann, "signed_up", at=MONDAY - DAY + 1)
    with house.db.transaction() as tx:
        # taken at the door, written down ten seconds later
        late = NewEvent(
            profile_id=bob,
            name="signed_up",
            occurred_at=MONDAY - DAY - 5,
            dedupe_key="k",
            properties={},
            waited=10,
        )
        record_events(tx, [late], worked=False)
    house.db.now = MONDAY + 3 * DAY
    house.run()
    assert entered(house) == 2


def test_history_counts_for_conditions(house: House) -> None:
    """Old events enter nobody, but conditions of active enrollments see them."""
    journey = described(
        Wait("5d"),
        entry=OnEvent("signed_up"),
        goal=Goal(did=did("ordered"), within=days(9)),
        exit_when=did("left"),
    )
    house.open(journey)
    ann = house.customer()
    house.did(ann, "signed_up")
    house.run()
    house.db.now = MONDAY + 3 * DAY
    house.did(ann, "ordered", at=MONDAY + HOUR)
    house.did(ann, "left", at=MONDAY + 2 * HOUR)
    house.run()
    [person] = house.people()
    assert person.converted_at == MONDAY + HOUR
    assert person.end_reason == "exited: exit rule"


def test_events_that_are_too_old_are_counted(house: House) -> None:
    house.open(described(Update("u", x=1), entry=OnEvent("signed_up")))
    ann = house.customer()
    house.did(ann, "signed_up", at=MONDAY - 2 * DAY)
    house.did(ann, "viewed", at=MONDAY - 2 * DAY)
    with house.db.transaction() as tx:
        reaction, _ = react(tx, house.segue.catalog, 10)
    assert (reaction.too_old, reaction.entered) == ({"j": 1}, {})


def test_max_age_is_positive() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        OnEvent("signed_up", max_age="0s")
