"""Calendar quarters and years in the brand's time zone."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from channels.rules.windows import resolve
from config.clock.times import Instant


class Period(NamedTuple):
    """A quarter or a year: its name, its start, and its end, which does not belong to it."""

    name: str
    start: Instant
    end: Instant


def periods(since: Instant, until: Instant, zone: ZoneInfo) -> list[Period]:
    """The quarters that overlap [since, until], then the years; each in order."""
    return [*_steps(since, until, zone, months=3), *_steps(since, until, zone, months=12)]


def _steps(since: Instant, until: Instant, zone: ZoneInfo, *, months: int) -> Iterator[Period]:
    local = datetime.fromtimestamp(since, zone)
    first = date(local.year, (local.month - 1) // months * months + 1, 1)
    while (start := resolve(first, 0, zone)) <= until:
        following = first.month + months
        after = date(first.year + (following > 12), (following - 1) % 12 + 1, 1)
        name = f"{first.year}" if months == 12 else f"{first.year} Q{first.month // 3 + 1}"
        yield Period(name=name, start=start, end=resolve(after, 0, zone))
        first = after
