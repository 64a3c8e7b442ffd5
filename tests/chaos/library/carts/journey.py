"""Waits, messages in step with each other, a split: most of what journeys do, within seconds."""

from journeys.definition.journey import Goal, OnEvent
from journeys.definition.journey import journey as describe
from journeys.definition.steps import SMS, Email, Push, Send, Split, Update, Wait, WaitUntil, when
from profiles.conditions.language import did, trait

journey = describe(
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
        Split("who", when(trait("tier") == "gold", [Send("offer", SMS("offer"))])),
        Update("mark", reminded=True),
    ],
)
