"""An experiment's report as JSON, as tables and as a plot."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from journeys.analytics.experiments import (
    CONVERSIONS,
    ArmFigures,
    Difference,
    ExperimentPlan,
    ExperimentReport,
)
from journeys.analytics.lift import estimates
from journeys.analytics.plots import PlottedInterval, interval_plot
from journeys.analytics.statistics import Estimate
from journeys.analytics.verdicts import Measure

ARM_HEADINGS = ("arm", "people", "expected", "conversions", "revenue a person", "unsubscribes")
DIFFERENCE_HEADINGS = (
    *("measure", "arm", "difference", "fixed horizon", "always valid", "relative"),
    *("relative, fixed", "relative, always valid", "smallest difference found"),
)


def as_json(report: ExperimentReport) -> dict[str, Any]:
    """The report as one JSON object; shares are parts of 1, revenue is in the currency."""
    return {
        "journey": report.journey,
        "step": report.step,
        "control": report.control,
        "promoted": report.promoted,
        "currency": report.currency,
        "within_seconds": report.within,
        "arms": [arm._asdict() for arm in report.arms],
        "sample_ratio_p": report.ratio,
        "sample_ratio_is_wrong": report.ratio_is_wrong,
        "mixed": report.mixed,
        "differences": [
            {
                "measure": one.measure.name,
                "arm": one.arm,
                **estimates(one.used),
                "with_past": one.adjusted is not None,
                "without_past": estimates(one.plain),
                "smallest_fixed": _number(one.smallest[0]),
                "smallest_sequential": _number(one.smallest[1]),
                "verdict": one.verdict,
            }
            for one in report.differences
        ],
        "verdict": list(sentences(report)),
        "left_out": report.left_out,
    }


def sentences(report: ExperimentReport) -> Iterator[str]:
    """What the report says, in words; the most important first."""
    if report.ratio_is_wrong:
        sizes = ", ".join(f"{one.arm} {one.people:,} of {one.expected:,.0f}" for one in report.arms)
        yield (
            f"Do not use these figures: the arms do not have the sizes of their weights ({sizes}; "
            f"p = {report.ratio:.2g}), so people are missing from some."
        )
    if report.promoted is not None:
        yield f"{report.promoted} is promoted: everybody who enters takes it."
    for one in report.differences:
        yield from one.verdict


def planned(plan: ExperimentPlan) -> str:
    """The plan of an experiment, in words."""
    fixed, always = (
        _figure(CONVERSIONS, one) for one in (plan.smallest_fixed, plan.smallest_sequential)
    )
    return (
        f"With {plan.people:,} people, {plan.control:,} of them in the control and {plan.arm:,} in "
        f"the smallest other arm, and {plan.rate:.2%} conversions in the control: the smallest "
        f"difference that 4 of 5 such experiments find is {fixed} with one look at the end, and "
        f"{always} however often one looks."
    )


def arm_rows(report: ExperimentReport) -> list[tuple[str, ...]]:
    """The rows under ARM_HEADINGS."""
    return [_arm_row(one, report.currency) for one in report.arms]


def difference_rows(report: ExperimentReport) -> list[tuple[str, ...]]:
    """The rows under DIFFERENCE_HEADINGS."""
    return [_difference_row(one) for one in report.differences]


def plot(report: ExperimentReport) -> str:
    """The relative differences with both intervals, as SVG."""
    return interval_plot(
        f"{report.journey}, {report.step}: difference to {report.control}",
        "% of the control",
        [
            (name, [_plotted(one, getattr(one.used, key)) for one in report.differences])
            for name, key in (
                ("fixed horizon", "relative_fixed"),
                ("always valid", "relative_sequential"),
            )
        ],
    )


def _arm_row(one: ArmFigures, currency: str) -> tuple[str, ...]:
    return (
        one.arm,
        f"{one.people:,}",
        f"{one.expected:,.1f}",
        "no goal" if one.conversions is None else _share(one.conversions, one.people),
        f"{one.revenue:,.2f} {currency}",
        _share(one.unsubscribes, one.people),
    )


def _share(number: int, people: int) -> str:
    return f"{number:,} ({number / people:.2%})" if people else f"{number:,}"


def _difference_row(one: Difference) -> tuple[str, ...]:
    used = one.used
    return (
        one.measure.name + (", by the past" if one.adjusted is not None else ""),
        one.arm,
        _figure(one.measure, float(used.absolute_fixed.difference)),
        _interval(one.measure, used.absolute_fixed),
        _interval(one.measure, used.absolute_sequential),
        _figure(_RELATIVE, float(used.relative_fixed.difference)),
        _interval(_RELATIVE, used.relative_fixed),
        _interval(_RELATIVE, used.relative_sequential),
        f"{_figure(one.measure, one.smallest[0])}; always valid "
        f"{_figure(one.measure, one.smallest[1])}",
    )


_RELATIVE = Measure("relative", unit="%", scale=100)


def _figure(measure: Measure, value: float) -> str:
    return measure.shown(value) if isfinite(value) else "not known"


def _interval(measure: Measure, estimate: Estimate) -> str:
    low, high = float(estimate.low), float(estimate.high)
    if not isfinite(low):
        return "not known"
    return f"{measure.shown(low)} to {measure.shown(high)} (p = {float(estimate.p):.2g})"


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _plotted(one: Difference, estimate: Estimate) -> PlottedInterval:
    return PlottedInterval(
        label=f"{one.arm}: {one.measure.name}",
        value=100 * float(estimate.difference),
        low=100 * float(estimate.low),
        high=100 * float(estimate.high),
    )
