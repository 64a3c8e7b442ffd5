"""The journey and the policy that the tests of dispatch send by."""

from typing import Any

from config.policy import Policy
from journeys.journey import Journey, OnLaunch, journey
from journeys.steps import Email, Message, Send
from tests.house import House

DAYTIME = {"windows": [{"days": "mon-sun", "from": "08:00", "to": "20:00"}]}
POLICY = Policy.model_validate(
    {
        "channels": {"email": DAYTIME, "sms": DAYTIME, "push": DAYTIME},
        "caps": [
            {"channels": ["email"], "limit": 1, "per": "day"},
            {"channels": ["sms"], "limit": 1, "within": "24h"},
        ],
    }
)


def sending(*wanted: Message, then: tuple[Any, ...] = (), **options: Any) -> Journey:
    """A journey that sends, in an hour unless the messages say otherwise."""
    parts = {key: options.pop(key) for key in ("exit_when", "goal", "priority") if key in options}
    step = Send("s", *(wanted or (Email("hello", after="1h"),)), **options)
    return journey("j", entry=OnLaunch(), topic="news", steps=[step, *then], **parts)


def told(house: House) -> list[tuple[str, str, str | None]]:
    return [(one.channel, one.state, one.reason) for one in house.outbox()]
