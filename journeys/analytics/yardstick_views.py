"""The yardstick as JSON, as a table and as a plot."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from config.clock.times import format_instant
from journeys.analytics.lift import estimates
from journeys.analytics.plots import PlottedInterval, interval_plot
from journeys.analytics.statistics import Estimate
from journeys.analytics.verdicts import is_significant
from journeys.analytics.yardstick import CustomerGroup, History, PeriodReport, YardstickFigure

HEADINGS = (
    *("period", "segment", "measure", "total", "a customer", "holdout", "others"),
    *("difference, fixed horizon", "difference, always valid"),
)


def as_json(history: History, reports: Sequence[PeriodReport]) -> dict[str, Any]:
    """The yardstick as one JSON object."""
    return {
        "currency": history.orders.currency,
        "periods": [
            {
                "period": one.period.name,
                "from": format_instant(one.period.start),
                "to": format_instant(one.period.end),
                "segment": one.segment,
                "customers": one.customers,
                "mixed": one.mixed,
                "measures": [_figure(figure) for figure in one.figures],
            }
            for one in reports
        ],
        "left_out": left_out(history),
    }


def left_out(history: History) -> list[str]:
    """Statements about what is in no figure, for people."""
    said = history.orders.left_out()
    if mixed := int(history.mixed.sum()):
        said.append(
            f"{mixed:,} customers got marketing before they came into the holdout; they are in "
            "neither group"
        )
    if history.unreadable_answers:
        said.append(f"{history.unreadable_answers:,} answers without a score from 0 to 10")
    if not history.held.any():
        said.append("nobody is in the holdout (holdout_percent), so nothing can be compared")
    return said


def rows(reports: Sequence[PeriodReport]) -> list[tuple[str, ...]]:
    """The rows under HEADINGS."""
    return [
        (one.period.name, one.segment or "all", *_cells(figure))
        for one in reports
        for figure in one.figures
    ]


def plot(reports: Sequence[PeriodReport], measure: str) -> str:
    """The differences of a measure between the others and the holdout, by period, as SVG."""
    found = [
        (one.period.name, figure.difference)
        for one in reports
        if one.segment is None
        for figure in one.figures
        if figure.measure == measure and figure.difference is not None
    ]
    return interval_plot(
        f"{measure}: what marketing adds to a customer, against the holdout",
        f"{measure} a customer",
        [
            (name, [_plotted(period, getattr(difference, key)) for period, difference in found])
            for name, key in (
                ("fixed horizon", "absolute_fixed"),
                ("always valid", "absolute_sequential"),
            )
        ],
    )


def _figure(figure: YardstickFigure) -> dict[str, Any]:
    return {
        "measure": figure.measure,
        "unit": figure.unit,
        "total": _number(figure.total),
        **{
            name: {"people": group.people, "each": _number(group.each)}
            for name, group in (
                ("all", figure.everybody),
                ("held_out", figure.held_out),
                ("others", figure.others),
            )
        },
        "difference": None if figure.difference is None else estimates(figure.difference),
    }


def _cells(figure: YardstickFigure) -> tuple[str, ...]:
    fixed = always = "no holdout"
    if figure.difference is not None:
        fixed = _interval(figure.difference.absolute_fixed)
        always = _interval(figure.difference.absolute_sequential)
    total = f"{figure.total:,.2f} {figure.unit}" if figure.unit else f"{figure.total:,.0f}"
    return (
        figure.measure,
        total if isfinite(figure.total) else "none",
        _each(figure.everybody),
        _each(figure.held_out),
        _each(figure.others),
        fixed,
        always,
    )


def _each(group: CustomerGroup) -> str:
    return f"{group.each:,.4g} of {group.people:,}" if group.people else "none"


def _interval(estimate: Estimate) -> str:
    low, high = float(estimate.low), float(estimate.high)
    if not isfinite(low):
        return "not known"
    shown = f"{float(estimate.difference):+,.4g} ({low:,.4g} to {high:,.4g})"
    return f"{shown} significant" if is_significant(estimate) else shown


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _plotted(label: str, estimate: Estimate) -> PlottedInterval:
    return PlottedInterval(
        label=label,
        value=float(estimate.difference),
        low=float(estimate.low),
        high=float(estimate.high),
    )
