"""Warnings of messages that another message always caps."""

from typing import Any

import pytest

from config.clock.times import days
from config.policy import Policy
from journeys.definition.collisions import collision_warnings
from journeys.definition.steps import Step
from journeys.dsl import (
    SMS,
    Email,
    Experiment,
    Journey,
    OnEvent,
    Send,
    Update,
    Wait,
    WaitUntil,
    arm,
    did,
)
from tests.support.shop import described

DAILY = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "per": "day"}]})
ROLLING = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "within": "24h"}]})
TWO = Policy.model_validate({"caps": [{"channels": "all", "limit": 2, "per": "day"}]})


def warned(policy: Policy, *journeys: Journey) -> list[str]:
    return collision_warnings({one.name: one for one in journeys}, policy)


def bought(name: str, *steps: Step, **parts: Any) -> Journey:
    return described(*steps, name=name, entry=OnEvent("bought"), **parts)


THANKS = Send("thanks", Email("hello"))
TRIED = Experiment(
    "which", arm("a", 50, [Send("a", Email("offer"))]), arm("b", 50, [Update("u", x=1)])
)


def test_a_thank_you_and_an_experiment_on_one_day() -> None:
    """In one journey, and in two that the same event enters."""
    [one] = warned(DAILY, described(THANKS, TRIED))
    assert one.startswith("j / a is never sent where 'thanks' was")
    assert "at most 1 email a day" in one
    [two] = warned(DAILY, bought("thank", THANKS, priority=60), bought("test", TRIED))
    assert two.startswith("test / a is never sent where thank / thanks was: both follow 'bought'")
    assert warned(DAILY, bought("thank", THANKS), bought("test", Wait("1h"), TRIED)) == []


def test_an_event_in_the_middle_of_a_journey_counts_as_well() -> None:
    waiting = WaitUntil("w", did("bought"), timeout=days(3), then=[THANKS])
    welcome = described(Send("hello", SMS("hello")), waiting, name="welcome", priority=60)
    [one] = warned(DAILY, welcome, bought("test", TRIED))
    assert one.startswith("test / a is never sent where welcome / thanks was")


@pytest.mark.parametrize(
    ("policy", "steps", "number"),
    [
        (DAILY, (THANKS, Send("s", SMS("hello"))), 0),
        (DAILY, (THANKS, Send("s", Email("offer", on_cap="defer"))), 0),
        (DAILY, (THANKS, Send("s", Email("offer"), kind="transactional")), 0),
        (DAILY, (THANKS, Wait("1h"), Send("s", Email("offer"))), 0),
        (ROLLING, (THANKS, Wait("23h"), Send("s", Email("offer"))), 1),
        (ROLLING, (THANKS, Wait("24h"), Send("s", Email("offer"))), 0),
        (ROLLING, (THANKS, Wait(time="09:00"), Send("s", Email("offer"))), 0),
        (TWO, (THANKS, Send("s", Email("offer"))), 0),
        (TWO, (Send("t", Email("hello"), SMS("hello")), Send("s", Email("offer"))), 1),
        (Policy(), (THANKS, Send("s", Email("offer"))), 0),
    ],
)
def test_where_messages_meet(policy: Policy, steps: tuple[Step, ...], number: int) -> None:
    assert len(warned(policy, described(*steps))) == number
