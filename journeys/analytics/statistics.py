"""Differences between two groups, with fixed-horizon and always-valid intervals.

Everything is pure and works on numbers or on arrays of them, one element for each experiment.

Fixed horizon: Welch's t interval. It is right if one looks once, at a size chosen before.
Always valid: the asymptotic confidence sequence of Waudby-Smith et al., "Time-uniform central limit
theory and asymptotic confidence sequences", https://arxiv.org/abs/2103.06476v7, equations 9 and
155. It may be looked at any number of times. It is tightest near TUNED_FOR people.
Relative differences use the delta method. The figures agree with those of gbstats 0.8.0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri, stdtr, stdtrit

Values = NDArray[np.float64]
Number = float | Values

ALPHA = 0.05  # an interval misses the true difference at most this often
POWER = 0.8  # how often the smallest effect is seen
TUNED_FOR = 5000
RATIO_ERROR = 0.15
# A sum of squares and a squared sum that differ by less, relative to the sum, are equal: doubles
# have 16 digits, and sums of equal values leave a remainder of some of the last.
_ROUNDING = 1e-13


@dataclass(frozen=True, slots=True)
class Sample:
    """One group: how many people, their mean, and the variance of one person's value."""

    n: Number
    mean: Number
    variance: Number


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference, its interval of confidence 1 - ALPHA, and the two-sided p-value.

    The bounds and p are NaN if the groups are too small or do not vary; the difference is NaN if
    it has no value. The always-valid p-value holds at every look too.
    """

    difference: Number
    low: Number
    high: Number
    p: Number


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the control. Relative differences are in parts of the control's mean."""

    absolute_fixed: Estimate
    absolute_sequential: Estimate
    relative_fixed: Estimate
    relative_sequential: Estimate


def proportion(n: Number, conversions: Number) -> Sample:
    """The people of a group and how many of them converted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.divide(conversions, n, dtype=np.float64)
    return Sample(n, share, share * (1 - share))


def mean(n: Number, total: Number, squares: Number) -> Sample:
    """The people of a group, the sum of a value over them, and the sum of its squares.

    Raises ValueError if no values can have these sums.
    """
    return Sample(n, *_moments(n, total, squares))


def compare(control: Sample, arm: Sample) -> Comparison:
    """The difference between an arm and the control, absolute and relative."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts = _part(control), _part(arm)
        freedom = _freedom(control, arm, *parts)
        absolute, relative = _absolute(control, arm, parts), _relative(control, arm, parts)
        n = np.add(control.n, arm.n)
        return Comparison(
            absolute_fixed=_fixed(*absolute, freedom),
            absolute_sequential=_sequential(*absolute, n),
            relative_fixed=_fixed(*relative, freedom),
            relative_sequential=_sequential(*relative, n),
        )


def without_unsure_ratios(control: Sample, found: Comparison) -> Comparison:
    """The comparison with NaN for relative figures while the control's mean is not known well.

    The delta method needs a control far from 0: with few conversions, A/A tests that are looked at
    every day give up to 20 % false alarms. Here at most a RATIO_ERROR of the mean is its standard
    error (tests/journeys/analytics/test_false_alarms.py).
    """
    with np.errstate(invalid="ignore"):
        sure = np.sqrt(_part(control)) <= RATIO_ERROR * np.abs(control.mean)

    def known(estimate: Estimate) -> Estimate:
        difference, low, high, p = (
            np.where(sure, part, np.nan)
            for part in (estimate.difference, estimate.low, estimate.high, estimate.p)
        )
        return Estimate(difference=difference, low=low, high=high, p=p)

    return replace(
        found,
        relative_fixed=known(found.relative_fixed),
        relative_sequential=known(found.relative_sequential),
    )


def adjusted(
    groups: Sequence[Sample], before: Sequence[Sample], covariances: Sequence[Number]
) -> list[Sample]:
    """CUPED: the groups without what their people's own past explains.

    before: the same people's values before the experiment. covariances: of the two values within
    each group (n - 1 in the denominator). Without any variance before, nothing changes. Source:
    Deng et al. 2013, "Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data", with one coefficient for all groups.
    """
    freedoms = [np.subtract(past.n, 1) for past in before]
    explained = sum(
        freedom * covariance for freedom, covariance in zip(freedoms, covariances, strict=True)
    )
    varying = sum(freedom * past.variance for freedom, past in zip(freedoms, before, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = np.where(np.greater(varying, 0), np.divide(explained, varying), 0.0)
        everybody = sum(past.n * past.mean for past in before) / sum(past.n for past in before)
    return [
        Sample(
            group.n,
            group.mean - theta * (past.mean - everybody),
            np.maximum(
                group.variance + theta**2 * past.variance - 2 * theta * covariance,
                0,
            ),
        )
        for group, past, covariance in zip(groups, before, covariances, strict=True)
    ]


def covariance(n: Number, total: Number, before: Number, products: Number) -> Number:
    """The covariance of two values of each person, from their sums and the sum of products."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(products - np.divide(np.multiply(total, before), n), np.subtract(n, 1))


def sample_ratio(people: Sequence[int], weights: Sequence[float]) -> float:
    """The p-value of the people in each arm, if arms are drawn by these weights (chi-square).

    A small one means that the assignment or its record is wrong, so that no figure can be trusted.
    """
    total, whole = sum(people), sum(weights)
    if not total or len(people) < 2:
        return 1.0
    expected = [total * weight / whole for weight in weights]
    distance = sum(
        (found - wanted) ** 2 / wanted for found, wanted in zip(people, expected, strict=True)
    )
    return float(chdtrc(len(people) - 1, distance))


def smallest_effect(control: Sample, arm_people: Number) -> tuple[Number, Number]:
    """The smallest absolute difference that is found with probability POWER: fixed, always valid.

    The arm is assumed to vary as the control does.
    """
    arm = Sample(arm_people, control.mean, control.variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(_part(control) + _part(arm))
        seen = compare(control, arm)
        return (
            (seen.absolute_fixed.high - seen.absolute_fixed.difference) + ndtri(POWER) * error,
            (seen.absolute_sequential.high - seen.absolute_sequential.difference)
            + ndtri(POWER) * error,
        )


def _moments(n: Number, total: Number, squares: Number) -> tuple[Number, Number]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        average = np.divide(total, n, dtype=np.float64)
        left = squares - average * total
        # `left` is NaN for nobody, and then no comparison holds.
        if np.any(left < -_ROUNDING * np.abs(squares)):
            raise ValueError("the sum of squares is smaller than these people's values can have")
        left = np.where(left <= _ROUNDING * np.abs(squares), 0.0, left)
        return average, np.divide(left, np.subtract(n, 1))


def _part(sample: Sample) -> Number:
    """The variance of the group's mean. NaN for fewer than two people."""
    return np.where(np.less(sample.n, 2), np.nan, np.divide(sample.variance, sample.n))


def _freedom(control: Sample, arm: Sample, control_part: Any, arm_part: Any) -> Any:
    """Degrees of freedom by Welch and Satterthwaite, from shares that cannot underflow."""
    whole = control_part + arm_part
    return 1 / (
        (control_part / whole) ** 2 / np.subtract(control.n, 1)
        + (arm_part / whole) ** 2 / np.subtract(arm.n, 1)
    )


def _absolute(control: Sample, arm: Sample, parts: Any) -> tuple[Number, Number]:
    """The difference and its variance."""
    return np.subtract(arm.mean, control.mean), parts[0] + parts[1]


def _relative(control: Sample, arm: Sample, parts: Any) -> tuple[Number, Number]:
    """The same relative to the control's mean; NaN where that is 0."""
    base = np.where(np.equal(control.mean, 0), np.nan, control.mean)
    ratio = arm.mean / base
    return ratio - 1, parts[1] / base**2 + parts[0] * ratio**2 / base**2


def _fixed(difference: Any, variance: Any, freedom: Any) -> Estimate:
    error = np.where(variance > 0, np.sqrt(variance), np.nan)
    width = stdtrit(freedom, 1 - ALPHA / 2) * error
    p = 2 * stdtr(freedom, -np.abs(difference) / error)
    return _around(difference, width, p)


def _sequential(difference: Any, variance: Any, n: Any) -> Estimate:
    varying = np.where(variance > 0, variance, np.nan)
    tuning = (-2 * np.log(ALPHA) + np.log(1 - 2 * np.log(ALPHA))) / TUNED_FOR  # rho squared
    size = n * tuning
    # The paper's estimate is a mean of n values; here it has the variance `varying`, not s2 / n.
    width = np.sqrt(varying * 2 * (size + 1) / size * np.log(np.sqrt(size + 1) / ALPHA))
    log_evidence = size * difference**2 / varying / (2 * (size + 1)) - np.log(size + 1) / 2
    p = np.minimum(1, np.exp(-log_evidence))
    return _around(difference, width, p)


def _around(difference: Any, width: Any, p: Number) -> Estimate:
    return Estimate(difference=difference, low=difference - width, high=difference + width, p=p)
