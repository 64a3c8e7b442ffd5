"""Welcome: a greeting, then thanks for a first order or, without one after 3 days, a nudge."""

from journeys.dsl import (
    Email,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    Push,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    arm,
    days,
    did,
    has_address,
    when,
)

journey = Journey(
    "welcome",
    description="Greets new customers and helps them to a first order.",
    entry=OnEvent("signed_up", again="once"),
    goal=Goal(did=did("order_completed"), within=days(14)),
    topic="welcome",
    priority=60,
    steps=[
        Send("hello", Email("hello", on_cap="defer"), Push("hello", after="10m"), mode="any"),
        WaitUntil(
            "first order",
            did("order_completed"),
            timeout=days(3),
            then=[Send("thanks", Email("thanks"))],
            on_timeout=[
                Experiment(
                    "which nudge",
                    arm("bestsellers", 50, [Send("bestsellers", Email("bestsellers"))]),
                    arm("guide", 50, [Send("guide", Email("guide"))]),
                    holdout=10,
                ),
                Wait("2d"),
                Split(
                    "app user?",
                    when(has_address("push"), [Send("app tip", Push("app_tip"))], "has the app"),
                ),
            ],
        ),
        Update("mark welcomed", welcomed=True),
    ],
)
