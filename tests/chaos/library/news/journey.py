"""Launched once for everybody, by a process that is killed on its way."""

from journeys.definition.journey import OnLaunch
from journeys.definition.journey import journey as describe
from journeys.definition.steps import Email, Push, Send, Update, Wait

journey = describe(
    "news",
    entry=OnLaunch(again="always"),
    topic="letters",
    priority=10,
    steps=[
        Send("news", Push("news"), Email("news", on_cap="defer"), mode="any"),
        Wait("1s"),
        Update("mark", told=True),
    ],
)
