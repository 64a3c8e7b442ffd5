"""Cart recovery: a reminder on the first channel that can send, an offer to the best customers.

The shop sends `cart_abandoned` once it considers a cart abandoned, so the journey has no wait
before the reminder.
"""

from journeys.dsl import (
    SMS,
    Email,
    Goal,
    Journey,
    OnEvent,
    Push,
    Send,
    Split,
    WaitUntil,
    attribute,
    days,
    did,
    when,
)

journey = Journey(
    "cart-recovery",
    description="Reminds people of the cart they left, until they come back or buy.",
    entry=OnEvent("cart_abandoned", key="cart_id", again=days(7)),
    exit_when=did("order_completed"),
    goal=Goal(did=did("order_completed"), within=days(5)),
    topic="promotions",
    priority=50,
    steps=[
        Send(
            "nudge",
            Push("nudge"),
            Email("reminder"),
            mode="first",
            fallback_after="2h",
            unless="opened",
        ),
        WaitUntil("came back", did("cart_viewed"), timeout=days(1)),
        Split(
            "worth a text?",
            when(
                attribute("lifetime_value") > 200,
                [
                    Send(
                        "offer",
                        Email("offer", on_cap="defer"),
                        SMS("offer", after="10m"),
                        mode="any",
                        stop_on="clicked",
                    )
                ],
            ),
        ),
    ],
)
