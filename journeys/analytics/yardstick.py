"""The long yardstick: what customers brought and bore by quarter and year, and what marketing did
to it, measured against the holdout.

A customer is a profile with an identifier other than anonymous ids, or with an order or refund; it
counts from its creation or the first of these on, whichever is earlier. A figure a customer is
divided by the customers at the end of the period, except those with another base below.

| Measure | Counts |
|---|---|
| revenue, orders | orders by their own time; refunds lower the revenue and are no orders |
| new customers | customers whose first order is in the period |
| lapsed | customers who ordered in the year before the period, and not in it; base: those |
| unsubscribes | customers who withdrew a consent |
| complaints | reports of spam |
| uninstalls | devices that the provider does not know any more |
| messages | marketing messages that were sent and did not come back |
| satisfaction | the last answer of each customer, as promoters (9, 10) less detractors (0 to 6) |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, bindparam, func, or_, select, union

from channels.messages import messages, past_messages
from config.channels import channels
from config.clock.times import DAY, Instant, Seconds
from config.database.arrays import any_of, one_of
from config.database.engine import Tx
from config.settings import Settings
from journeys.analytics.periods import Period
from journeys.analytics.revenue import UNIT, Ids, Orders, RevenueMapping, places_of, read_orders
from journeys.analytics.statistics import Comparison, Values, compare, mean, without_unsure_ratios
from journeys.operations.counts import SENT
from profiles.conditions.json_path import Place, parse_path
from profiles.identity.addresses import UNINSTALLED
from profiles.tables import consent_records, events, held_out, identifiers, profiles

Mask = NDArray[np.bool_]

_YEAR: Seconds = 365 * DAY
# Before every order, and after each: times of events may lie in any year.
_EVER: tuple[Instant, Instant] = (-(2**60), 2**60)

_v, _n, _i, _h = events.c, consent_records.c, identifiers.c, held_out.c
_CUSTOMERS = (
    select(_i.profile_id, profiles.c.created_at)
    .join(profiles, (profiles.c.id == _i.profile_id))
    .where(_i.kind != "anonymous_id")
    .distinct()
)
_CREATED = select(profiles.c.id, profiles.c.created_at).where(any_of(profiles.c.id, "profiles"))
_NOES = select(_n.profile_id, _n.occurred_at).where(_n.granted.is_(False))
_COMPLAINTS = select(_v.profile_id, _v.occurred_at).where(any_of(_v.name, "names"))
_ANSWERS = (
    select(_v.profile_id, _v.occurred_at).where(_v.name == bindparam("event")).order_by(_v.id)
)
# Without those that came back. A past message without a kind is from before its column.
_MARKETING = [
    (c, one_of(c.state, SENT) & or_(c.kind == "marketing", c.kind.is_(None)))
    for c in (messages.c, past_messages.c)
]
_MESSAGES: Sequence[Select[Any]] = [
    select(columns.profile_id, func.count())
    .where(marketing, columns.send_at >= bindparam("start"), columns.send_at < bindparam("end"))
    .group_by(columns.profile_id)
    for columns, marketing in _MARKETING
]
_HELD = select(_h.profile_id)
_MIXED = union(
    *(
        select(_h.profile_id).where(columns.profile_id == _h.profile_id, marketing)
        for columns, marketing in _MARKETING
    )
)


class DatedRows(NamedTuple):
    """Rows of profiles: whose, and when."""

    whose: Ids
    at: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known of the customers, who are sorted by profile.

    since: from when on each counts. held: in the holdout, without marketing ever; mixed: in the
    holdout after marketing, which is in neither group. scores: the answers, in order, each 1 for a
    promoter, -1 for a detractor, 0 for others.
    """

    ids: Ids
    since: Ids
    held: Mask
    mixed: Mask
    orders: Orders
    noes: DatedRows
    complaints: DatedRows
    uninstalls: DatedRows
    answers: DatedRows
    scores: Ids
    unreadable_answers: int


class CustomerGroup(NamedTuple):
    """One group of customers in one measure: the base, and the figure for each of the base."""

    people: int
    each: float


class YardstickFigure(NamedTuple):
    """One measure in one period.

    total: over all customers; for satisfaction the NPS of all. everybody, held_out, others: the
    figure for one of all customers, and for one in each group. difference: others against the
    holdout, so what marketing does; None without a holdout.
    """

    measure: str
    unit: str
    total: float
    everybody: CustomerGroup
    held_out: CustomerGroup
    others: CustomerGroup
    difference: Comparison | None


class PeriodReport(NamedTuple):
    """The measures of a period, of all customers or of those in a segment now.

    mixed: customers who are in neither group of the differences.
    """

    period: Period
    segment: str | None
    customers: int
    mixed: int
    figures: list[YardstickFigure]


def read_history(tx: Tx, settings: Settings) -> History:
    """Read what the yardstick needs, but for the messages."""
    orders = read_orders(tx, RevenueMapping.of(settings), *_EVER)
    created = {row.profile_id: row.created_at for row in tx.conn.execute(_CUSTOMERS)}
    ordering = np.unique(orders.profile_ids)
    unknown = [int(one) for one in ordering if int(one) not in created]
    created |= {row.id: row.created_at for row in tx.conn.execute(_CREATED, {"profiles": unknown})}
    ids = np.array(sorted(created), dtype=np.int64)
    since = np.array([created[one] for one in ids.tolist()], dtype=np.int64)
    place, theirs = places_of(ids, orders.profile_ids)
    np.minimum.at(since, place, orders.times[theirs])
    held = np.isin(ids, _ids(tx, _HELD))
    mixed = np.isin(ids, _ids(tx, _MIXED))
    answers, scores, unreadable = _answers(tx, settings)
    complained = {"names": [f"{name}_complained" for name in channels()]}
    return History(
        ids=ids,
        since=since,
        held=held & ~mixed,
        mixed=held & mixed,
        orders=orders,
        noes=_events(tx, _NOES, {}),
        complaints=_events(tx, _COMPLAINTS, complained),
        uninstalls=_events(tx, UNINSTALLED, {}),
        answers=answers,
        scores=scores,
        unreadable_answers=unreadable,
    )


def measure_period(
    tx: Tx, history: History, period: Period, segments: Mapping[str, Ids]
) -> Iterator[PeriodReport]:
    """The report of all customers, then one for each segment.

    segments: the profiles of each, by name.
    """
    measured = list(_measures(tx, history, period))
    there = history.since < period.end
    yield _report(history, period, None, there, measured)
    for name, members in segments.items():
        yield _report(history, period, name, there & np.isin(history.ids, members), measured)


class _Measured(NamedTuple):
    """A measure of each customer, and for whom it is defined."""

    name: str
    values: Values
    base: Mask
    unit: str = ""


def _measures(tx: Tx, history: History, period: Period) -> Iterator[_Measured]:
    ids = history.ids
    everybody = np.ones(len(ids), dtype=bool)
    revenue, orders = _orders_in(history, period.start, period.end)
    _, before = _orders_in(history, period.start - _YEAR, period.start)
    real = history.orders.amounts >= 0
    place, theirs = places_of(ids, history.orders.profile_ids)
    first = np.full(len(ids), _EVER[1], dtype=np.int64)
    np.minimum.at(first, place[real[theirs]], history.orders.times[theirs & real])
    is_new = (first >= period.start) & (first < period.end)
    currency = history.orders.currency
    yield _Measured("revenue", revenue / UNIT, everybody, unit=currency)
    yield _Measured("orders", orders.astype(float), everybody)
    yield _Measured("new customers", is_new.astype(float), everybody)
    yield _Measured("lapsed", (orders == 0).astype(float), before > 0)
    yield _Measured("unsubscribes", np.minimum(_count(ids, history.noes, period), 1), everybody)
    yield _Measured("complaints", _count(ids, history.complaints, period), everybody)
    yield _Measured("uninstalls", _count(ids, history.uninstalls, period), everybody)
    yield _Measured("messages", _messages(tx, ids, period), everybody)
    values, answered = _satisfaction(history, period)
    yield _Measured("satisfaction", values, answered, unit="NPS")


def _report(
    history: History,
    period: Period,
    segment: str | None,
    members: Mask,
    measured: Sequence[_Measured],
) -> PeriodReport:
    return PeriodReport(
        period=period,
        segment=segment,
        customers=int(members.sum()),
        mixed=int((members & history.mixed).sum()),
        figures=[_figure(history, one, members & one.base) for one in measured],
    )


def _figure(history: History, one: _Measured, base: Mask) -> YardstickFigure:
    groups = {
        "everybody": base,
        "held_out": base & history.held,
        "others": base & ~history.held & ~history.mixed,
    }
    found = {
        name: CustomerGroup(people=int(those.sum()), each=_average(one.values[those]))
        for name, those in groups.items()
    }
    difference = None
    if found["held_out"].people:
        control, others = (
            mean(len(values), float(values.sum()), float((values**2).sum()))
            for values in (one.values[groups["held_out"]], one.values[groups["others"]])
        )
        difference = without_unsure_ratios(control, compare(control, others))
    total = found["everybody"].each if one.unit == "NPS" else float(one.values[base].sum())
    return YardstickFigure(
        measure=one.name,
        unit=one.unit,
        total=total,
        everybody=found["everybody"],
        held_out=found["held_out"],
        others=found["others"],
        difference=difference,
    )


def _average(values: Values) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _orders_in(history: History, start: Instant, end: Instant) -> tuple[Ids, Ids]:
    """The amounts and the orders of each customer in a time."""
    bounds = (np.full(len(history.ids), one, dtype=np.int64) for one in (start, end))
    return history.orders.within(history.ids, *bounds)


def _count(ids: Ids, found: DatedRows, period: Period) -> Values:
    """How many rows of each customer are in the period."""
    place, theirs = places_of(ids, found.whose)
    at = found.at[theirs]
    inside = (at >= period.start) & (at < period.end)
    return np.bincount(place[inside], minlength=len(ids)).astype(float)


def _messages(tx: Tx, ids: Ids, period: Period) -> Values:
    counted = np.zeros(len(ids))
    for counting in _MESSAGES:
        rows = tx.conn.execute(counting, {"start": period.start, "end": period.end}).all()
        whose, numbers = _table(rows)
        place, theirs = places_of(ids, whose)
        np.add.at(counted, place, numbers[theirs])
    return counted


def _satisfaction(history: History, period: Period) -> tuple[Values, Mask]:
    """The last answer of each customer in the period, in NPS, and who answered."""
    values = np.zeros(len(history.ids))
    answered = np.zeros(len(history.ids), dtype=bool)
    place, theirs = places_of(history.ids, history.answers.whose)
    at = history.answers.at[theirs]
    inside = (at >= period.start) & (at < period.end)
    # Assignment keeps the last of several values for one place.
    values[place[inside]] = 100.0 * history.scores[theirs][inside]
    answered[place[inside]] = True
    return values, answered


def _answers(tx: Tx, settings: Settings) -> tuple[DatedRows, Ids, int]:
    """The answers in the order of their time, and how many have no score from 0 to 10."""
    nothing = np.zeros(0, dtype=np.int64)
    if not settings.satisfaction_event:
        return DatedRows(nothing, nothing), nothing, 0
    members = parse_path(settings.satisfaction_score)[0]
    score = Place(sqlite=tx.is_sqlite, document=_v.properties, members=members).value(0.0)
    given = {"event": settings.satisfaction_event}
    rows = tx.conn.execute(_ANSWERS.add_columns(score.label("score")), given).all()
    read = [
        (row.profile_id, row.occurred_at, int(row.score >= 9) - int(row.score <= 6))
        for row in rows
        if row.score is not None and 0 <= row.score <= 10
    ]
    read.sort(key=lambda one: one[1])
    whose, at, scores = np.array(read, dtype=np.int64).reshape(-1, 3).T
    return DatedRows(whose, at), scores, len(rows) - len(read)


def _events(tx: Tx, reading: Select[Any], given: Mapping[str, Any]) -> DatedRows:
    return DatedRows(*_table(tx.conn.execute(reading, given).all()))


def _table(rows: Sequence[Any]) -> Ids:
    """Rows of two numbers, as two arrays."""
    found: Ids = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, 2).T
    return found


def _ids(tx: Tx, reading: Any) -> Ids:
    return np.array(tx.conn.execute(reading).scalars().all(), dtype=np.int64)
