"""Chapter 4: one channel at a time. First a push; if it is not opened, a mail two hours later.

The app reports the opening as the event `push_opened`, because FCM does not.
"""

from config.policy import Policy
from tests.support.shop import House
from tests.tutorial.conftest import Library

JOURNEY = """
    from journeys.dsl import Email, Journey, OnLaunch, Push, Send

    journey = Journey(
        "your-cart",
        entry=OnLaunch(),
        topic="promotions",
        steps=[
            Send(
                "nudge",
                Push("nudge"),
                Email("nudge"),
                mode="first",
                fallback_after="2h",
                unless="opened",
            )
        ],
    )
"""


def test_a_fallback(shop: House, library: Library, policy: Policy) -> None:
    library.write("your_cart/journey.py", JOURNEY)
    library.write("your_cart/nudge.push.txt", "Title: Your cart\n\nIt is waiting.")
    library.write("your_cart/nudge.email.html", "Subject: Your cart\n\n<p>It is waiting.</p>")
    shop.open_library(library.path, policy)
    ann, bob = shop.customer("ann"), shop.customer("bob")
    cleo = shop.customer("cleo", push_tokens={})

    # Ann and Bob get a push. Cleo has no app, so the next channel goes at once.
    shop.launch("your-cart")
    assert sorted((one.channel, one.to) for one in shop.providers.accepted) == [
        ("email", "cleo@example.com"),
        ("push", "token-ann"),
        ("push", "token-bob"),
    ]

    # Ann opens hers. Two hours after the push Bob gets a mail.
    shop.later("30m")
    shop.did(ann, "push_opened")
    shop.later("2h")
    assert [(one.channel, one.to) for one in shop.providers.accepted][3:] == [
        ("email", "bob@example.com")
    ]

    # The mail that Ann did not need is on record as well.
    def reported(person: int) -> list[tuple[str, str, str | None]]:
        return [(one.channel, one.state, one.reason) for one in shop.outbox(person)]

    assert reported(ann) == [("push", "sent", None), ("email", "skipped", "not_chosen")]
    assert reported(bob) == [("push", "sent", None), ("email", "sent", None)]
    assert reported(cleo) == [("push", "skipped", "no_address"), ("email", "sent", None)]
    assert all(person.end_reason == "completed" for person in shop.people())
