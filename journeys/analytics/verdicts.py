"""What a comparison shows, in words that promise no more than the figures do."""

from collections.abc import Iterator
from math import isnan
from typing import NamedTuple

from journeys.analytics.statistics import Comparison, Estimate


class Measure(NamedTuple):
    """What is compared. Figures times `scale` are in the unit.

    is_share: whether a person's value is 0 or 1.
    """

    name: str
    unit: str
    scale: float
    is_share: bool = False

    def shown(self, value: float) -> str:
        """A figure with its unit, such as `0.4 points`."""
        digits = 2 if abs(value * self.scale) >= 0.1 or not value else 4
        return f"{value * self.scale:,.{digits}f} {self.unit}"


def verdict(measure: Measure, arm: str, control: str, found: Comparison) -> list[str]:
    """Sentences about an arm and the control in one measure."""
    return [*_absolute(measure, arm, control, found), *_relative(measure, found)]


def is_significant(estimate: Estimate) -> bool:
    """Whether the interval does not contain 0."""
    return bool(estimate.low > 0 or estimate.high < 0)


def _absolute(measure: Measure, arm: str, control: str, found: Comparison) -> Iterator[str]:
    always, fixed = found.absolute_sequential, found.absolute_fixed
    if isnan(float(always.low)):
        yield (
            f"{measure.name}: nothing can be said about {arm} yet, because there are too few "
            "people or their figures do not vary."
        )
        return
    width = measure.shown(float(always.high) - float(always.difference))
    below = f"at this size a difference below {width} can't be told from chance."
    if is_significant(always):
        sign = 1 if always.low > 0 else -1
        ends = sorted((sign * float(always.low), sign * float(always.high)))
        low, high = (measure.shown(end) for end in ends)
        yield (
            f"{measure.name}: {arm} has between {low} and {high} {'more' if sign > 0 else 'less'} "
            f"than {control}, however often one looks."
        )
    elif is_significant(fixed):
        yield (
            f"{measure.name}: not yet. One look, at a size chosen before, would find a difference "
            f"between {arm} and {control} (p = {float(fixed.p):.2g}), but looking repeatedly finds "
            f"such differences by chance too; {below}"
        )
    else:
        yield f"{measure.name}: not yet; {below}"


def _relative(measure: Measure, found: Comparison) -> Iterator[str]:
    always, fixed = found.relative_sequential, found.relative_fixed
    if is_significant(fixed) and not is_significant(always):
        yield (
            f"{measure.name}: the relative difference ({float(fixed.difference):+.1%}) is "
            f"significant at one look (p = {float(fixed.p):.2g}), and not yet if one looks "
            f"repeatedly (p = {float(always.p):.2g})."
        )
