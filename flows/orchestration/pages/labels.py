"""Counts as text for the Prefect UI: a short name for each state, and its message."""

from collections import Counter
from collections.abc import Iterable

from config.channels import channel_of
from flows.orchestration.pages.counts import StepCounts
from journeys.operations.counts import Summary

STATE_NAMES = {"sending": "being sent", "skipped": "not sent", "returned": "sent, then returned"}


def step_labels(counts: StepCounts) -> tuple[str, str]:
    """A step's state: its name and its message."""
    sent, planned = counts.fates("sent"), counts.fates("planned")
    reasons, left = counts.reasons(), counts.left
    name = _first(
        (sent.total(), "sent"),
        (planned.total(), "planned"),
        (reasons.total(), "not sent"),
        (left.total(), "moved on"),
        (counts.here, "waiting"),
    )
    if name is None:
        return "Nothing due", "No enrollment reached this step"
    return name, _details(counts)


def dry_run_labels(counts: StepCounts) -> tuple[str, str]:
    """A step's state in a dry run: its name and its message."""
    planned, reasons, left = counts.fates("planned"), counts.reasons(), counts.left
    name = _first(
        (planned.total(), "would be sent"),
        (reasons.total(), "would not be sent"),
        (left.total(), "would move on"),
        (counts.here, "would wait"),
    )
    if name is None:
        return "Nothing due", "No enrollment would reach this step now"
    return name, f"Would be: {_details(counts)}"


def run_labels(summary: Summary) -> str:
    """The result of a launch, or of a whole journey."""
    return sentence(
        [
            f"{summary.entered:,} entered",
            _by_channel(summary.sent, "sent"),
            f"{summary.returned.total():,} of them returned" if summary.returned else "",
            _by_channel(summary.planned, "planned"),
            _not_sent(summary.not_sent),
            f"{summary.active:,} active" if summary.active else "",
        ]
    )


def _first(*counts: tuple[int, str]) -> str | None:
    """The first count that is not 0, as text."""
    return next((f"{number:,} {what}" for number, what in counts if number), None)


def _details(counts: StepCounts) -> str:
    return sentence(
        [
            _by_channel(counts.fates("sent"), "sent"),
            _by_channel(counts.fates("planned"), "planned"),
            _not_sent(counts.reasons()),
            _moved_on(counts.left),
            f"{counts.here:,} waiting here" if counts.here else "",
        ]
    )


def listed(counts: Counter[str]) -> str:
    """The counts with their names, the largest first."""
    return ", ".join(f"{number:,} {plain(what)}" for what, number in counts.most_common())


def plain(code: str) -> str:
    """A reason or an outcome as text: no_consent -> no consent."""
    return code.replace("_", " ")


def sentence(parts: Iterable[str]) -> str:
    """The parts that are not empty, as one line."""
    return "; ".join(part for part in parts if part)


def _by_channel(counts: Counter[str], what: str) -> str:
    if not counts:
        return ""
    channels = ", ".join(
        f"{number:,} {channel_of(channel).short}" for channel, number in counts.most_common()
    )
    return f"{counts.total():,} {what} ({channels})"


def _moved_on(left: Counter[str]) -> str:
    if len(left) < 2:
        return f"{left.total():,} moved on" if left else ""
    return f"{left.total():,} moved on ({listed(left)})"


def _not_sent(reasons: Counter[str]) -> str:
    return f"{reasons.total():,} not sent ({listed(reasons)})" if reasons else ""
