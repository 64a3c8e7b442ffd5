"""The days of a report are those of a time zone, and wrong ones are refused with the reason."""

from datetime import date

import pytest

from config.clock.times import LATEST, format_instant, parse_instant
from config.errors import SegueError
from journeys.analytics.reports.period import ReportPeriod, period_of

NOW = parse_instant("2026-04-10T10:00:00Z")


def test_both_days_are_part_of_the_period() -> None:
    period = period_of("2026-03-28", "2026-03-29", "Europe/London", NOW)
    assert format_instant(period.since) == "2026-03-28T00:00:00Z"
    assert format_instant(period.until) == "2026-03-29T23:00:00Z", "clocks went forward"
    assert period.text == "from 2026-03-28 to 2026-03-29 (Europe/London)"


def test_a_day_without_midnight_begins_with_its_first_instant() -> None:
    # Lebanon's clocks go from 00:00 to 01:00.
    period = period_of("2026-03-29", None, "Asia/Beirut", NOW)
    assert format_instant(period.since) == "2026-03-28T22:00:00Z"
    assert period.text == "from 2026-03-29 until now (Asia/Beirut)"


def test_without_days_everything_counts() -> None:
    period = period_of(None, None, "UTC", NOW)
    assert (period.since, period.until) == (0, LATEST)
    assert not period.is_limited
    assert period.text == "ever"
    assert period_of(None, "2026-01-31", "UTC", NOW).text == "to 2026-01-31 (UTC)"


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        ("2026-04-02", "2026-04-01", "--from 2026-04-02 is after --to 2026-04-01: exchange them"),
        ("2026-02-30", None, "--from: '2026-02-30' is not a date; write it like 2026-03-31"),
        (None, "March", "--to: 'March' is not a date; write it like 2026-03-31"),
        ("1066-10-14", None, "--from: '1066-10-14' is not between the years 1971 and 2999"),
        ("2026-04-11", None, "--from 2026-04-11 is in the future: today is 2026-04-10 in UTC"),
    ],
)
def test_wrong_days_are_refused(first: str | None, last: str | None, why: str) -> None:
    with pytest.raises(SegueError) as refused:
        period_of(first, last, "UTC", NOW)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    ("first_weekday", "week"), [(0, "2026-03-30"), (6, "2026-04-05"), (5, "2026-04-04")]
)
def test_weeks_begin_on_the_configured_day(first_weekday: int, week: str) -> None:
    period = ReportPeriod(first=None, last=None, zone="Europe/London", first_weekday=first_weekday)
    # Sunday 23:30 in UTC is Monday in London, in summer.
    assert period.week_of(parse_instant("2026-04-05T22:30:00Z")) == week
    assert period.week_of(parse_instant("2026-04-05T23:30:00Z")) == {0: "2026-04-06"}.get(
        first_weekday, week
    )


def test_a_period_is_a_value() -> None:
    assert ReportPeriod(date(2026, 1, 1), None, "UTC") == period_of("2026-01-01", None, "UTC", NOW)
