"""What share of messages customers answered, and after how long, learnt from the shop's history.

The rates of a journey on a channel for the segment of its launches, where the history has enough
messages; else those of the journey on the channel, else those of the channel, else those of an
average shop. The delays are the medians of a channel for opens and of a journey for purchases.
Each rate and delay says which it is, and of how many it was counted.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import ColumnElement, Select, Text, and_, case, cast, exists, func, literal, select

from channels.messages import messages
from config.channels import ChannelName
from config.clock.times import DAY, HOUR, MINUTE, Instant, Seconds
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.counts import RETURNED, SENT, counted_state
from journeys.tables import launches
from profiles.tables import events

AnswerKind = Literal["delivered", "opened", "clicked", "unsubscribed", "bought"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
# AnswerRates of fewer messages are not used.
ENOUGH = 100
_HISTORY = 365 * DAY

# Of an average shop: shares of sent messages, and of enrollments for `bought`.
_AVERAGE: Mapping[AnswerKind, float] = {
    "delivered": 0.98,
    "opened": 0.3,
    "clicked": 0.04,
    "unsubscribed": 0.003,
    "bought": 0.02,
}
# After a message, likewise: medians of an exponential distribution with these means.
_OPENED_AFTER: Seconds = round(4 * HOUR * math.log(2))
_BOUGHT_AFTER: Seconds = round(DAY * math.log(2))
# Delays are counted in quarters of an hour, up to a month.
_UNIT: Seconds = 15 * MINUTE
_LONGEST: Seconds = 31 * DAY
# A STOP withdraws consent on channels without an unsubscribe link.
_ENDING = ("unsubscribed", "stopped")


class Rate(NamedTuple):
    """A share and how it is known.

    of: the number of sent messages, or of enrollments for `bought`; 0: it was not counted.
    source: "given", "average shop", or what it was counted on.
    """

    value: float
    of: int
    source: str


class Delay(NamedTuple):
    """After how long customers answer a message, and how that is known.

    of: the number of opened messages, or of conversions; 0: it was not counted. source: as of Rate.
    """

    median: Seconds
    of: int
    source: str


class _Place(NamedTuple):
    """Where rates hold; None: everywhere."""

    journey: str | None
    channel: str | None
    segment: str | None

    def __str__(self) -> str:
        parts = [self.journey or "all journeys", *filter(None, [self.channel, self.segment])]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class AnswerRates:
    """The rates of this shop. given: shares that replace what was counted.

    opened_after, bought_after: how many messages were opened, and enrollments converted, so many
    units of _UNIT after they were sent; by channel and by journey.
    """

    counted: Mapping[_Place, Mapping[str, int]]
    given: Mapping[AnswerKind, float]
    opened_after: Mapping[str, Mapping[int, int]]
    bought_after: Mapping[str, Mapping[int, int]]

    def rate(
        self, kind: AnswerKind, journey: str, channel: ChannelName, segment: str | None
    ) -> Rate:
        """The share of a journey's messages on a channel that get an answer."""
        if kind in self.given:
            return Rate(self.given[kind], 0, "given")
        of = "enrolled" if kind == "bought" else "sent"
        # People buy because of a journey, whatever its channel.
        on = None if kind == "bought" else channel
        for place in (
            _Place(journey, on, segment),
            _Place(journey, on, None),
            _Place(None, on, None),
        ):
            counted = self.counted.get(place, {})
            if (number := counted.get(of, 0)) >= ENOUGH:
                return Rate(counted.get(kind, 0) / number, number, str(place))
        return Rate(_AVERAGE[kind], 0, "average shop")

    def opens_after(self, channel: ChannelName) -> Delay:
        """After how long a channel's messages are opened and clicked."""
        counted = self.opened_after.get(channel, {})
        return _median(counted, channel) or Delay(_OPENED_AFTER, 0, "average shop")

    def buys_after(self, journey: str) -> Delay:
        """After how long a journey's first message is followed by a purchase."""
        everywhere: Counter[int] = Counter()
        for counted in self.bought_after.values():
            everywhere.update(counted)
        return (
            _median(self.bought_after.get(journey, {}), journey)
            or _median(everywhere, "all journeys")
            or Delay(_BOUGHT_AFTER, 0, "average shop")
        )


def _median(counted: Mapping[int, int], source: str) -> Delay | None:
    """The median of counted delays; None of too few."""
    number = passed = sum(counted.values())
    if number < ENOUGH:
        return None
    for units in sorted(counted, reverse=True):
        passed -= counted[units]
        if passed <= number // 2:
            return Delay(units * _UNIT + _UNIT // 2, number, source)
    raise AssertionError("the last one passes")


def learn_rates(tx: Tx, now: Instant, given: Mapping[AnswerKind, float]) -> AnswerRates:
    """Count the answers of the last year."""
    counted: dict[_Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for journey, channel, segment, *numbers in tx.conn.execute(_sent(now)):
        for place in _places(journey, channel, segment):
            for kind, number in zip(_COUNTED, numbers, strict=True):
                counted[place][kind] += number or 0
    for journey, segment, enrolled, bought in tx.conn.execute(_enrolled(now)):
        for place in _places(journey, None, segment):
            counted[place]["enrolled"] += enrolled
            counted[place]["bought"] += bought
    after = (_by_delay(tx, query(now)) for query in (_opened_after, _bought_after))
    return AnswerRates(counted, given, *after)


def _by_delay(tx: Tx, counted: Select[Any]) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for where, units, number in tx.conn.execute(counted):
        found[where][units] += number
    return found


def _places(journey: str, channel: str | None, segment: str | None) -> set[_Place]:
    return {
        _Place(journey, channel, segment),
        _Place(journey, channel, None),
        _Place(None, channel, None),
    }


_m, _e = messages.c, enrollments.c
_COUNTED = ("sent", "delivered", "opened", "clicked", "unsubscribed")


def _sent(now: Instant) -> Select[Any]:
    state = counted_state()
    return (
        select(
            _m.journey,
            _m.channel,
            launches.c.audience,
            func.count(),
            func.sum(case((state == RETURNED, 0), else_=1)),
            *(
                func.sum(case((_answered(*kinds), 1), else_=0))
                for kinds in (("opened",), ("clicked",), _ENDING)
            ),
        )
        .join_from(messages, enrollments, and_(_e.id == _m.enrollment_id, _e.bucket == _m.bucket))
        .join(launches, launches.c.id == _e.launch_id, isouter=True)
        .where(_m.send_at > now - _HISTORY, state.in_([*SENT, RETURNED]))
        .group_by(_m.journey, _m.channel, launches.c.audience)
    )


def _answered(*kinds: str) -> ColumnElement[bool]:
    """Whether there is such an event about the message."""
    about = events.c.properties["message_id"].as_string()
    return exists().where(
        events.c.profile_id == _m.profile_id,
        events.c.bucket == _m.bucket,
        events.c.name.in_([_m.channel + literal(f"_{kind}") for kind in kinds]),
        cast(about, Text) == cast(_m.id, Text),
    )


def _opened_after(now: Instant) -> Select[Any]:
    """Messages by channel and the time until they were first opened by a person."""
    about = events.c.properties["message_id"].as_string()
    first = (
        select(_m.channel, (func.min(events.c.occurred_at) - _m.send_at).label("after"))
        .join_from(
            messages,
            events,
            and_(
                events.c.profile_id == _m.profile_id,
                events.c.bucket == _m.bucket,
                events.c.name == _m.channel + literal("_opened"),
                cast(about, Text) == cast(_m.id, Text),
            ),
        )
        .where(_m.send_at > now - _HISTORY)
        .group_by(_m.id, _m.bucket, _m.channel, _m.send_at)
        .subquery()
    )
    return _in_units(first.c.channel, first.c.after)


def _bought_after(now: Instant) -> Select[Any]:
    """Converted enrollments by journey and the time since their first sent message."""
    first = (
        select(_e.journey, (_e.converted_at - func.min(_m.send_at)).label("after"))
        .join_from(
            enrollments,
            messages,
            and_(_m.enrollment_id == _e.id, _m.bucket == _e.bucket, _m.state.in_(SENT)),
        )
        .where(_e.entered_at > now - _HISTORY, _e.converted_at.is_not(None))
        .group_by(_e.id, _e.bucket, _e.journey, _e.converted_at)
        .subquery()
    )
    return _in_units(first.c.journey, first.c.after)


def _in_units(where: ColumnElement[str], after: ColumnElement[int]) -> Select[Any]:
    units = (after // _UNIT).label("units")
    return (
        select(where, units, func.count())
        .where(after >= 0, after < _LONGEST)
        .group_by(where, units)
    )


def _enrolled(now: Instant) -> Select[Any]:
    """The enrollments with a sent message, and how many converted."""
    written_to = exists().where(
        _m.enrollment_id == _e.id, _m.bucket == _e.bucket, _m.state.in_(SENT)
    )
    return (
        select(_e.journey, launches.c.audience, func.count(), func.count(_e.converted_at))
        .join_from(enrollments, launches, launches.c.id == _e.launch_id, isouter=True)
        .where(_e.entered_at > now - _HISTORY, written_to)
        .group_by(_e.journey, launches.c.audience)
    )
