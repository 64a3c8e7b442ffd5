"""Instants and durations, in whole seconds.

An instant is an `int`, seconds since 1970-01-01T00:00:00Z, in the program and in the database:
SQLite has no type with a zone, and integers compare and add in the same way on all engines. ISO
8601 is used only in files, HTTP and the command line.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

Instant = int
Seconds = int

MINUTE: Seconds = 60
HOUR: Seconds = 3600
DAY: Seconds = 86400

_UNITS: dict[str, Seconds] = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
# Fractions of a second beyond microseconds, which some languages print.
_BELOW_MICROSECONDS = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_LONGEST_MOMENT = 100
_EDGE = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Times outside this range are refused as errors in the input.
EARLIEST: Instant = 0
LATEST: Instant = int(datetime(3000, 1, 1, tzinfo=UTC).timestamp())
LONGEST: Seconds = 3660 * DAY


def parse_instant(text: object) -> Instant:
    """Parse an ISO 8601 date and time with a zone (`2026-03-02T04:30:00Z`).

    A fraction of a second is rounded up. Raises ValueError.
    """
    try:
        moment = text if isinstance(text, datetime) else _parsed(text)
    except ValueError:
        shown = text[:_LONGEST_MOMENT] if isinstance(text, str) else text
        raise ValueError(
            f"{shown!r} is not a date and time; write it like 2026-03-02T04:30:00Z"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; end it with Z or an offset such as +01:00")
    since = moment - _EPOCH
    fraction = since.microseconds or (isinstance(text, str) and _BELOW_MICROSECONDS.search(text))
    instant = since.days * DAY + since.seconds + bool(fraction)
    if not EARLIEST <= instant < LATEST:
        raise ValueError(f"{text!r} is not between the years 1970 and 3000")
    return instant


def _parsed(text: object) -> datetime:
    if not isinstance(text, str) or len(text) > _LONGEST_MOMENT:
        raise ValueError
    return datetime.fromisoformat(text)


def format_instant(instant: Instant) -> str:
    """Format as ISO 8601 in UTC with a Z."""
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


def parse_date(value: object) -> date | None:
    """Parse a calendar date: ISO 8601 `YYYY-MM-DD`, alone or followed by a time of day.

    The zone of the time is ignored. None for all other values, such as other orders and separators,
    two-digit years, numbers and dates that do not exist.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_MOMENT:
        return None
    text = value.strip()
    if not _DATE.match(text):
        return None
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        return None


def add_days(day: date, number: int) -> date:
    """The date `number` days later, limited to the calendar (years 1 to 9999).

    The result is at least two days from both ends, so that each of its times is valid in all zones.
    """
    ordinal = day.toordinal() + number
    first, last = date.min.toordinal() + _EDGE, date.max.toordinal() - _EDGE
    return date.fromordinal(min(max(ordinal, first), last))


def parse_duration(value: Any) -> Seconds:
    """Parse `<integer><s|m|h|d>` ("90s", "2h") or a timedelta of whole seconds, to seconds."""
    if isinstance(value, timedelta):
        if value < timedelta(0) or value.microseconds:
            raise ValueError(f"a duration is a positive number of whole seconds, not {value}")
        return int(value.total_seconds())
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write a number and s, m, h or d, as in 90m")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST:
        raise ValueError(f"{value!r} is longer than ten years")
    return seconds


def format_duration(seconds: Seconds) -> str:
    """The shortest `<integer><s|m|h|d>` for a duration: 7200 -> "2h"."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def format_rounded(seconds: Seconds) -> str:
    """A duration rounded up to minutes, and to hours from two days on: 14399 -> "4h"."""
    unit = HOUR if seconds >= 48 * HOUR else MINUTE
    hours, minutes = divmod(-(-seconds // unit) * unit // MINUTE, 60)
    return f"{hours}h {minutes}m" if hours and minutes else f"{hours}h" if hours else f"{minutes}m"


# A duration as written in a journey ("2h", or a timedelta); seconds in the program.
Duration = Annotated[
    Seconds, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)
]


def days(number: int) -> timedelta:
    """`number` times 24 hours."""
    return timedelta(days=number)


def hours(number: int) -> timedelta:
    """`number` hours."""
    return timedelta(hours=number)


def minutes(number: int) -> timedelta:
    """`number` minutes."""
    return timedelta(minutes=number)
