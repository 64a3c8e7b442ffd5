"""Journeys react to provider reports: they stop, skip, fall back, and wait."""

import httpx
import pytest
from sqlalchemy import select

from config.clock.times import HOUR
from journeys.dsl import (
    SMS,
    Email,
    Journey,
    OnLaunch,
    Push,
    Send,
    Update,
    Wait,
    WaitUntil,
    consented,
    did,
    has_address,
    prop,
)
from profiles.tables import events
from tests.support.providers.feedback_shop import AnnsShop
from tests.support.shop import House, described


def test_a_text_planned_before_a_stop_never_leaves(house: House) -> None:
    steps = [Send("offer", Email("offer"), SMS("offer", after="10m"))]
    shop = AnnsShop(house, Journey("offer", entry=OnLaunch(), topic="news", steps=steps))
    [_, planned] = house.rows()
    assert (planned.channel, planned.state) == ("sms", "planned")

    shop.says("STOP")
    # The word alone cancels nothing: the rule is looked at when the message would leave.
    assert house.rows()[1].state == "planned"
    house.later("1h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]
    assert [(row.state, row.reason) for row in house.rows()] == [
        ("sent", None),
        ("skipped", "no_consent"),
    ]


def test_a_stop_ends_journeys_with_that_exit_rule(house: House) -> None:
    shop = AnnsShop(
        house,
        Journey(
            "long",
            entry=OnLaunch(),
            topic="news",
            exit_when=~consented("sms", "news"),
            steps=[Wait("30d"), Send("hello", Email("hello"))],
        ),
    )
    shop.says("STOP")
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def test_a_bounce_ends_journeys_that_exit_without_an_address(house: House) -> None:
    steps = [Send("hello", Email("hello")), Wait("30d")]
    leaving = ~has_address("email")
    shop = AnnsShop(
        house, Journey("j", entry=OnLaunch(), topic="news", exit_when=leaving, steps=steps)
    )
    shop.mail("bounce")
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def test_a_refused_number_ends_journeys_that_exit_without_an_address(house: House) -> None:
    steps = [Send("hello", SMS("hello")), Wait("30d")]
    leaving = ~has_address("sms")
    house.providers.answer("sms", httpx.Response(400, json={"code": 21211, "message": "no"}))
    AnnsShop(house, Journey("j", entry=OnLaunch(), topic="news", exit_when=leaving, steps=steps))
    house.run()
    [person] = house.people()
    assert person.end_reason == "exited: exit rule"


def test_a_token_that_is_gone_is_an_event_that_journeys_can_use(house: House) -> None:
    leaving = described(Wait("30d"), name="leaving", exit_when=did("push_failed"))
    fallback = {"mode": "first", "fallback_after": "2h", "unless": "opened"}
    house.open(leaving, described(Send("s", Push("hello"), SMS("hello"), **fallback), name="first"))
    ann = house.customer("ann", push_tokens={"a-token": "ios"})
    gone = {"details": [{"errorCode": "UNREGISTERED"}], "message": "a-token is gone"}
    house.providers.answer("push", httpx.Response(404, json={"error": gone}))
    house.launch("leaving")
    house.launch("first")
    assert [row.state for row in house.rows(ann)] == ["failed", "sent"], "the next went at once"
    house.run()
    ended = {person.journey: person.end_reason for person in house.people()}
    assert ended["leaving"] == "exited: exit rule"
    with house.db.transaction(write=False) as tx:
        [event] = tx.conn.execute(select(events).where(events.c.name == "push_failed"))
    assert event.properties == {
        "reason": "fcm UNREGISTERED: … is gone",
        "message_id": str(house.rows()[0].id),
        "journey": "first",
        "step": "s",
    }


def _first(unless: str) -> Journey:
    return Journey(
        "first",
        entry=OnLaunch(),
        topic="news",
        steps=[
            Send(
                "nudge",
                Email("hello"),
                SMS("hello"),
                mode="first",
                fallback_after="2h",
                unless=unless,
            ),
            Update("done", nudged=True),
        ],
    )


@pytest.mark.parametrize(
    ("unless", "words", "falls_back"),
    [
        ("delivered", ["processed"], True),
        ("delivered", ["processed", "delivered"], False),
        ("opened", ["delivered"], True),
        ("opened", ["delivered", "open"], False),
        ("clicked", ["delivered", "open"], True),
        ("clicked", ["click"], False),
    ],
)
def test_the_fallback_is_sent_without_evidence(
    house: House, unless: str, words: list[str], falls_back: bool
) -> None:
    shop = AnnsShop(house, _first(unless))
    house.later("30m")
    shop.mail(*words, at=house.now)
    house.run()
    # Who has answered moves on at once.
    assert ("nudged" in house.attributes(shop.ann)) is not falls_back
    house.later("2h")
    assert [sent.channel for sent in house.providers.accepted] == (
        ["email", "sms"] if falls_back else ["email"]
    )
    assert house.attributes(shop.ann)["nudged"] is True


def test_a_delivered_message_that_bounced_is_no_evidence(house: House) -> None:
    shop = AnnsShop(house, _first("delivered"))
    shop.mail("delivered", "bounce")
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email", "sms"]


def test_a_machine_open_is_no_evidence(house: House) -> None:
    shop = AnnsShop(house, _first("opened"))
    house.later("30m")
    shop.mail("open", sg_machine_open=True)
    [event] = [row for row in shop.of(events) if row.name.startswith("email")]
    assert (event.name, event.properties["machine"]) == ("email_machine_opened", True)
    house.later("2h")
    assert [sent.channel for sent in house.providers.accepted] == ["email", "sms"]


def test_an_open_by_the_customer_is_evidence(house: House) -> None:
    shop = AnnsShop(house, _first("opened"))
    shop.mail("open", sg_machine_open=False)
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]


@pytest.mark.parametrize("hours", [-9, 9])
def test_a_wrong_clock_of_the_provider_changes_nothing(house: House, hours: int) -> None:
    shop = AnnsShop(house, _first("opened"))
    house.later("30m")
    shop.mail("open", at=house.now + hours * HOUR)
    house.later("3h")
    assert [sent.channel for sent in house.providers.accepted] == ["email"]


def test_a_click_cancels_planned_messages(house: House) -> None:
    steps = [Send("offer", Email("offer"), Push("offer", after="1h"), stop_on="clicked")]
    shop = AnnsShop(house, Journey("offer", entry=OnLaunch(), topic="news", steps=steps))
    shop.mail("click", url="https://shop.example/x")
    house.later("2h")
    assert [(row.state, row.reason) for row in house.rows()] == [
        ("delivered", None),
        ("cancelled", "stopped: clicked"),
    ]


def test_journeys_can_wait_for_provider_events(house: House) -> None:
    clicked = did("email_clicked", prop("url") == "https://shop.example/a", prop("step") == "hello")
    shop = AnnsShop(
        house,
        Journey(
            "waiting",
            entry=OnLaunch(),
            topic="news",
            steps=[
                Send("hello", Email("hello")),
                WaitUntil("the link", clicked, timeout="7d", then=[Update("keen", keen=True)]),
            ],
        ),
    )
    house.run()
    shop.mail("click", url="https://shop.example/b")
    house.run()
    assert "keen" not in house.attributes(shop.ann)
    shop.mail("click", url="https://shop.example/a")
    house.run()
    assert house.attributes(shop.ann)["keen"] is True
