"""Waits until a date of the profile: readable dates, and profiles without one."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.rules.windows import resolve
from config.clock.times import DAY, LONGEST, add_days, format_instant, parse_date, parse_instant
from config.clock.zones import zone, zone_names
from flows.orchestration.pages.picture import mermaid
from journeys.definition.steps import Step
from journeys.dsl import Update, Wait
from tests.support.shop import MONDAY, House, described

UNREADABLE: list[Any] = [
    None,
    "",
    "  ",
    "soon",
    "1990",
    "--05-04",
    "05/04/1990",
    "04.05.1990",
    "0000-00-00",
    "1990-02-30",
    "1990-5-4",
    "90-05-04",
    "1990-05-04 or so",
    "1990-05-04T25:00",
    "１９９０-05-04",
    20231301,
    19900504,
    641779200.0,
    True,
    ["1990-05-04"],
    {"date": "1990-05-04"},
    "1990-05-04" * 100,
]


@pytest.mark.parametrize("value", UNREADABLE)
def test_values_that_are_not_dates_are_refused(value: Any) -> None:
    assert parse_date(value) is None


@pytest.mark.parametrize(
    "text", ["1990-05-04", " 1990-05-04 ", "1990-05-04T23:59:59-11:00", "1990-05-04 10:00"]
)
def test_a_date_is_taken_as_it_is_written(text: str) -> None:
    assert parse_date(text) == date(1990, 5, 4)


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("yearly", [False, True])
def test_without_a_readable_date_people_leave(
    sqlite_house: House, value: Any, yearly: bool
) -> None:
    house = sqlite_house
    house.open(described(Wait(date="d", yearly=yearly, name="w"), Update("u", reached=True)))
    ann = house.customer(attributes={"d": value} if value is not None else {})
    house.launch("j")
    [person] = house.people(ann)
    assert (person.ended_at, person.end_reason) == (MONDAY, "no_date")
    assert house.passed(ann) == [("w", "no_date")]
    assert "reached" not in house.attributes(ann)


def test_the_missing_steps_are_for_people_without_a_date(house: House) -> None:
    wait = Wait(date="d", name="w", missing=[Update("asked", asked=True)])
    house.open(described(wait, Update("u", reached=True)))
    ann, bob = house.customer(attributes={"d": "2026-03-10"}), house.customer()
    house.launch("j")
    assert house.attributes(bob) == {"asked": True, "reached": True}
    assert house.passed(bob) == [("w", "missing"), ("asked", "next"), ("u", "next")]
    house.later("10d")
    assert house.attributes(ann) == {"d": "2026-03-10", "reached": True}
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_the_missing_steps_are_in_the_picture() -> None:
    journey = described(Wait(date="d", name="w", missing=[Update("ask", asked=True)]))
    assert '  s0 -->|"missing"| s1' in mermaid(journey).splitlines()


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        (lambda: Wait("1d", missing=[Update("u", x=1)]), "missing belongs to a wait until a date"),
        (lambda: Wait(date="d", missing=[]), "at least 1 item"),
    ],
)
def test_missing_belongs_to_a_date(wait: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wait()


@pytest.mark.parametrize("value", ["0001-01-01", "0001-12-31", "9999-12-31", "9998-02-28"])
@pytest.mark.parametrize(
    "wait",
    [
        Wait(date="d", time="23:59"),
        Wait(date="d", before="3650d"),
        Wait(date="d", after="3650d", time="00:00"),
        Wait(date="d", yearly=True, before="300d"),
        Wait(date="d", yearly=True, after="300d", time="23:59"),
    ],
)
@pytest.mark.parametrize("zone_name", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_years_1_to_9999_are_accepted(
    sqlite_house: House, value: str, wait: Step, zone_name: str
) -> None:
    house = sqlite_house
    house.open(described(wait, Update("u", x=1)))
    ann = house.customer(timezone=zone_name, attributes={"d": value})
    house.launch("j")
    [person] = house.people(ann)
    if person.ended_at is None:
        assert person.due_at > MONDAY
        assert parse_date(format_instant(person.due_at)[:10]) is not None
    else:
        assert person.end_reason == "completed"
        assert value.startswith("0001")


@given(
    st.dates(),
    st.integers(-2 * LONGEST // DAY, 2 * LONGEST // DAY),
    st.sampled_from(sorted(zone_names())),
    st.integers(0, DAY),
)
def test_no_date_leaves_the_calendar(day: date, ahead: int, name: str, time: int) -> None:
    moved = add_days(day, ahead)
    exact = day.toordinal() + ahead
    inside = date.min.toordinal() + 2 <= exact <= date.max.toordinal() - 2
    assert not inside or moved == day + timedelta(days=ahead)
    instant = resolve(moved, time, zone(name))
    assert abs(instant - resolve(moved, time, zone("UTC"))) < 2 * DAY
    assert format_instant(instant)[4] == "-"


def test_a_removed_date_does_not_end_the_wait(house: House) -> None:
    """An enrollment that already waits continues at the time that was read."""
    house.open(described(Wait(date="d"), Update("u", x=1)))
    ann = house.customer(attributes={"d": "2026-03-10"})
    house.launch("j")
    house.change(ann, d="")
    house.later("20d")
    [person] = house.people(ann)
    assert person.ended_at == parse_instant("2026-03-10T00:00:00Z")
