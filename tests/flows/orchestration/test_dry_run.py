"""A dry run reports what a launch would do in its first day, and stores nothing."""

from typing import Any

import pytest

from config.clock.times import DAY, minutes
from flows.dry_run import DryRunReport, as_json, dry_run
from flows.orchestration.dry_run import hours_in_words
from journeys.dsl import SMS, Call, Email, OnEvent, Send, Split, Update, Wait, attribute, when
from journeys.operations import control
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from tests.support.shop import MONDAY, House, described


def rehearse(house: House, people: int | None = None, audience: str = "everyone") -> DryRunReport:
    segue = house.segue
    shop = SimulatedShop(catalog=segue.catalog, policy=segue.policy, settings=segue.settings)
    with snapshot(house.db) as tx:
        return dry_run(tx, shop, "j", audience, people)


def why_not(report: DryRunReport) -> dict[str, Any]:
    found = as_json("j", "everyone", report)
    assert found["entered"] == 0
    why: dict[str, Any] = found["why_not"]
    return why


def test_a_dry_run_stores_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeys.engine.advance.post_all", None)  # nor does it call anybody
    steps = (
        Call("tell", "https://crm.shop.test/came"),
        Split("f", when(attribute("odd") == 1, [Send("s", Email("hello"), SMS("hello"))], "odd")),
        Wait("2d"),
    )
    house.open(described(*steps))
    for number in range(7):
        house.customer(attributes={"odd": number % 2}, consent={("email", "*"): number != 1})
    report = rehearse(house)
    assert report.steps["f"].left == {"odd": 3, "otherwise": 4}
    assert report.steps["s"].messages == {
        ("email", "planned"): 2,
        ("email", "no_consent"): 1,
        ("sms", "no_consent"): 3,
    }
    assert report.steps["wait 2d"].here == 7
    assert report.hours == {"2026-03-02T10:00:00+00:00": 2}
    assert house.people() == house.rows() == []
    assert rehearse(house, people=3).steps["f"].left == {"odd": 1, "otherwise": 2}


def test_a_dry_run_does_not_move_other_enrollments(house: House) -> None:
    """Who is in the journey already is not entered again, and stays where it is."""
    house.open(described(Wait("1h"), Update("u", x=1)))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + minutes(30).seconds
    assert why_not(rehearse(house)) == {"already in it": 1}
    assert house.people(ann)[0].step == "wait 1h"


def test_a_dry_run_counts_the_launch_only(house: House) -> None:
    """Ann entered half an hour ago, and gets her mail in the day of the dry run."""
    house.open(described(Wait("1h"), Send("s", Email("hello"))))
    house.customer()
    house.launch("j")
    house.db.now = MONDAY + minutes(30).seconds
    house.customer()
    report = rehearse(house)
    found = as_json("j", "everyone", report)
    assert (found["people"], found["entered"]) == (2, 1)
    assert found["planned"] == {"email": 1, "sms": 0, "push": 0}
    assert found["hours"] == {"2026-03-02T11:00:00+00:00": 1}
    assert found["why_not"] == {"already in it": 1}
    assert report.steps["wait 1h"].left == {"next": 1}
    assert report.steps["s"].messages == {("email", "planned"): 1}
    assert report.journey.entries == {("launch", "everyone"): 1}
    assert report.journey.passed == {("wait 1h", "next"): 1, ("s", "next"): 1}


def test_messages_that_lack_data_are_no_planned_ones(house: House) -> None:
    texts = {
        "needs.sms.txt": "{{ profile.first_name }}, the shop has news",
        "hello.email.html": "Subject: Hello\n\n<p>Hello</p>",
    }
    steps = (Send("s", SMS("needs"), Email("hello", after="2d")),)
    house.open(described(*steps), texts=texts)
    for name in ("Ann", None, None):
        house.customer(attributes={} if name is None else {"first_name": name})
    found = as_json("j", "everyone", rehearse(house))
    assert found["planned"] == {"email": 3, "sms": 1, "push": 0}
    assert found["not_sent"] == {"missing_data": 2}
    house.launch("j")
    sent = [(row.channel, row.reason) for row in house.rows() if row.state == "skipped"]
    assert sent == [("sms", "missing_data: profile.first_name")] * 2


def test_a_planned_message_of_a_later_day_is_rendered_too(house: House) -> None:
    texts = {"needs.sms.txt": "{{ profile.first_name }}", "hello.email.html": "Subject: a\n\n<p>b"}
    house.open(described(Send("s", Email("hello"), SMS("needs", after="3d"))), texts=texts)
    house.customer()
    found = as_json("j", "everyone", rehearse(house))
    assert found["planned"] == {"email": 1, "sms": 0, "push": 0}
    assert found["not_sent"] == {"missing_data": 1}


def test_a_dry_run_says_why_nobody_would_enter(house: House) -> None:
    house.open(described(Send("s", Email("hello"))))
    assert why_not(rehearse(house)) == {"nobody is in the segment": 1}
    house.customer()
    house.launch("j")
    assert why_not(rehearse(house)) == {"entered before": 1}
    control.stop(house.db, "j")
    assert why_not(rehearse(house)) == {"the journey is stopped": 1}


def test_a_dry_run_of_a_paused_journey_says_that_nothing_moves(house: House) -> None:
    house.open(described(Send("s", Email("hello"))))
    house.customer()
    control.pause(house.db, "j")
    found = as_json("j", "everyone", rehearse(house))
    assert found["entered"] == 1
    assert found["planned"] == {"email": 0, "sms": 0, "push": 0}
    [paused, waiting] = found["why_not"]
    assert "paused" in paused
    assert waiting == "waiting at 's'"


def test_a_journey_that_waits_first_says_so(house: House) -> None:
    house.open(described(Wait("2d"), Send("s", Email("hello"))))
    house.customer()
    found = as_json("j", "everyone", rehearse(house))
    assert (found["entered"], found["planned"]["email"]) == (1, 0)
    assert found["why_not"] == {"waiting at 'wait 2d'": 1}


def test_a_journey_with_an_event_can_be_rehearsed_for_an_audience(house: House) -> None:
    house.open(described(Send("s", Email("hello")), entry=OnEvent("came", key="id")))
    house.customer()
    house.db.now = MONDAY + DAY
    assert as_json("j", "everyone", rehearse(house))["planned"]["email"] == 1


def test_the_hours_of_a_dry_run_in_words() -> None:
    hours = {"2026-03-02T10:00:00+00:00": 1200, "2026-03-29T09:00:00+01:00": 1}
    said = hours_in_words(hours, "Europe/London")
    assert said == "Mon 2 Mar 10:00: 1,200, Sun 29 Mar 09:00: 1 (Europe/London)"
    assert hours_in_words({}, "Europe/London") == ""
