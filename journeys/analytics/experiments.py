"""The figures of an experiment: each arm, and its differences to the control.

Conversions are those of the journey's goal. Orders and unsubscribes count from the assignment of a
person on, for as long as the goal does; without a goal up to now. CUPED adjusts conversions by the
number of a person's orders in the year before the assignment, and revenue by their amount.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, func, select

from config.clock.times import DAY, Instant, Seconds
from config.database.engine import Tx
from config.errors import SegueError
from journeys.analytics.assignments import Assignments, read_assignments, shares_of
from journeys.analytics.revenue import UNIT, Ids, RevenueMapping, places_of, read_orders
from journeys.analytics.statistics import (
    Comparison,
    Sample,
    Values,
    adjusted,
    compare,
    covariance,
    mean,
    proportion,
    sample_ratio,
    smallest_effect,
    without_unsure_ratios,
)
from journeys.analytics.verdicts import Measure, verdict
from journeys.definition.catalog import Catalog
from journeys.enrollments import enrollments
from journeys.operations.promotion import experiment_of
from profiles.tables import consent_records

PAST: Seconds = 365 * DAY
# An experiment whose arms differ from their weights by a smaller p-value has no usable figures.
RATIO_LIMIT = 0.001

CONVERSIONS = Measure("conversions", unit="points", scale=100, is_share=True)
UNSUBSCRIBES = Measure("unsubscribes", unit="points", scale=100, is_share=True)

_n = consent_records.c
_NOES = (
    select(_n.profile_id, _n.occurred_at)
    .where(_n.granted.is_(False), _n.occurred_at >= bindparam("since"))
    .order_by(_n.id)
)

_CONVERTED = select(func.count(), func.count(enrollments.c.converted_at)).where(
    enrollments.c.journey == bindparam("of_journey")
)


class ArmFigures(NamedTuple):
    """One arm: its people, how many converted (None: the journey has no goal), the revenue a person
    in the currency of reports, and how many unsubscribed."""

    arm: str
    people: int
    expected: float
    conversions: int | None
    revenue: float
    unsubscribes: int


class Difference(NamedTuple):
    """An arm against the control in one measure.

    plain: without CUPED. adjusted: with it; None if no past explains anything. The verdict is
    about the adjusted figures, if there are any. smallest: the smallest absolute difference that
    experiments of this size find in 4 of 5 cases, fixed and always valid.
    """

    arm: str
    measure: Measure
    plain: Comparison
    adjusted: Comparison | None
    smallest: tuple[float, float]
    verdict: list[str]

    @property
    def used(self) -> Comparison:
        """The figures that the verdict is about."""
        return self.adjusted or self.plain


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentReport:
    """An experiment up to now.

    within: seconds after the assignment in which orders and unsubscribes count; None: up to now.
    ratio: the p-value of the sample-ratio test. left_out: statements about what is in no figure.
    """

    journey: str
    step: str
    control: str
    promoted: str | None
    arms: list[ArmFigures]
    differences: list[Difference]
    within: Seconds | None
    currency: str
    ratio: float
    mixed: int
    left_out: list[str]

    @property
    def ratio_is_wrong(self) -> bool:
        """Whether the arms have other sizes than their weights say."""
        return self.ratio < RATIO_LIMIT


def report_experiment(
    tx: Tx, catalog: Catalog, journey: str, step: str, mapping: RevenueMapping
) -> ExperimentReport:
    """Report on an experiment. Raises SegueError if there is no such journey or experiment."""
    people = read_assignments(tx, catalog, journey, step)
    version = catalog.journey(journey)
    current = experiment_of(version, step)
    goal = version.journey.goal
    within = None if goal is None else goal.within
    first = int(people.since.min(initial=tx.now))
    until = np.full_like(people.since, tx.now + 1)
    if within is not None:
        until = np.minimum(until, people.since + within)
    orders = read_orders(tx, mapping, first - PAST, tx.now + 1)
    revenue, _ = orders.within(people.profile_ids, people.since, until)
    before, orders_before = orders.within(people.profile_ids, people.since - PAST, people.since)
    said_no = _said_no(tx, people, until, first)
    measured: list[tuple[Measure, Values, Values | None]] = [
        (CONVERSIONS, people.converted.astype(float), orders_before.astype(float)),
        (
            Measure("revenue a person", unit=mapping.currency, scale=1),
            revenue / UNIT,
            before / UNIT,
        ),
        (UNSUBSCRIBES, said_no.astype(float), None),
    ]
    if goal is None:
        del measured[0]
    members = [people.places == number for number in range(len(people.arms))]
    sizes = [int(those.sum()) for those in members]
    differences = [
        difference
        for measure, values, past in measured
        for difference in differences_to_control(measure, people.arms, members, values, past)
    ]
    return ExperimentReport(
        journey=journey,
        step=step,
        control=people.arms[0] if people.arms else "",
        promoted=current.promoted,
        arms=[
            ArmFigures(
                arm=arm,
                people=size,
                expected=expected,
                conversions=None if goal is None else int(people.converted[those].sum()),
                revenue=float(revenue[those].sum() / UNIT / size) if size else 0.0,
                unsubscribes=int(said_no[those].sum()),
            )
            for arm, those, size, expected in zip(
                people.arms, members, sizes, people.expected, strict=True
            )
        ],
        differences=differences,
        within=within,
        currency=mapping.currency,
        ratio=sample_ratio(sizes, people.expected),
        mixed=people.mixed,
        left_out=[*_mixed(people.mixed), *orders.left_out()],
    )


class ExperimentPlan(NamedTuple):
    """The smallest differences in conversions that an experiment of this size would find.

    people: in all; control, arm: those in the control and in the smallest other arm. rate: the
    control's share of conversions. Differences are parts of 1; they are found in 4 of 5 cases.
    """

    people: int
    control: int
    arm: int
    rate: float
    smallest_fixed: float
    smallest_sequential: float


def plan_experiment(
    tx: Tx, catalog: Catalog, journey: str, step: str, people: int, rate: float | None
) -> ExperimentPlan:
    """Plan an experiment with this many people.

    rate: the control's share of conversions; None: that of the journey so far. Raises SegueError
    if the journey has converted nobody yet, or there is no such experiment.
    """
    shares = list(shares_of(experiment_of(catalog.journey(journey), step)).values())
    if rate is None:
        entered, converted = tx.conn.execute(_CONVERTED, {"of_journey": journey}).one()
        if not converted:
            raise SegueError(f"{journey} has converted nobody yet; give --rate")
        rate = converted / entered
    if len(shares) < 2:
        raise SegueError(f"{step!r} has one arm and no holdout: there is nothing to compare")
    control, arm = (int(people * share) for share in (shares[0], min(shares[1:])))
    fixed, always = smallest_effect(proportion(control, control * rate), arm)
    return ExperimentPlan(
        people=people,
        control=control,
        arm=arm,
        rate=rate,
        smallest_fixed=float(fixed),
        smallest_sequential=float(always),
    )


def differences_to_control(
    measure: Measure,
    arms: tuple[str, ...],
    members: list[NDArray[np.bool_]],
    values: Values,
    past: Values | None,
) -> list[Difference]:
    """The difference of each arm to the first one.

    members: which elements of `values` are of the people of each arm. past: the covariate of CUPED,
    or None.
    """
    groups = [_sample(values[those], is_share=measure.is_share) for those in members]
    better = groups
    if past is not None and past.size and past.min() < past.max():
        better = adjusted(
            [_sample(values[those]) for those in members],
            [_sample(past[those]) for those in members],
            [_covariance(values[those], past[those]) for those in members],
        )
    found = []
    for number, arm in enumerate(arms[1:], 1):
        plain = _compared(groups[0], groups[number])
        narrow = None if better is groups else _compared(better[0], better[number])
        fixed, always = smallest_effect(better[0], better[number].n)
        found.append(
            Difference(
                arm=arm,
                measure=measure,
                plain=plain,
                adjusted=narrow,
                smallest=(float(fixed), float(always)),
                verdict=verdict(measure, arm, arms[0], narrow or plain),
            )
        )
    return found


def _compared(control: Sample, arm: Sample) -> Comparison:
    return without_unsure_ratios(control, compare(control, arm))


def _sample(values: Values, *, is_share: bool = False) -> Sample:
    if is_share:
        return proportion(len(values), float(values.sum()))
    return mean(len(values), float(values.sum()), float((values**2).sum()))


def _covariance(values: Values, past: Values) -> float:
    sums = float(values.sum()), float(past.sum()), float((values * past).sum())
    return float(covariance(len(values), *sums))


def _said_no(tx: Tx, people: Assignments, until: Ids, since: Instant) -> NDArray[np.bool_]:
    """Who of the people withdrew a consent after the assignment."""
    rows = tx.conn.execute(_NOES, {"since": since}).all()
    whose, at = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, 2).T
    place, theirs = places_of(people.profile_ids, whose)
    inside = (at[theirs] >= people.since[place]) & (at[theirs] < until[place])
    said = np.zeros(len(people.profile_ids), dtype=bool)
    said[place[inside]] = True
    return said


def _mixed(number: int) -> list[str]:
    if not number:
        return []
    return [f"{number:,} people took several arms before they were joined; they are left out"]
