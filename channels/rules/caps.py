"""Frequency caps: whether one more message fits, and the earliest time at which it could fit.

Only send times matter here. Messages that are planned or sent are *fixed*; the members of the group
being decided are *moving*: each is at its offset from the common anchor.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from channels.rules.windows import start_of_day
from config.channels import ChannelName
from config.clock.times import DAY, Instant, Seconds, format_instant
from config.clock.zones import zone
from config.policy import Cap

# No time fits: the cap is 0, or the group itself exceeds it.
NEVER: Instant = 1 << 62


class Counted(NamedTuple):
    """A message that counts against caps."""

    send_at: Instant
    channel: ChannelName
    kind: str
    topic: str


def counts(cap: Cap, message: Counted) -> bool:
    """Whether the message counts against this cap."""
    return (
        message.channel in cap.channels
        and (cap.topic is None or cap.topic == message.topic)
        and (message.kind == "marketing" or cap.counts == "all")
    )


def reach(caps: Iterable[Cap]) -> Seconds:
    """The longest period of these caps in seconds; messages further away do not matter."""
    calendar = {"day": 2 * DAY, "week": 9 * DAY, "month": 33 * DAY}
    return max((cap.within or calendar[cap.per or "day"] for cap in caps), default=0)


def period_of(
    at: Instant, per: str, zone_name: str, first_weekday: int
) -> tuple[Instant, Instant, date]:
    """The calendar day, week or month of an instant: start, end (exclusive) and first day."""
    day = datetime.fromtimestamp(at, zone(zone_name)).date()
    if at < start_of_day(day, zone_name):
        day -= timedelta(days=1)
    if per == "day":
        first, following = day, day + timedelta(days=1)
    elif per == "week":
        first = day - timedelta(days=(day.weekday() - first_weekday) % 7)
        following = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
    return start_of_day(first, zone_name), start_of_day(following, zone_name), first


class Count(NamedTuple):
    """One cap with the fixed messages of one recipient that count against it.

    fixed: their send times, sorted.
    """

    cap: Cap
    fixed: Sequence[Instant]
    zones: Sequence[str]
    first_weekday: int

    def blocked_until(
        self, anchor: Instant, offset: Seconds, moving: Sequence[Seconds]
    ) -> Instant | None:
        """None if one more message fits at anchor + offset.

        Otherwise NEVER, or a lower bound for the anchors at which it can fit.

        Parameters
        ----------
        moving: offsets of the group's other members that count against this cap.
        """
        limit = self.cap.limit
        if len(self.fixed) + len(moving) < limit:
            return None
        if limit == 0:
            return NEVER
        if self.cap.within is not None:
            return self._rolling(anchor, offset, moving, self.cap.within)
        bounds = [
            end - max([offset, *(o for o in moving if start <= anchor + o < end)])
            for start, end, used in self._periods(anchor, offset, moving)
            if used >= limit
        ]
        return max(bounds, default=None)

    def _periods(
        self, anchor: Instant, offset: Seconds, moving: Sequence[Seconds]
    ) -> Iterator[tuple[Instant, Instant, int]]:
        assert self.cap.per is not None
        for name in self.zones:
            start, end, _ = period_of(anchor + offset, self.cap.per, name, self.first_weekday)
            used = bisect_left(self.fixed, end) - bisect_left(self.fixed, start)
            yield start, end, used + sum(start <= anchor + o < end for o in moving)

    def _rolling(
        self, anchor: Instant, offset: Seconds, moving: Sequence[Seconds], within: Seconds
    ) -> Instant | None:
        bounds = [
            # The run no longer fits into one period when its last moving message is `within` after
            # its first fixed one.
            anchor + first_fixed + within - last_moving if first_fixed is not None else NEVER
            for first_fixed, last_moving in self._full_runs(anchor, offset, moving, within)
        ]
        return max(bounds, default=None)

    def _full_runs(
        self, anchor: Instant, offset: Seconds, moving: Sequence[Seconds], within: Seconds
    ) -> Iterator[tuple[Instant | None, Instant]]:
        """The runs of `limit` consecutive messages that fit into one period with the new one.

        Yields the first fixed and the last moving time of each run.
        """
        at, limit = anchor + offset, self.cap.limit
        near = self.fixed[
            bisect_right(self.fixed, at - within) : bisect_left(self.fixed, at + within)
        ]
        others = [(t, False) for t in near]
        others += [(anchor + o, True) for o in moving if abs(o - offset) < within]
        if len(others) < limit:
            return
        others.sort()
        place = bisect_left(others, (at, False))
        moved = [anchor + o for o in moving]
        for first in range(max(0, place - limit), min(place, len(others) - limit) + 1):
            last = first + limit - 1
            start, end = others[first][0], others[last][0]
            if max(end, at) - min(start, at) < within:
                # By index: a slice would copy the run, which may be long.
                places = range(first, last + 1)
                first_fixed = next((others[i][0] for i in places if not others[i][1]), None)
                yield first_fixed, max([at, *(t for t in moved if start <= t <= end)])

    def describe(self, anchor: Instant, offset: Seconds, moving: Sequence[Seconds]) -> str:
        """The cap and its count for a message at anchor + offset, as text."""
        at = anchor + offset
        if self.cap.within is None:
            used, name, start = max(
                (used, name, start)
                for name, (start, _, used) in zip(
                    self.zones, self._periods(anchor, offset, moving), strict=True
                )
            )
            since = datetime.fromtimestamp(start, zone(name)).date()
            return f"{self.cap}: {used} in the {self.cap.per} from {since} ({name})"
        low = bisect_right(self.fixed, at - self.cap.within)
        used = bisect_left(self.fixed, at + self.cap.within) - low
        used += sum(abs(o - offset) < self.cap.within for o in moving)
        return f"{self.cap}: {used} around {format_instant(at)}"
