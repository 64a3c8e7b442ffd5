"""Conversions have the time of the event that made them, whenever it comes and is counted."""

from collections.abc import Mapping

from config.clock.times import DAY, HOUR, Instant
from config.database.engine import Database
from journeys.analytics.reports.figures import By, JourneyReport
from journeys.analytics.reports.period import ReportPeriod
from journeys.analytics.reports.report import report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.dsl import SMS, Email, Goal, Send, Wait, days, did
from tests.support.shop import MONDAY, House, described

WEEK = 7 * DAY


def converted(house: House) -> Mapping[int, Instant | None]:
    return {person.profile_id: person.converted_at for person in house.people()}


def test_the_time_of_the_event_that_reached_the_goal(house: House) -> None:
    goal = Goal(did=did("bought", at_least=2), within=days(9))
    house.open(described(Wait("20d"), goal=goal))
    ann, bob, cyd = (house.customer() for _ in range(3))
    house.launch("j")
    house.did(ann, "bought", at=MONDAY + 3 * HOUR)
    house.later("5d")
    assert converted(house) == {ann: None, bob: None, cyd: None}
    # The second one, which reaches the goal, comes three days late; the third is no other goal.
    house.did(ann, "bought", at=MONDAY + 2 * DAY)
    house.did(ann, "bought", at=MONDAY + 4 * DAY)
    for at in (HOUR, 2 * HOUR):
        house.did(bob, "bought", at=MONDAY + at)
    house.did(cyd, "bought", at=MONDAY + 8 * DAY)
    house.run()
    expected = {ann: MONDAY + 2 * DAY, bob: MONDAY + 2 * HOUR, cyd: None}
    assert converted(house) == expected
    # An earlier one, later still, changes nothing: a conversion is counted once.
    house.did(ann, "bought", at=MONDAY + HOUR)
    house.later("9d")
    house.segue.engine.count_goals("j")
    assert converted(house) == expected


def test_a_goal_after_a_message(house: House) -> None:
    goal = Goal(did=did("bought"), within="1d", after="message")
    steps = Send("s", Email("hello")), Wait("5d"), Send("t", SMS("hello"))
    house.open(described(*steps, Wait("9d", "w"), goal=goal))
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    house.later("7d")
    house.did(ann, "bought", at=MONDAY + 3 * DAY)
    house.did(ann, "bought", at=MONDAY + 5 * DAY + HOUR)
    house.did(bob, "bought", at=MONDAY + 6 * DAY)
    house.did(bob, "bought", at=MONDAY + 5 * HOUR)
    house.run()
    assert converted(house) == {ann: MONDAY + 5 * DAY + HOUR, bob: MONDAY + 5 * HOUR}


def test_who_counts_does_not_matter(house: House, db: Database) -> None:
    """Goals that housekeeping finds have the time of their event as well."""
    house.open(described(Wait("5d"), goal=Goal(did=did("bought"), within=days(3))))
    ann = house.customer()
    house.launch("j")
    house.did(ann, "bought", at=MONDAY)
    db.now = MONDAY + 2 * DAY
    assert house.segue.engine.count_goals("j") == 1
    assert converted(house) == {ann: MONDAY}


def reported(house: House, by: By) -> JourneyReport:
    mapping = RevenueMapping.of(house.segue.settings)
    period = ReportPeriod(first=None, last=None, zone="UTC")
    with house.db.transaction(write=False) as tx:
        return report_journey(tx, house.segue.catalog, "j", mapping, period, by=by)


def test_a_late_order_is_a_conversion_of_the_message_before_it(house: House) -> None:
    """She orders in the first week. The shop says so in the second, after the second mail."""
    goal = Goal(did=did("bought"), within=days(20))
    steps = Send("first", Email("hello")), Wait("7d"), Send("second", Email("offer"))
    house.open(described(*steps, goal=goal))
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    house.later("9d")
    house.did(ann, "bought", at=MONDAY + 2 * DAY)
    house.did(bob, "bought")
    house.run()
    weeks = {one.key: one.count("converted") for one in reported(house, "week").groups}
    assert weeks == {"2026-03-02": 1, "2026-03-09": 1}
    steps_found = {one.key: one.count("converted") for one in reported(house, "step").groups}
    assert steps_found == {"first": 1, "second": 1}
