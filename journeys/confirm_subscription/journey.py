"""Double opt-in: the mail that asks the owner of an address to confirm a yes."""

from journeys.definition.journey import OnEvent
from journeys.definition.journey import journey as describe
from journeys.definition.steps import Email, Send
from profiles.consent.double_opt_in import CONFIRMATION_REQUESTED

journey = describe(
    "confirm-subscription",
    description="Asks whoever said yes to a topic on e-mail to confirm it.",
    entry=OnEvent(CONFIRMATION_REQUESTED, key="topic", again="always"),
    topic="*",
    priority=100,
    steps=[Send("ask", Email("ask"), kind="transactional")],
)
