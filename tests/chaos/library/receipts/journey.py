"""One mail for each order, whatever else happens and however long it takes."""

from journeys.definition.journey import OnEvent
from journeys.definition.journey import journey as describe
from journeys.definition.steps import Email, Send

journey = describe(
    "receipts",
    entry=OnEvent("ordered", key="order_id", again="always"),
    topic="orders",
    priority=90,
    steps=[Send("receipt", Email("receipt", max_delay="1d"), kind="transactional")],
)
