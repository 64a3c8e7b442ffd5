"""The days that a report is about, and the weeks in it, in a time zone."""

from datetime import date, datetime, timedelta
from typing import NamedTuple

from config.clock.times import LATEST, Instant
from config.clock.zones import zone as zone_of
from config.errors import SegueError


class ReportPeriod(NamedTuple):
    """Whole days in a time zone, both included; None: no limit on that side.

    first_weekday: of weeks, Monday 0.
    """

    first: date | None
    last: date | None
    zone: str
    first_weekday: int = 0

    @property
    def since(self) -> Instant:
        """The beginning of the first day."""
        return 0 if self.first is None else self._begin(self.first)

    @property
    def until(self) -> Instant:
        """The end of the last day, exclusive."""
        return LATEST if self.last is None else self._begin(self.last + timedelta(days=1))

    @property
    def is_limited(self) -> bool:
        """Whether a day is given."""
        return self.first is not None or self.last is not None

    @property
    def text(self) -> str:
        """The period for people, with the zone of its days."""
        if not self.is_limited:
            return "ever"
        begin = "" if self.first is None else f"from {self.first} "
        end = "until now" if self.last is None else f"to {self.last}"
        return f"{begin}{end} ({self.zone})"

    def week_of(self, instant: Instant) -> str:
        """The first day of the week of an instant, ISO 8601."""
        day = datetime.fromtimestamp(instant, zone_of(self.zone)).date()
        return (day - timedelta(days=(day.weekday() - self.first_weekday) % 7)).isoformat()

    def _begin(self, day: date) -> Instant:
        # A midnight that a clock change skips is read with the offset before it: the first instant.
        begins = datetime.combine(day, datetime.min.time(), zone_of(self.zone)).timestamp()
        return max(0, int(begins))


def ever(zone: str) -> ReportPeriod:
    """The period without limits."""
    return ReportPeriod(first=None, last=None, zone=zone)


def period_of(
    first: str | None, last: str | None, zone: str, now: Instant, first_weekday: int = 0
) -> ReportPeriod:
    """The period from two dates as YYYY-MM-DD. Raises SegueError that names the wrong one."""
    period = ReportPeriod(
        first=_date("--from", first),
        last=_date("--to", last),
        zone=zone,
        first_weekday=first_weekday,
    )
    if period.first and period.last and period.first > period.last:
        raise SegueError(f"--from {first} is after --to {last}: exchange them")
    if period.since > now:
        today = datetime.fromtimestamp(now, zone_of(zone)).date()
        raise SegueError(f"--from {first} is in the future: today is {today} in {zone}")
    return period


def _date(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  a date has no zone
    except ValueError:
        raise SegueError(f"{option}: {text!r} is not a date; write it like 2026-03-31") from None
    if not 1970 < day.year < 3000:
        raise SegueError(f"{option}: {text!r} is not between the years 1971 and 2999")
    return day
