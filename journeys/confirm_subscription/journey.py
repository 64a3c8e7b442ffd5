"""Double opt-in: the e-mail that asks the owner of an address to confirm an opt-in."""

from journeys.dsl import Email, Journey, OnEvent, Send

journey = Journey(
    "confirm-subscription",
    description="Asks whoever said yes to a topic on e-mail to confirm it.",
    entry=OnEvent("email_confirmation_requested", key="topic", again="always"),
    topic="*",
    priority=100,
    steps=[Send("ask", Email("ask"), kind="transactional")],
)
