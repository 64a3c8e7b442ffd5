"""Waits: for a duration, until a local time or weekday, and until a condition holds."""

from typing import Any

import pytest

from config.clock.times import DAY, HOUR, format_instant, parse_instant
from config.policy import Policy
from journeys.definition.steps import Step
from journeys.dsl import Email, OnEvent, Send, Update, Wait, WaitUntil, attribute, did
from tests.support.shop import MONDAY, House, described


@pytest.mark.parametrize(
    ("wait", "zone", "entered", "resumes"),
    [
        (Wait("36h"), "UTC", "2026-03-02T10:00:00Z", "2026-03-03T22:00:00Z"),
        # until a local time: today if it is still to come, or comes this second
        (Wait(time="12:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z"),
        (Wait(time="11:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(time="09:00"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-03T08:00:00Z"),
        (Wait(time="09:00"), "Asia/Tokyo", "2026-03-02T10:00:00Z", "2026-03-03T00:00:00Z"),
        # until a weekday: at once on such a day, else when it begins
        (Wait(days="mon"), "UTC", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        (Wait(days="sat"), "Europe/Berlin", "2026-03-02T10:00:00Z", "2026-03-06T23:00:00Z"),
        # both
        (
            Wait(time="09:00", days="mon-fri"),
            "UTC",
            "2026-03-06T18:00:00Z",
            "2026-03-09T09:00:00Z",
        ),
        (Wait(time="09:00", days="mon"), "UTC", "2026-03-02T09:00:01Z", "2026-03-09T09:00:00Z"),
        # the clock that is put forward has no 02:30 that day; put back, it has two
        (Wait(time="02:30"), "Europe/Berlin", "2026-03-28T23:30:00Z", "2026-03-29T01:00:00Z"),
        (Wait(time="02:30"), "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T00:30:00Z"),
        # between the two, the second is the next
        (Wait(time="02:30"), "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-25T01:30:00Z"),
        (Wait(time="09:00"), "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T07:00:00Z"),
        # a day is 24 hours, whatever the clocks do
        (Wait("1d"), "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
    ],
)
def test_waits(sqlite_house: House, wait: Step, zone: str, entered: str, resumes: str) -> None:
    house = sqlite_house
    house.open(described(wait, Update("u", x=1)))
    ann = house.customer(timezone=zone)
    house.db.now = parse_instant(entered)
    house.launch("j")
    house.until(parse_instant(resumes) + 30 * DAY)
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == resumes


@pytest.mark.parametrize(
    ("wait", "attribute", "entered", "resumes"),
    [
        (Wait(date="d"), "2026-03-10", "2026-03-02T10:00:00Z", "2026-03-09T23:00:00Z"),
        (
            Wait(date="d", time="09:00"),
            "2026-03-10T17:00:00Z",
            "2026-03-02T10:00:00Z",
            "2026-03-10T08:00:00Z",
        ),
        # three days before at the same local time, though the clocks change in between
        (
            Wait(date="d", time="09:00", before="3d"),
            "2026-03-30",
            "2026-03-02T10:00:00Z",
            "2026-03-27T08:00:00Z",
        ),
        (
            Wait(date="d", time="09:00", before="90m"),
            "2026-03-10",
            "2026-03-02T10:00:00Z",
            "2026-03-10T06:30:00Z",
        ),
        # and three days after it, though the date itself is over
        (
            Wait(date="d", time="09:00", after="3d"),
            "2026-03-28",
            "2026-03-28T20:00:00Z",
            "2026-03-31T07:00:00Z",
        ),
        (Wait(date="d", after="90m"), "2026-03-10", "2026-03-02T10:00:00Z", "2026-03-10T00:30:00Z"),
        (Wait(date="d", after="1d"), "2026-03-01", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        # what is over is not waited for
        (Wait(date="d"), "2026-03-01", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z"),
        # birthdays: this year's, next year's, in advance of next year's, on the day itself
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1990-07-01",
            "2026-03-02T10:00:00Z",
            "2026-07-01T07:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1990-01-05",
            "2026-03-02T10:00:00Z",
            "2027-01-05T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00", before="10d"),
            "1990-01-05",
            "2026-12-27T00:00:00Z",
            "2027-12-26T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="11:00"),
            "1990-03-02",
            "2026-03-02T10:00:00Z",
            "2026-03-02T10:00:00Z",
        ),
        # last year's has not been so long ago
        (
            Wait(date="d", yearly=True, after="10d", time="09:00"),
            "1990-12-27",
            "2027-01-02T10:00:00Z",
            "2027-01-06T08:00:00Z",
        ),
        # who was born on 29 February
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1992-02-29",
            "2026-03-02T10:00:00Z",
            "2027-02-28T08:00:00Z",
        ),
        (
            Wait(date="d", yearly=True, time="09:00"),
            "1992-02-29",
            "2027-03-02T10:00:00Z",
            "2028-02-29T08:00:00Z",
        ),
    ],
)
def test_waits_until_a_date_of_the_customers(
    sqlite_house: House, wait: Step, attribute: Any, entered: str, resumes: str
) -> None:
    house = sqlite_house
    house.open(described(wait, Update("u", x=1)))
    ann = house.customer(timezone="Europe/Berlin", attributes={"d": attribute})
    house.db.now = parse_instant(entered)
    house.launch("j")
    house.until(parse_instant(resumes) + 400 * DAY)
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == resumes


def test_a_wait_in_several_zones_is_over_in_all_of_them(house: House) -> None:
    house.open(described(Wait(days="tue"), Update("u", x=1)))
    ann = house.customer(timezone=None, country="AU", phone=None)
    house.db.now = parse_instant("2026-03-02T03:00:00Z")
    house.launch("j")
    house.later("3d")
    [person] = house.people(ann)
    # Tuesday has begun in Sydney for three hours when it does in Perth
    assert format_instant(person.ended_at) == "2026-03-02T16:00:00Z"


def test_a_date_counts_until_it_has_come_in_every_zone(house: House) -> None:
    """It is Wednesday in Sydney and still Tuesday in Perth: this Tuesday is over for them."""
    house.open(described(Wait(days="tue"), Update("u", x=1)))
    ann = house.customer(timezone=None, country="AU", phone=None)
    house.db.now = parse_instant("2026-03-03T14:00:00Z")
    house.launch("j")
    house.later("20d")
    [person] = house.people(ann)
    assert format_instant(person.ended_at) == "2026-03-09T16:00:00Z"


def test_two_day_waits_across_the_change_of_clocks(house: House) -> None:
    """Mon-Fri 9-17 in Berlin: Thu 18:00 CET + 2 days is closed, so Monday 09:00 CEST."""
    hours_of_work = [{"days": "mon-fri", "from": "09:00", "to": "17:00"}]
    policy = Policy.model_validate({"channels": {"email": {"windows": hours_of_work}}})
    steps = (Wait("2d"), Send("s", Email("hello")), Wait("2d", "w"), Send("t", Email("offer")))
    house.open(described(*steps), policy=policy)
    house.customer(timezone="Europe/Berlin")
    house.db.now = parse_instant("2026-03-26T17:00:00Z")
    house.launch("j")
    house.later("10d")
    assert [(one.state, one.send_at) for one in house.outbox()] == [
        ("sent", "2026-03-30T07:00:00Z"),
        ("sent", "2026-04-01T07:00:00Z"),
    ]


WAITING = WaitUntil(
    "w",
    did("came") | (attribute("vip") == "yes"),
    timeout="2d",
    then=[Update("yes", came=True)],
    on_timeout=[Update("no", came=False)],
)


def test_wait_until(house: House) -> None:
    house.open(described(Wait("1h"), WAITING))
    before, during, late, never, vip, becomes = (house.customer() for _ in range(6))
    house.change(vip, vip="yes")
    house.launch("j")
    house.did(before, "came")  # before the wait began: that does not count
    house.later("2h")
    house.did(during, "came")
    house.run()
    house.change(becomes, vip="yes")
    house.did(becomes, "profile_changed")
    house.later("2d")
    house.did(late, "came")
    house.later("1d")
    ended = {person.profile_id: person.ended_at - MONDAY for person in house.people()}
    came = {person: house.attributes(person)["came"] for person in ended}
    assert came == {
        before: False,
        during: True,
        late: False,
        never: False,
        vip: True,
        becomes: True,
    }
    over = HOUR + 2 * DAY
    assert ended == {
        before: over,
        during: 2 * HOUR,
        late: over,
        never: over,
        vip: HOUR,
        becomes: 2 * HOUR,
    }


def test_the_entry_event_does_not_end_the_wait_that_follows(house: House) -> None:
    until_again = WaitUntil("again", did("viewed"), timeout="1d", then=[Update("u", again=True)])
    house.open(described(until_again, entry=OnEvent("viewed")))
    ann, bob = house.customer(), house.customer()
    house.did(ann, "viewed")
    house.did(bob, "viewed")
    house.run()
    assert [person.ended_at for person in house.people()] == [None, None]
    house.did(bob, "viewed")
    house.run()
    assert house.attributes(bob) == {"again": True}
    house.later("2d")
    assert house.attributes(ann) == {}
