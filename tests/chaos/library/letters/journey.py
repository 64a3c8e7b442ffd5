"""One channel after the other, until the app reports that the message was opened."""

from journeys.dsl import SMS, Email, Journey, OnEvent, Push, Send

journey = Journey(
    "letters",
    entry=OnEvent("asked", key="letter_id", again="always"),
    topic="letters",
    priority=30,
    steps=[
        Send(
            "letter",
            Push("letter"),
            Email("letter"),
            mode="first",
            fallback_after="2s",
            unless="opened",
        ),
        Send("reply", Email("reply"), SMS("reply"), mode="all"),
    ],
)
