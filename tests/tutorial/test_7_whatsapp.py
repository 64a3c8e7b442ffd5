"""Chapter 7: WhatsApp. The first message is an approved template; free text needs an open session.

Ann has opted in to WhatsApp. She gets the template, replies, and can get free text for 24 hours.
Her STOP ends WhatsApp, but not text messages.
"""

from sqlalchemy import select

from config.clock.times import parse_instant
from config.policy import Policy
from profiles.tables import consents
from tests.support.providers.callback_samples import FromProviders
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Journey, OnLaunch, SMS, Send, Wait, WaitUntil, WhatsApp, did

    journey = Journey(
        "size-advice",
        entry=OnLaunch(),
        topic="promotions",
        steps=[
            Send("offer", WhatsApp("offer")),
            WaitUntil("an answer", did("whatsapp_replied"), timeout="1d"),
            Send("advice", WhatsApp("advice"), SMS("advice"), mode="first"),
            Wait("2d", "two days"),
            Send("last", WhatsApp("advice"), SMS("advice"), mode="first"),
        ],
    )
"""
NUMBER = "+447700900001"


def outbox(shop: House) -> list[tuple[str, str, str, str | None]]:
    return [(one.step, one.channel, one.state, one.reason) for one in shop.outbox()]


def test_a_template_then_free_text_then_stop(shop: House, library: Library, policy: Policy) -> None:
    library.write("size_advice/journey.py", JOURNEY)
    library.write(
        "size_advice/offer.whatsapp.txt",
        """
        Content-SID: HX0123456789abcdef0123456789abcdef
        Variable-1: {{ profile.first_name | default: "there" }}
        """,
    )
    library.write("size_advice/advice.whatsapp.txt", "Take one size larger.")
    library.write("size_advice/advice.sms.txt", "Take one size larger.")
    shop.open_library(library.path, policy)
    agreed = {("whatsapp", "*"): True, ("sms", "*"): True}
    shop.customer("ann", consent=agreed, attributes={"first_name": "Ann"})
    outside = FromProviders(shop.segue)

    # Monday 10:00. Nobody has written yet, so only the approved template may go.
    shop.db.now = parse_instant("2026-03-02T10:00:00Z")
    shop.launch("size-advice")
    [offer] = shop.providers.accepted
    assert (offer.channel, offer.to) == ("whatsapp", NUMBER)
    assert offer.text == 'HX0123456789abcdef0123456789abcdef {"1":"Ann"}'

    # She reads it, and writes at 11:00. The wait ends, and the session is open for a day.
    assert outside.status(offer.message_id, "read", f"whatsapp:{NUMBER}").status_code == 200
    shop.until("2026-03-02T11:00:00Z")
    assert outside.text(f"whatsapp:{NUMBER}", "Which size?").status_code == 200
    shop.run()
    assert [one.text for one in shop.providers.accepted[1:]] == ["Take one size larger."]
    assert shop.providers.accepted[-1].channel == "whatsapp"

    # Wednesday: the session is over. The free text is refused at the hand-over; SMS takes over.
    shop.until("2026-03-04T12:00:00Z")
    assert outbox(shop)[-2:] == [
        ("last", "whatsapp", "skipped", "no_session"),
        ("last", "sms", "sent", None),
    ]

    # A STOP by WhatsApp binds WhatsApp.
    assert outside.text(f"whatsapp:{NUMBER}", "Stop please").status_code == 200
    with shop.db.transaction(write=False) as tx:
        said = {row.channel: row.granted for row in tx.conn.execute(select(consents))}
    assert said == {"whatsapp": False, "sms": True}
