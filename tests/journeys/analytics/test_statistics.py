"""Differences, intervals and p-values agree with those of gbstats, and say when there are none.

The groups of the sample ratio are those of Hillstrom's e-mail experiment.
"""

from typing import Any

import numpy as np
import pytest

from journeys.analytics.statistics import (
    Comparison,
    Estimate,
    Sample,
    adjusted,
    compare,
    covariance,
    mean,
    proportion,
    sample_ratio,
    smallest_effect,
)
from tests.support.shared_data import experiments, needs_experiments

_KEYS = ("absolute_fixed", "absolute_sequential", "relative_fixed", "relative_sequential")


def compared(case: dict[str, Any]) -> Comparison:
    read = proportion if case["kind"] == "proportion" else mean
    return compare(read(*case["control"]), read(*case["arm"]))


def flat(estimate: Estimate) -> list[float]:
    return [float(part) for part in (estimate.difference, estimate.low, estimate.high, estimate.p)]


@needs_experiments
@pytest.mark.parametrize("key", _KEYS)
def test_figures_agree_with_gbstats_to_five_decimals(key: str) -> None:
    for case in experiments():
        difference, (low, high), p = case[key]
        found = flat(getattr(compared(case), key))
        assert found == pytest.approx([difference, low, high, p], abs=1.01e-5 / 2), case


def test_many_experiments_at_once_give_the_same_as_one_at_a_time() -> None:
    cases = [
        {"kind": "mean", "control": [3000, 1200.5, 52000.25], "arm": [3100, 2400.75, 130000.5]},
        {"kind": "mean", "control": [70, 12, 60], "arm": [40, 21, 33]},
    ]
    control, arm = (
        mean(*np.array([case[group] for case in cases], dtype=float).T)
        for group in ("control", "arm")
    )
    together = compare(control, arm)
    for number, case in enumerate(cases):
        for key in _KEYS:
            estimate: Any = getattr(together, key)
            parts = (estimate.difference, estimate.low, estimate.high, estimate.p)
            assert [part[number] for part in parts] == flat(getattr(compared(case), key))


def test_the_sample_ratio_of_hillstrom() -> None:
    assert sample_ratio([21306, 21307, 21387], [1, 1, 1]) == pytest.approx(0.9037, abs=5e-5)
    assert sample_ratio([600, 400], [1, 1]) < 1e-9
    assert sample_ratio([0, 0], [1, 1]) == 1
    assert sample_ratio([10], [3]) == 1


@pytest.mark.parametrize(("n", "total"), [(0, 0), (1, 1)])
def test_a_group_of_nobody_or_one_has_no_interval(n: int, total: int) -> None:
    for group in (proportion(n, total), mean(n, total, total)):
        for key in _KEYS:
            difference, *bounds = flat(getattr(compare(proportion(100, 20), group), key))
            assert np.isnan(difference) == (n == 0)
            assert np.isnan(bounds).all()


def test_a_control_without_conversions_has_an_absolute_difference_only() -> None:
    found = compare(proportion(1000, 0), proportion(1000, 9))
    assert flat(found.absolute_fixed)[0] == 0.009
    assert np.isfinite(flat(found.absolute_sequential)).all()
    assert np.isnan([flat(found.relative_fixed), flat(found.relative_sequential)]).all()


def test_groups_that_do_not_vary_have_a_difference_and_no_interval() -> None:
    found = compare(mean(3, 0.3, 0.03), mean(4, 0.8, 0.16))
    difference, *bounds = flat(found.absolute_fixed)
    assert difference == pytest.approx(0.1)
    assert np.isnan(bounds).all()


def test_a_negative_control_keeps_the_sign_of_the_ratio() -> None:
    found = compare(mean(100, -200, 900), mean(100, -100, 700))
    assert flat(found.absolute_fixed)[0] == 1
    assert flat(found.relative_fixed)[0] == -0.5


def test_huge_groups_have_finite_figures() -> None:
    found = compare(proportion(10**12, 10**9), proportion(10**12, 10**9 + 10**6))
    assert all(np.isfinite(flat(getattr(found, key))).all() for key in _KEYS)


def test_sums_that_no_values_have_are_refused() -> None:
    with pytest.raises(ValueError, match="smaller than"):
        mean(10, 100, 999)


def _sums(values: np.ndarray[Any, Any], before: np.ndarray[Any, Any]) -> tuple[Sample, Sample, Any]:
    n = len(values)
    return (
        mean(n, values.sum(), (values**2).sum()),
        mean(n, before.sum(), (before**2).sum()),
        covariance(n, values.sum(), before.sum(), (values * before).sum()),
    )


def test_the_past_narrows_the_interval_and_corrects_a_chance_difference() -> None:
    rng = np.random.default_rng(14)
    past = [rng.gamma(2, 20, 4000), rng.gamma(2, 20, 4000)]
    values = [past[0] + rng.normal(0, 10, 4000), past[1] + rng.normal(2, 10, 4000)]
    groups, before, covariances = zip(
        *(_sums(one, own) for one, own in zip(values, past, strict=True)), strict=True
    )
    plain = compare(groups[0], groups[1]).absolute_fixed
    better = compare(*adjusted(groups, before, covariances)).absolute_fixed
    assert float(better.high - better.low) < 0.5 * float(plain.high - plain.low)
    assert float(better.low) < 2 < float(better.high)
    # The residuals of a regression on the past and the arm have the same coefficient.
    centred = [np.concatenate([one - one.mean() for one in both]) for both in (values, past)]
    theta = (centred[0] @ centred[1]) / (centred[1] @ centred[1])
    moved = theta * (past[1].mean() - past[0].mean())
    assert float(better.difference) == pytest.approx(float(plain.difference) - moved)


def test_without_a_past_nothing_changes() -> None:
    groups = [proportion(100, 10), proportion(100, 20)]
    nothing = [mean(100, 0, 0)] * 2
    for group, same in zip(groups, adjusted(groups, nothing, [0.0, 0.0]), strict=True):
        assert float(same.mean) == group.mean
        assert float(same.variance) == group.variance


def test_the_smallest_effect_is_found_in_four_of_five_experiments() -> None:
    rng = np.random.default_rng(5)
    n, rate = 20_000, 0.1
    fixed, always = smallest_effect(proportion(n, n * rate), n)
    assert fixed < always
    for effect, key in ((fixed, "absolute_fixed"), (always, "absolute_sequential")):
        control = proportion(n, rng.binomial(n, rate, 4000).astype(float))
        arm = proportion(n, rng.binomial(n, rate + float(effect), 4000).astype(float))
        found = np.mean(getattr(compare(control, arm), key).low > 0)
        # A little below: a higher rate varies more than the control's.
        assert found == pytest.approx(0.78, abs=0.03)
