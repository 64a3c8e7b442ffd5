"""Chapter 6: an exit rule. A purchase ends the enrollment at any step, even during a wait."""

from config.clock.times import parse_instant
from config.policy import Policy
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Email, Goal, Journey, OnEvent, SMS, Send, Wait, days, did

    journey = Journey(
        "come-back",
        entry=OnEvent("cart_abandoned", key="cart_id", again="always"),
        exit_when=did("order_completed"),
        goal=Goal(did=did("order_completed"), within=days(5)),
        topic="promotions",
        steps=[
            Send("reminder", Email("reminder")),
            Wait("1d", "a day"),
            Send("offer", SMS("offer")),
        ],
    )
"""


def test_a_purchase_ends_the_journey(shop: House, library: Library, policy: Policy) -> None:
    library.write("come_back/journey.py", JOURNEY)
    library.write(
        "come_back/reminder.email.html",
        "Subject: {{ event.items | default: 'Your cart' }}\n\n<p>It is waiting.</p>",
    )
    library.write("come_back/offer.sms.txt", "Free delivery until Sunday.")
    shop.open_library(library.path, policy)
    ann, bob = shop.customer("ann"), shop.customer("bob")

    # Monday 10:00. The event's properties are at hand in the template.
    shop.did(ann, "cart_abandoned", cart_id="c1", items="Two lamps")
    shop.did(bob, "cart_abandoned", cart_id="c2")
    shop.run()
    assert [mail.text for mail in shop.providers.accepted] == ["Two lamps", "Your cart"]

    # Ann buys while she waits.
    shop.later("3h")
    shop.did(ann, "order_completed", total=80)
    shop.run()
    [anns], [bobs] = shop.people(ann), shop.people(bob)
    assert (anns.ended_at, anns.end_reason) == (
        parse_instant("2026-03-02T13:00:00Z"),
        "exited: exit rule",
    )
    assert anns.converted_at == parse_instant("2026-03-02T13:00:00Z")
    assert bobs.ended_at is None

    # Bob gets his text the next day, Ann does not.
    shop.later("2d")
    texts = [text for text in shop.providers.accepted if text.channel == "sms"]
    assert [text.message_id for text in texts] == [shop.rows(bob)[1].id]
    assert [message.channel for message in shop.outbox(ann)] == ["email"]


def test_what_is_planned_is_cancelled(shop: House, library: Library, policy: Policy) -> None:
    library.write("come_back/journey.py", JOURNEY)
    library.write("come_back/reminder.email.html", "Subject: Your cart\n\n<p>It is waiting.</p>")
    library.write("come_back/offer.sms.txt", "Free delivery until Sunday.")
    shop.open_library(library.path, policy)
    ann = shop.customer("ann")

    # Late on Monday: the mail has to wait for the morning.
    shop.db.now = parse_instant("2026-03-02T22:30:00Z")
    shop.did(ann, "cart_abandoned", cart_id="c1")
    shop.run()
    [mail] = shop.outbox(ann)
    assert (mail.state, mail.send_at) == ("planned", "2026-03-03T08:00:00Z")

    shop.later("1h")
    shop.did(ann, "order_completed", total=80)
    shop.later("1d")
    [mail] = shop.outbox(ann)
    assert (mail.state, mail.reason) == ("cancelled", "exited: exit rule")
    assert shop.providers.accepted == []
