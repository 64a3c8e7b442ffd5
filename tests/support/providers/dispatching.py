"""Messages, a journey and a policy for the tests of dispatch."""

from typing import Any

from config.policy import Policy
from journeys.definition.steps import MessageSpec
from journeys.dsl import SMS, Email, Journey, Push, Send
from tests.support.shop import House, described

# the same message on each channel
ONE = {"email": Email("hello"), "sms": SMS("hello"), "push": Push("hello")}
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


def sending(*wanted: MessageSpec, then: tuple[Any, ...] = (), **options: Any) -> Journey:
    """A journey that sends `wanted`, by default an e-mail after an hour."""
    parts = {key: options.pop(key) for key in ("exit_when", "goal", "priority") if key in options}
    step = Send("s", *(wanted or (Email("hello", after="1h"),)), **options)
    return described(step, *then, **parts)


def reported(house: House) -> list[tuple[str, str, str | None]]:
    return [(one.channel, one.state, one.reason) for one in house.outbox()]
