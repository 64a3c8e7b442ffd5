"""Chapter 3: one send on several channels.

The members of a send share one anchor: the earliest time at which each of them, at its own offset,
is inside the windows of its channel.
"""

from config.clock.times import parse_instant
from config.policy import Policy
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Email, Journey, OnLaunch, Push, SMS, Send

    journey = Journey(
        "sale",
        entry=OnLaunch(),
        topic="promotions",
        steps=[
            Send(
                "the sale is on",
                Email("sale"),
                Push("sale", after="5m"),
                SMS("sale", after="10m"),
                mode="{mode}",
            )
        ],
    )
"""


def write_sale(library: Library, mode: str) -> None:
    library.write("sale/journey.py", JOURNEY.replace("{mode}", mode))
    library.write("sale/sale.email.html", "Subject: Sale\n\n<p>It is on.</p>")
    library.write("sale/sale.push.txt", "Title: Sale\n\nIt is on.")
    library.write("sale/sale.sms.txt", "Our sale is on.")


def test_members_are_sent_together_when_all_windows_are_open(
    shop: House, library: Library, policy: Policy
) -> None:
    write_sale(library, "any")
    shop.open_library(library.path, policy)
    shop.customer("ann")

    # Monday 08:00: e-mail and push are open, texts from 09:00 on. The text decides the anchor: it
    # goes at 09:00, ten minutes after the anchor.
    shop.db.now = parse_instant("2026-03-02T08:00:00Z")
    shop.launch("sale")
    assert [(message.channel, message.send_at) for message in shop.outbox()] == [
        ("email", "2026-03-02T08:50:00Z"),
        ("push", "2026-03-02T08:55:00Z"),
        ("sms", "2026-03-02T09:00:00Z"),
    ]
    shop.later("2h")
    assert [message.channel for message in shop.providers.accepted] == ["email", "push", "sms"]


def test_any_sends_what_can_be_sent(shop: House, library: Library, policy: Policy) -> None:
    write_sale(library, "any")
    shop.open_library(library.path, policy)
    shop.customer("ann", consent={("email", "*"): True})

    shop.launch("sale")
    shop.later("1h")
    assert [(message.channel, message.state, message.reason) for message in shop.outbox()] == [
        ("email", "sent", None),
        ("push", "sent", None),
        ("sms", "skipped", "no_consent"),
    ]


def test_all_sends_every_member_or_none(shop: House, library: Library, policy: Policy) -> None:
    write_sale(library, "all")
    shop.open_library(library.path, policy)
    shop.customer("ann", consent={("email", "*"): True})

    shop.launch("sale")
    assert [(message.channel, message.state, message.reason) for message in shop.outbox()] == [
        ("email", "skipped", "group_incomplete"),
        ("push", "skipped", "group_incomplete"),
        ("sms", "skipped", "no_consent"),
    ]
    assert shop.providers.accepted == []
