"""Double opt-in: the mail that asks the owner of an address to confirm a yes."""

from journeys.journey import OnEvent
from journeys.journey import journey as describe
from journeys.steps import Email, Send
from profiles.confirming import CONFIRMATION_REQUESTED

journey = describe(
    "confirm-subscription",
    description="Asks whoever said yes to a topic on e-mail to confirm it.",
    entry=OnEvent(CONFIRMATION_REQUESTED, key="topic", again="always"),
    topic="*",
    priority=100,
    steps=[Send("ask", Email("ask"), kind="transactional")],
)
