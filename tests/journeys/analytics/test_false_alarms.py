"""A/A tests that are looked at every day: how often an interval finds a difference where none is.

10,000 experiments of 60 days in `make prove`, fewer in `make test`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from journeys.analytics.statistics import (
    Comparison,
    Sample,
    compare,
    mean,
    proportion,
    without_unsure_ratios,
)
from tests.support.proof import cases

Drawn = np.ndarray[Any, np.dtype[np.float64]]
DAYS = 60
RATE = 0.05  # of people who convert


def conversions(rng: np.random.Generator, tests: int, people: int) -> Drawn:
    """Sums of one day for each test: people, conversions."""
    return np.stack([np.full(tests, people), rng.binomial(people, RATE, tests)]).astype(float)


def revenue(rng: np.random.Generator, tests: int, people: int) -> Drawn:
    """The same for the revenue a person: people, sum, sum of squares. Few orders, some large."""
    orders = rng.binomial(people, RATE, tests)
    most = int(orders.max())
    amounts = rng.lognormal(3, 1, (tests, most)) * (np.arange(most) < orders[:, None])
    return np.stack([np.full(tests, people), amounts.sum(axis=1), (amounts**2).sum(axis=1)])


def alarms(
    draw: Callable[[np.random.Generator, int, int], Drawn],
    read: Callable[..., Sample],
    tests: int,
    people: int,
) -> dict[str, float]:
    """The part of tests in which each interval excluded 0 on at least one of the days.

    people: new people in each arm each day. `fixed_at_the_end` is for one look, on the last day.
    """
    rng = np.random.default_rng(14)
    sums: list[Any] = [0, 0]
    ever: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for _ in range(DAYS):
        sums = [so_far + draw(rng, tests, people) for so_far in sums]
        control, arm = (read(*group) for group in sums)
        found: Comparison = without_unsure_ratios(control, compare(control, arm))
        for key in Comparison.__slots__:
            estimate = getattr(found, key)
            last[key] = (estimate.low > 0) | (estimate.high < 0)
            ever[key] = ever.get(key, False) | last[key]
    rates = {key: float(np.mean(alarmed)) for key, alarmed in ever.items()}
    return {**rates, "fixed_at_the_end": float(np.mean(last["absolute_fixed"]))}


@pytest.mark.proof
@pytest.mark.parametrize("people", [50, 200])
@pytest.mark.parametrize(("draw", "read"), [(conversions, proportion), (revenue, mean)])
def test_looking_every_day_raises_few_false_alarms(
    draw: Any, read: Any, people: int, record_property: Callable[[str, object], None]
) -> None:
    tests = cases(test=1_000, prove=10_000)
    rates = alarms(draw, read, tests, people)
    said = (
        f"{tests:,} A/A tests of {draw.__name__}, {people} people a day in each arm, looked at "
        f"daily for {DAYS} days: false alarms always valid {rates['absolute_sequential']:.1%} "
        f"(relative {rates['relative_sequential']:.1%}), fixed horizon "
        f"{rates['absolute_fixed']:.1%} (relative {rates['relative_fixed']:.1%}), fixed with one "
        f"look at the end {rates['fixed_at_the_end']:.1%}"
    )
    record_property("measured", said)
    assert rates["absolute_sequential"] <= 0.05
    assert rates["relative_sequential"] <= 0.05
    # what the fixed interval is for, and what it is not for
    assert 0.03 < rates["fixed_at_the_end"] < 0.07
    assert rates["absolute_fixed"] > 0.2
