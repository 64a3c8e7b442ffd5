"""A dry run reports what a launch would do, and stores nothing."""

import pytest

from channels.outbox.render import Renderer
from config.clock.times import hours
from journeys.dsl import SMS, Call, Email, Send, Split, Update, Wait, attribute, when
from journeys.operations.launches import dry_run
from tests.support.shop import MONDAY, House, described


def test_a_dry_run_stores_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeys.engine.advance.post_all", None)  # nor does it call anybody
    steps = (
        Call("tell", "https://crm.shop.test/came"),
        Split("f", when(attribute("odd") == 1, [Send("s", Email("hello"), SMS("hello"))], "odd")),
        Wait("1d"),
    )
    house.open(described(*steps))
    for number in range(7):
        house.customer(attributes={"odd": number % 2}, consent={("email", "*"): number != 1})
    house.segue.engine.chunks.largest = 2
    version = house.segue.catalog.journey("j")
    reports = dry_run(
        house.segue.engine, version, "everyone", None, "l", Renderer(house.segue.settings)
    )
    assert reports["f"].outcomes == {"odd": 3, "otherwise": 4}
    assert reports["s"].messages == {
        ("email", "planned"): 2,
        ("email", "no_consent"): 1,
        ("sms", "no_consent"): 3,
    }
    assert reports["wait 1d"].waiting == 5
    assert house.people() == house.rows() == []
    few = dry_run(house.segue.engine, version, "everyone", 3, "l", Renderer(house.segue.settings))
    assert few["f"].outcomes == {"odd": 1, "otherwise": 2}


def test_a_dry_run_does_not_move_other_enrollments(house: House) -> None:
    """Who is in the journey already is neither entered nor moved by a rehearsal."""
    house.open(described(Wait("1h"), Update("u", x=1)))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + hours(2).seconds
    version = house.segue.catalog.journey("j")
    reports = dry_run(
        house.segue.engine, version, "everyone", None, "l", Renderer(house.segue.settings)
    )
    assert {step: report.outcomes for step, report in reports.items()} == {"wait 1h": {}, "u": {}}
    assert house.people(ann)[0].step == "wait 1h"


def test_messages_that_lack_data_are_no_planned_ones(house: House) -> None:
    texts = {
        "needs.sms.txt": "{{ profile.first_name }}, the shop has news",
        "hello.email.html": "Subject: Hello\n\n<p>Hello</p>",
    }
    steps = (Send("s", SMS("needs"), Email("hello")),)
    house.open(described(*steps), texts=texts)
    for name in ("Ann", None, None):
        house.customer(attributes={} if name is None else {"first_name": name})
    version = house.segue.catalog.journey("j")
    renderer = Renderer(house.segue.settings)
    reports = dry_run(house.segue.engine, version, "everyone", None, "l", renderer)
    assert reports["s"].messages["sms", "planned"] == 1
    assert reports["s"].messages["sms", "missing_data"] == 2
    assert reports["s"].messages["email", "planned"] == 3
    house.launch("j")
    sent = [(row.channel, row.reason) for row in house.rows() if row.state != "sent"]
    assert sent == [("sms", "missing_data: profile.first_name")] * 2
