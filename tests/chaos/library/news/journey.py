"""Launched once for all profiles, by a process that is killed during the launch."""

from journeys.dsl import Email, Journey, OnLaunch, Push, Send, Update, Wait

journey = Journey(
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
