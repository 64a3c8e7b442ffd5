"""One channel after the other, until the app says that the letter was opened."""

from journeys.definition.journey import OnEvent
from journeys.definition.journey import journey as describe
from journeys.definition.steps import SMS, Email, Push, Send

journey = describe(
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
