"""What all journeys did today, what is due, and why it does not go now.

Read for the staff site at a request. SQLite scans all messages for those of today; on PostgreSQL
the index ix_message_at leaves the newest blocks to read.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, bindparam, case, func, or_, select

from channels.messages import messages
from channels.rules.windows import resolve
from config.clock.times import DAY, Instant
from config.clock.zones import zone
from config.database.arrays import one_of
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.control import held
from journeys.operations.counts import AHEAD, SENT

MONTH = 30 * DAY

_m, _e = messages.c, enrollments.c
_SINCE = bindparam("since", type_=BigInteger)
_TOMORROW = bindparam("tomorrow", type_=BigInteger)
_MONTH = bindparam("month", type_=BigInteger)


def _number(which: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((which, 1)))


_SENT_TODAY = (
    select(_m.journey, _m.channel, func.count())
    .where(
        _m.send_at >= _SINCE,
        or_(one_of(_m.state, SENT), (_m.state == "failed") & _m.provider_id.is_not(None)),
    )
    .group_by(_m.journey, _m.channel)
)
_PEOPLE = (
    select(_e.journey, func.count(), _number(_e.due_at <= _TOMORROW), _number(_e.due_at <= _MONTH))
    .where(_e.ended_at.is_(None))
    .group_by(_e.journey)
)
_until = case((_m.send_at > _m.wanted_at + _m.after, _m.send_at)).label("until")
_is_retried = (_m.reason.is_not(None)).label("is_retried")
_may_be_capped = (_m.on_cap == "defer").label("may_be_capped")
_zone = _m.decision["timezone"].as_string().label("zone_name")
_PLANNED = (
    select(
        *(_m.journey, _m.channel, _until, _is_retried, _may_be_capped, _zone),
        func.count(),
        _number(_m.send_at <= _TOMORROW),
    )
    .where(one_of(_m.state, AHEAD), _m.send_at <= _MONTH)
    .group_by(_m.journey, _m.channel, "until", "is_retried", "may_be_capped", "zone_name")
)


class _Planned(NamedTuple):
    """Planned messages that wait for the same moment, by the same clock.

    until: the moment, if rules delay them; None: they were wanted for later.
    """

    journey: str
    channel: str
    until: Instant | None
    is_retried: bool
    may_be_capped: bool
    zone_name: str
    number: int
    within_day: int


@dataclass(slots=True)
class JourneyToday:
    """One journey. state: running, paused or stopped. The counts of messages are by channel.

    people: current enrollments. moving: those that are due within a day. day, month: planned
    messages within 24 hours and within 30 days.
    """

    name: str
    state: str
    people: int = 0
    moving: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    day: Counter[str] = field(default_factory=Counter)
    month: Counter[str] = field(default_factory=Counter)


class Waiting(NamedTuple):
    """Planned messages of one journey and channel, and why they do not go now, in words."""

    journey: str
    channel: str
    number: int
    why: str


class Today(NamedTuple):
    """All journeys by name, and why planned messages wait; the most messages first."""

    journeys: list[JourneyToday]
    waiting: list[Waiting]

    def total(self, counts: str) -> Counter[str]:
        """One of the counts by channel (`sent`, `day`, `month`), of all journeys."""
        return sum((getattr(one, counts) for one in self.journeys), Counter[str]())


def today(tx: Tx, journeys: Iterable[str], zone_name: str) -> Today:
    """Read it for these journeys and all that have people or messages.

    zone_name: the brand's zone, in which the day begins.
    """
    local = zone(zone_name)
    since = resolve(datetime.fromtimestamp(tx.now, local).date(), 0, local)
    given = {"since": since, "tomorrow": tx.now + DAY, "month": tx.now + MONTH}
    states = held(tx)
    found: dict[str, JourneyToday] = {}

    def of(name: str) -> JourneyToday:
        if name not in found:
            found[name] = JourneyToday(name, states.get(name, "running"))
        return found[name]

    for name in journeys:
        of(name)
    for journey, channel, number in tx.conn.execute(_SENT_TODAY, given):
        of(journey).sent[channel] += number
    for journey, people, moving, _ in tx.conn.execute(_PEOPLE, given):
        of(journey).people, of(journey).moving = people, moving
    planned = [_Planned._make(row) for row in tx.conn.execute(_PLANNED, given)]
    for one in planned:
        of(one.journey).day[one.channel] += one.within_day
        of(one.journey).month[one.channel] += one.number
    waiting = sorted(_waiting(planned, states), key=lambda one: (-one.number, one.journey))
    return Today([found[name] for name in sorted(found)], waiting)


def _waiting(planned: Iterable[_Planned], states: dict[str, str]) -> Iterator[Waiting]:
    groups: dict[tuple[str, str, str], list[_Planned]] = defaultdict(list)
    for one in planned:
        groups[one.journey, one.channel, _cause(one, states)].append(one)
    for (journey, channel, cause), alike in groups.items():
        why = _hours(alike) if cause in _BY_LOCAL_TIME else _WHY[cause]
        number = sum(one.number for one in alike)
        yield Waiting(
            journey=journey,
            channel=channel,
            number=number,
            why=why + (", or until a frequency cap has room" if cause == "cap" else ""),
        )


def _cause(one: _Planned, states: dict[str, str]) -> str:
    if one.journey in states:
        return states[one.journey]
    if one.is_retried:
        return "retried"
    if one.until is None:
        return "planned"
    return "cap" if one.may_be_capped else "hours"


# The most times that a sentence names.
_TIMES = 3
_EVERY_ZONE = "until sending hours are open in every time zone of the customer’s country"
_BY_LOCAL_TIME = ("hours", "cap")
_WHY = {
    "paused": "wait until the journey is resumed",
    "stopped": "are being cancelled, because the journey is stopped",
    "retried": "are retried, because a provider was not ready",
    "planned": "are planned for later, as the journey says",
}


def _hours(alike: list[_Planned]) -> str:
    """Until when they wait, by the customers' clocks: the times of most of them."""
    times: Counter[str] = Counter()
    for one in alike:
        if one.until is not None and not one.zone_name.startswith("["):
            local = datetime.fromtimestamp(one.until, zone(one.zone_name))
            times[f"{local.hour}:{local:%M}"] += one.number
    several = sum(one.number for one in alike) - times.total()
    if not times:
        return f"wait {_EVERY_ZONE}"
    if len(times) == 1 and not several:
        return f"wait for {next(iter(times))} in the customer’s time zone"
    parts = [f"{number:,} for {time}" for time, number in times.most_common(_TIMES)]
    parts[-1] += " in the customer’s time zone"
    if others := sum(number for _, number in times.most_common()[_TIMES:]):
        parts.append(f"{others:,} for other times")
    if several:
        parts.append(f"{several:,} {_EVERY_ZONE}")
    return f"wait: {', '.join(parts)}"
