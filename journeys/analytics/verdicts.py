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
    about = f"{measure.name}, {arm} against {control}"
    sentences = _absolute(measure, found), *_relative(found)
    return [f"{about}: {sentence}" for sentence in sentences]


def is_significant(estimate: Estimate) -> bool:
    """Whether the interval does not contain 0."""
    return bool(estimate.low > 0 or estimate.high < 0)


def _absolute(measure: Measure, found: Comparison) -> str:
    always, fixed = found.absolute_sequential, found.absolute_fixed
    if isnan(float(always.low)):
        return "nothing can be said yet; there are too few people, or their figures do not vary."
    if is_significant(always):
        sign, word = (1, "more") if always.low > 0 else (-1, "less")
        ends = sorted((sign * float(always.low), sign * float(always.high)))
        low, high = (measure.shown(end) for end in ends)
        return f"between {low} and {high} {word}, however often one looks."
    width = measure.shown(float(always.high) - float(always.difference))
    below = f"At this size a difference below {width} can't be told from chance."
    if is_significant(fixed):
        return (
            f"not yet. One look, at a size chosen before, would find a difference (p = "
            f"{float(fixed.p):.2g}), but looking repeatedly finds such differences by chance too. "
            f"{below}"
        )
    return f"not yet. {below}"


def _relative(found: Comparison) -> Iterator[str]:
    always, fixed = found.relative_sequential, found.relative_fixed
    if is_significant(fixed) and not is_significant(always):
        yield (
            f"the relative difference ({float(fixed.difference):+.1%}) is significant at one look "
            f"(p = {float(fixed.p):.2g}), and not yet if one looks repeatedly (p = "
            f"{float(always.p):.2g})."
        )
