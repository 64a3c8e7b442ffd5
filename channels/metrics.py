"""What a process counts of itself, for Prometheus. Names follow its conventions: unit, _total."""

from collections.abc import Mapping

from prometheus_client import Counter, Histogram

MESSAGES = Counter(
    "segue_messages_total",
    "Messages by what became of them at the hand-over, or at the last look before it.",
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
    ["channel", "provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FEEDBACK = Counter(
    "segue_feedback_total",
    "What providers say back. But for `sent`, the same word counts once.",
    ["channel", "kind"],
)
FEEDBACK_IGNORED = Counter("segue_feedback_ignored_total", "Words that changed nothing.", ["why"])
REACTION_SECONDS = Histogram(
    "segue_event_to_message_seconds",
    "From the commit of an event (of several at once, the first) to the end of the hand-over of "
    "what it caused.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("segue_events_total", "Events that journeys have reacted to.")


def count_feedback(said: Mapping[str, int]) -> None:
    """Count what `channels.outbox.feedback.apply` says that it wrote, once that is committed."""
    for name, number in said.items():
        channel, _, kind = name.partition("_")
        if kind:
            FEEDBACK.labels(channel, kind).inc(number)
        else:
            FEEDBACK_IGNORED.labels("known" if name == "known" else "not ours").inc(number)
