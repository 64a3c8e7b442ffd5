"""Win-back: messages on all three channels to customers without an order in the last 90 days."""

from journeys.dsl import (
    SMS,
    Email,
    Exit,
    Goal,
    Journey,
    OnSchedule,
    Push,
    Send,
    Update,
    WaitUntil,
    days,
    did,
)

journey = Journey(
    "win-back",
    description="Writes to customers who have not ordered for 90 days, then lets them be.",
    entry=OnSchedule("0 8 * * mon", timezone="Europe/London", segment="lapsed", again=days(180)),
    exit_when=did("order_completed"),
    goal=Goal(did=did("order_completed"), within=days(30)),
    topic="promotions",
    priority=30,
    steps=[
        Send(
            "we miss you",
            Email("we_miss_you", on_cap="defer"),
            Push("we_miss_you", after="15m"),
            SMS("we_miss_you", after="30m"),
            mode="any",
        ),
        WaitUntil(
            "back in the shop",
            did("cart_viewed"),
            timeout=days(7),
            then=[Exit("came back", reason="came back")],
            on_timeout=[Send("last word", Email("last_word"))],
        ),
        Update("mark lapsed", lapsed=True),
    ],
)
