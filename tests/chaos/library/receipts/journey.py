"""One mail for each order, which must always be sent."""

from journeys.dsl import Email, Journey, OnEvent, Send

journey = Journey(
    "receipts",
    entry=OnEvent("ordered", key="order_id", again="always"),
    topic="orders",
    priority=90,
    steps=[Send("receipt", Email("receipt", max_delay="1d"), kind="transactional")],
)
