"""Cells as numbers, dates and times, in the spellings of several countries."""

from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.imports.values import (
    Style,
    read_boolean,
    read_date,
    read_integer,
    read_moment,
    read_number,
)

POINT, COMMA = Style(decimal="."), Style(decimal=",")
DAY, MONTH = Style(date_order="day-first"), Style(date_order="month-first")


@pytest.mark.parametrize(
    ("text", "style", "value"),
    [
        ("1234.5", POINT, 1234.5),
        ("1,234.5", POINT, 1234.5),
        ("1 234,5", COMMA, 1234.5),
        ("1\u202f234,5", COMMA, 1234.5),
        ("1.234,5", COMMA, 1234.5),
        ("1'234.50", POINT, 1234.5),
        ("1’234’567.5", POINT, 1234567.5),
        ("1.234.567", COMMA, 1234567.0),
        ("1.234", COMMA, 1234.0),
        ("1.234", POINT, 1.234),
        ("-0,5", COMMA, -0.5),
        (",5", COMMA, 0.5),
        ("5.", POINT, 5.0),
        ("1e3", POINT, 1000.0),
    ],
)
def test_a_number_is_read_in_the_style_of_its_column(text: str, style: Style, value: float) -> None:
    assert read_number(text, style) == value


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("1.5", COMMA),
        ("1,5", POINT),
        ("12,34.5", POINT),
        ("1,23,456", POINT),
        ("1,234 567", POINT),
        ("0,123", POINT),
        ("1,2,3", COMMA),
        ("", POINT),
        (".", POINT),
        ("-", POINT),
        ("£5", POINT),
        ("1 2", POINT),
        ("nan", POINT),
        ("inf", POINT),
        ("1e999", POINT),
        ("١", POINT),
    ],
)
def test_text_that_is_no_number_in_the_style_is_refused(text: str, style: Style) -> None:
    with pytest.raises(ValueError, match=r"is not a (finite )?number"):
        read_number(text, style)


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_what_python_writes_with_groups_is_read_back(whole: int, thousandths: int) -> None:
    english = f"{whole:,}.{thousandths:03}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert read_number(german, COMMA) == read_number(english, POINT)
    assert read_number(english, POINT) == float(f"{whole}.{thousandths:03}")
    assert read_integer(f"{whole:,}", POINT) == whole


def test_a_whole_number_keeps_all_its_digits() -> None:
    assert read_integer("9007199254740993", POINT) == 9007199254740993
    assert read_integer("9.007.199.254.740.993", COMMA) == 9007199254740993
    for text in ("1.5", "1.0", "1e3", "many", "99999999999999999999"):
        with pytest.raises(ValueError):
            read_integer(text, POINT)


@pytest.mark.parametrize(
    ("text", "style", "day"),
    [
        ("2024-04-03", MONTH, "2024-04-03"),
        ("2024/4/3", MONTH, "2024-04-03"),
        ("2024.04.03", DAY, "2024-04-03"),
        ("03/04/2024", DAY, "2024-04-03"),
        ("03/04/2024", MONTH, "2024-03-04"),
        ("3.4.2024", DAY, "2024-04-03"),
        ("4-3-2024", MONTH, "2024-04-03"),
        ("03.04.2024 00:00:00", DAY, "2024-04-03"),
    ],
)
def test_a_date_is_read_in_the_style_of_its_column(text: str, style: Style, day: str) -> None:
    assert read_date(text, style) == day


@pytest.mark.parametrize(
    ("text", "style", "why"),
    [
        ("25/12/2024", MONTH, "month first"),
        ("12/25/2024", DAY, "day first"),
        ("31.02.2024", DAY, "no year has this day"),
        ("03/04/24", DAY, "four digits"),
        ("03/04.2024", DAY, "write it like 2026-03-02"),
        ("3 April 2024", DAY, "write it like 2026-03-02"),
        ("45385", DAY, "a spreadsheet's number of a day"),
        ("03.04.2024 13:30", DAY, 'give the column the type "time"'),
    ],
)
def test_text_that_is_no_date_in_the_style_is_refused(text: str, style: Style, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_date(text, style)


@given(st.dates())
def test_every_day_is_read_back_in_both_orders(day: date) -> None:
    year = f"{day.year:04}"
    assert read_date(f"{day.day}.{day.month}.{year}", DAY) == day.isoformat()
    assert read_date(f"{day.month:02}/{day.day:02}/{year}", MONTH) == day.isoformat()


@pytest.mark.parametrize(
    ("text", "style", "moment"),
    [
        ("2026-03-02T04:30:00", DAY, datetime(2026, 3, 2, 4, 30)),  # noqa: DTZ001
        ("02.03.2026 4:30", DAY, datetime(2026, 3, 2, 4, 30)),  # noqa: DTZ001
        ("03/02/2026 12:05 AM", MONTH, datetime(2026, 3, 2, 0, 5)),  # noqa: DTZ001
        ("3/2/2026 4:30:07 p.m.", MONTH, datetime(2026, 3, 2, 16, 30, 7)),  # noqa: DTZ001
        ("2026/03/02 04:30:00.5", DAY, datetime(2026, 3, 2, 4, 30, 0, 500_000)),  # noqa: DTZ001
        ("02/03/2026", DAY, datetime(2026, 3, 2)),  # noqa: DTZ001
        (
            "02/03/2026 04:30 +01:00",
            DAY,
            datetime(2026, 3, 2, 4, 30, tzinfo=timezone(timedelta(hours=1))),
        ),
    ],
)
def test_a_time_is_read_in_the_style_of_its_column(
    text: str, style: Style, moment: datetime
) -> None:
    assert read_moment(text, style) == moment


@pytest.mark.parametrize("text", ["02/03/2026 25:00", "02/03/2026 13:00 PM", "noon", "46083.1875"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date and time"):
        read_moment(text, DAY)


def test_yes_and_no_in_several_languages() -> None:
    for word in ("yes", "1", "JA", "wahr", "Oui", "VRAI", "sí", "Verdadero"):
        assert read_boolean(word) is True
    for word in ("no", "0", "Nein", "FALSCH", "non", "Faux", "falso"):
        assert read_boolean(word) is False
    with pytest.raises(ValueError, match="neither yes nor no"):
        read_boolean("vielleicht")
