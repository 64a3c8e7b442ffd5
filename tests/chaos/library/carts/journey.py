"""Waits, a group of messages and a split: most features of journeys, within seconds."""

from journeys.dsl import (
    SMS,
    Email,
    Goal,
    Journey,
    OnEvent,
    Push,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    attribute,
    did,
    when,
)

journey = Journey(
    "carts",
    entry=OnEvent("cart_left", key="cart_id", again="always"),
    exit_when=did("bought"),
    goal=Goal(did=did("bought"), within="1h"),
    topic="offers",
    priority=50,
    steps=[
        Wait("1s"),
        Send("nudge", Email("nudge", on_cap="defer"), Push("nudge", after="1s"), mode="any"),
        WaitUntil("back", did("looked"), timeout="2s"),
        Split("who", when(attribute("tier") == "gold", [Send("offer", SMS("offer"))])),
        Update("mark", reminded=True),
    ],
)
