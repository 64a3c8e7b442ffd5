"""Chapter 2: waits. A waiting enrollment is a row, not a running program, and resumes by itself.

Text messages are sent Monday to Friday, 09:00 to 17:00. A message that is due outside these hours
waits for the next window, and the next step counts from the time at which it was sent.
"""

from config.clock.times import parse_instant
from config.policy import Policy
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Journey, OnLaunch, SMS, Send, Wait

    journey = Journey(
        "two-texts",
        entry=OnLaunch(),
        topic="promotions",
        steps=[
            Wait("2d", "think it over"),
            Send("first", SMS("first")),
            Wait("2d", "and again"),
            Send("second", SMS("second")),
        ],
    )
"""


def test_two_day_waits_and_office_hours(shop: House, library: Library, policy: Policy) -> None:
    library.write("two_texts/journey.py", JOURNEY)
    library.write("two_texts/first.sms.txt", "Still thinking?")
    library.write("two_texts/second.sms.txt", "Last call.")
    shop.open_library(library.path, policy)
    ann = shop.customer("ann", timezone="Europe/London")

    # She enters on Monday evening. Until the wait is over nothing is planned.
    shop.db.now = parse_instant("2026-03-02T18:00:00Z")
    shop.launch("two-texts")
    assert shop.outbox() == []
    [enrollment] = shop.people(ann)
    assert enrollment.step == "think it over"
    assert enrollment.due_at == parse_instant("2026-03-04T18:00:00Z")

    # Wednesday 18:00: the wait is over, but texts are closed. It is planned for Thursday 09:00.
    shop.until("2026-03-04T20:00:00Z")
    [first] = shop.outbox()
    assert (first.state, first.send_at) == ("planned", "2026-03-05T09:00:00Z")

    # Two days after that is Saturday: closed, so Monday morning.
    shop.until("2026-03-10T00:00:00Z")
    assert [(text.state, text.send_at) for text in shop.outbox()] == [
        ("sent", "2026-03-05T09:00:00Z"),
        ("sent", "2026-03-09T09:00:00Z"),
    ]
    assert [text.text for text in shop.providers.accepted] == ["Still thinking?", "Last call."]
    [enrollment] = shop.people(ann)
    assert (enrollment.ended_at, enrollment.end_reason) == (
        parse_instant("2026-03-09T09:00:00Z"),
        "completed",
    )


UNTIL = """
    from journeys.dsl import Email, Journey, OnEvent, Send, WaitUntil, did

    journey = Journey(
        "after-signup",
        entry=OnEvent("signed_up"),
        topic="news",
        steps=[
            WaitUntil(
                "first order",
                did("order_completed"),
                timeout="3d",
                then=[Send("thanks", Email("thanks"))],
                on_timeout=[Send("help", Email("help"))],
            )
        ],
    )
"""


def test_waiting_for_an_event(shop: House, library: Library, policy: Policy) -> None:
    library.write("after_signup/journey.py", UNTIL)
    library.write(
        "after_signup/thanks.email.html", "Subject: Thank you\n\n<p>It is on its way.</p>"
    )
    library.write("after_signup/help.email.html", "Subject: Can we help?\n\n<p>Write to us.</p>")
    shop.open_library(library.path, policy)
    ann, bob = shop.customer("ann"), shop.customer("bob")

    # An event brings people in; both wait at most three days.
    shop.did(ann, "signed_up")
    shop.did(bob, "signed_up")
    shop.run()
    assert [person.step for person in shop.people()] == ["first order", "first order"]

    # Ann orders an hour later and is thanked at once.
    shop.later("1h")
    shop.did(ann, "order_completed", total=30)
    shop.run()
    assert [(mail.to, mail.text) for mail in shop.providers.accepted] == [
        ("ann@example.com", "Thank you")
    ]

    # Bob does not.
    shop.later("3d")
    assert [(mail.to, mail.text) for mail in shop.providers.accepted][1:] == [
        ("bob@example.com", "Can we help?")
    ]
