"""What a process counts of itself, for Prometheus. Names follow its conventions: unit, _total."""

from prometheus_client import Counter, Histogram

MESSAGES = Counter(
    "segue_messages_total",
    "Messages by what became of them at the hand-over.",
    ["channel", "outcome"],
)
DECISIONS = Counter(
    "segue_decisions_total",
    "Messages wanted, by what was decided: planned, or the reason why not.",
    ["channel", "decision"],
)
PROVIDER_SECONDS = Histogram(
    "segue_provider_request_seconds",
    "How long a provider took to answer one request.",
    ["channel"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REACTION_SECONDS = Histogram(
    "segue_event_to_message_seconds",
    "From the commit of an event to the end of the hand-over of what it caused.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("segue_events_total", "Events that journeys have reacted to.")
