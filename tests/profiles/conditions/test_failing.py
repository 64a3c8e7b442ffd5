"""The parts of a condition that do not hold for a profile."""

import pytest

from journeys.dsl import attribute, did
from profiles.conditions.failing import failing_parts
from profiles.conditions.language import Condition
from tests.support.shop import House

YES, NO = attribute("a") == 1, attribute("b") == 1
OTHER = did("bought")


@pytest.mark.parametrize(
    ("condition", "failing"),
    [
        (YES, []),
        (NO, [NO]),
        (YES & ~NO, []),
        (YES & NO & OTHER, [NO, OTHER]),
        (NO | OTHER, [NO | OTHER]),
        (NO | YES, []),
        (~YES & (NO & (OTHER | YES)), [~YES, NO]),
        (~(YES | NO), [~(YES | NO)]),
    ],
)
def test_the_parts_that_do_not_hold(
    house: House, condition: Condition, failing: list[Condition]
) -> None:
    house.open()
    house.customer(attributes={"b": 1})
    ann = house.customer(attributes={"a": 1})
    with house.db.transaction(write=False) as tx:
        assert failing_parts(tx, condition, ann) == failing
