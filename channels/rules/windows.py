"""The open hours of a channel for a recipient: windows of local time as intervals of instants.

Exact to the second. When the clocks change, an edge in a gap is the first instant after the gap; of
an edge that happens twice, the first occurrence opens and the second closes. With several zones the
channel is open only while it is open in all of them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from config.clock.times import DAY, Instant, Seconds
from config.clock.zones import zone
from config.policy import Window

Interval = tuple[Instant, Instant]  # half-open
_BLOCK: Seconds = 14 * DAY
_EPOCH = date(1970, 1, 1)


def resolve(day: date, time_of_day: Seconds, tz: ZoneInfo, *, second: bool = False) -> Instant:
    """The instant of a local wall time on a day.

    If the time happens twice, it is the first occurrence, or the second if `second`. If it does not
    happen, it is the first instant after the gap.
    """
    wall = datetime.combine(day, time.min) + timedelta(seconds=time_of_day)
    naive = int(wall.replace(tzinfo=UTC).timestamp())
    before = naive - _offset(wall.replace(tzinfo=tz, fold=0))
    after = naive - _offset(wall.replace(tzinfo=tz, fold=1))
    if before <= after:
        return after if second else before
    # A gap: the clocks change in (after, before].
    low, high = after, before
    new_offset = _offset(datetime.fromtimestamp(high, tz))
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, tz)) == new_offset:
            high = middle
        else:
            low = middle
    return high


def _offset(local: datetime) -> Seconds:
    offset = local.utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


@lru_cache(maxsize=65536)
def start_of_day(day: date, zone_name: str) -> Instant:
    """The first instant of a local day.

    If the clocks go back over midnight (in Newfoundland at 00:01, until 2010) it is the second
    midnight, so that each day is one interval.
    """
    tz = zone(zone_name)
    first, second = resolve(day, 0, tz), resolve(day, 0, tz, second=True)
    if second > first and datetime.fromtimestamp(second - 1, tz).date() < day:
        return second
    return first


class OpeningHours:
    """The open hours of one channel for recipients in the same zones.

    Intervals are computed on demand in blocks of 14 days, and cached.

    Parameters
    ----------
    windows: the channel's windows; None: always open.
    zones: IANA names, at least one.
    own: the hours that the recipient chose, which apply in addition.
    """

    def __init__(
        self,
        windows: Sequence[Window] | None,
        zones: Sequence[str],
        own: Window | None = None,
    ) -> None:
        # Open while each of these sets has an open window, in each zone.
        self._windows: list[Sequence[Window]] = [] if windows is None else [windows]
        if own is not None:
            self._windows.append([own])
        self._zones = [zone(name) for name in zones]
        self._blocks: dict[int, tuple[list[Instant], list[Instant]]] = {}
        self._asked: dict[tuple[Instant, Instant], Instant | None] = {}

    def next_open(self, wanted: Instant, latest: Instant) -> Instant | None:
        """The earliest open instant in [wanted, latest]; None if there is none."""
        if not self._windows:
            return wanted if wanted <= latest else None
        # Cached, because all profiles of a cohort have the same `wanted`.
        key = (wanted, latest)
        if key not in self._asked:
            if len(self._asked) > 4096:
                self._asked.clear()
            self._asked[key] = self._search(wanted, latest)
        return self._asked[key]

    def closes(self, opened: Instant) -> Instant | None:
        """The end of the open interval that contains `opened`; None if always open."""
        if not self._windows:
            return None
        for number in range(opened // _BLOCK, opened // _BLOCK + 3):
            starts, ends = self._block(number)
            place = bisect_right(starts, opened) - 1
            if place < 0 or opened >= ends[place]:
                return opened
            opened = ends[place]
            if opened < (number + 1) * _BLOCK:
                return opened
        return opened

    def _search(self, wanted: Instant, latest: Instant) -> Instant | None:
        for number in range(wanted // _BLOCK, latest // _BLOCK + 1):
            starts, ends = self._block(number)
            place = bisect_right(ends, wanted)  # the first interval that ends after `wanted`
            if place < len(starts):
                found = max(wanted, starts[place])
                return found if found <= latest else None
        return None

    def _block(self, number: int) -> tuple[list[Instant], list[Instant]]:
        block = self._blocks.get(number)
        if block is None:
            begin, end = number * _BLOCK, (number + 1) * _BLOCK
            opened = [(begin, end)]
            for tz in self._zones:
                for windows in self._windows:
                    opened = _intersect(opened, _union(_open_in(windows, tz, number)))
            block = ([start for start, _ in opened], [stop for _, stop in opened])
            self._blocks[number] = block
        return block


@lru_cache(maxsize=4096)
def _days(number: int, tz: ZoneInfo) -> list[tuple[int, Seconds | None]]:
    """The local days that may overlap a block, each with its UTC offset.

    Days are counted from 1970-01-01. The offset is None if the clocks change near the day. It is
    read once a day, because no zone changes twice within a day.
    """
    first, last = number * _BLOCK // DAY - 3, (number + 1) * _BLOCK // DAY + 3
    midnights = range(first - 1, last + 4)
    offsets = [_offset(datetime.fromtimestamp(day * DAY, tz)) for day in midnights]
    return [
        (day, offsets[place] if len(set(offsets[place : place + 4])) == 1 else None)
        for place, day in enumerate(range(first, last + 2))
    ]


def _open_in(windows: Sequence[Window], tz: ZoneInfo, number: int) -> Iterable[Interval]:
    for (day, offset), (following, next_offset) in pairwise(_days(number, tz)):
        weekday = (day + _EPOCH.weekday()) % 7
        for window in windows:
            if weekday in window.days:
                opens = _edge(day, window.opens, offset, tz)
                if window.closes < window.opens:
                    closes = _edge(following, window.closes, next_offset, tz, second=True)
                else:
                    closes = _edge(day, window.closes, offset, tz, second=True)
                if opens < closes:
                    yield opens, closes


def _edge(
    day: int, time_of_day: Seconds, offset: Seconds | None, tz: ZoneInfo, *, second: bool = False
) -> Instant:
    if offset is not None:
        return day * DAY + time_of_day - offset
    return resolve(_EPOCH + timedelta(days=day), time_of_day, tz, second=second)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _intersect(left: list[Interval], right: list[Interval]) -> list[Interval]:
    found: list[Interval] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            found.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return found
