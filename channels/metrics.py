"""The Prometheus metrics of a process. Names follow the conventions: unit, `_total`."""

from collections.abc import Mapping

from prometheus_client import Counter, Histogram

MESSAGES = Counter(
    "segue_messages_total",
    "Messages by their outcome at the hand-over or at the claim.",
    ["channel", "outcome"],
)
DECISIONS = Counter(
    "segue_decisions_total",
    "Wanted messages by decision: planned, or the reason for the refusal.",
    ["channel", "decision"],
)
PROVIDER_SECONDS = Histogram(
    "segue_provider_request_seconds",
    "Duration of a request to a provider.",
    ["channel", "provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FEEDBACK = Counter(
    "segue_feedback_total",
    "Reports of providers. Repeated reports count once, except `sent`.",
    ["channel", "kind"],
)
FEEDBACK_IGNORED = Counter("segue_feedback_ignored_total", "Ignored reports of providers.", ["why"])
REACTION_SECONDS = Histogram(
    "segue_event_to_message_seconds",
    "From the commit of an event (the first of a batch) to the end of the hand-over of the "
    "messages that it caused.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("segue_events_total", "Events that journeys processed.")


def count_feedback(counts: Mapping[str, int]) -> None:
    """Add the counts that `channels.feedback.apply.apply` returned, after the commit."""
    for name, number in counts.items():
        channel, _, kind = name.partition("_")
        if kind:
            FEEDBACK.labels(channel, kind).inc(number)
        else:
            FEEDBACK_IGNORED.labels("known" if name == "known" else "not ours").inc(number)
