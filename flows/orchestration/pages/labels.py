"""Counts as text for the Prefect UI: a short name for each state, and its message."""

from collections import Counter
from collections.abc import Iterable

from config.channels import channel_of
from flows.orchestration.pages.counts import StepCounts
from journeys.operations.counts import Summary

STATE_NAMES = {"sending": "being sent", "skipped": "not sent", "returned": "sent, then returned"}


def step_labels(counts: StepCounts) -> tuple[str, str]:
    """A step's state: its name and its message."""
    name = _name(
        (counts.fates("sent").total(), "sent", "sent"),
        (counts.fates("planned").total(), "waits for its time", "wait for their time"),
        (counts.reasons().total(), "not sent", "not sent"),
    ) or _name(
        (counts.left.total(), "moved on", "moved on"),
        (counts.here, "waits here", "wait here"),
    )
    if not name:
        return "Nothing due", "No enrollment reached this step"
    return name, _details(counts)


def dry_run_labels(counts: StepCounts) -> tuple[str, str]:
    """A step's state in a dry run: its name and its message."""
    name = _name(
        (counts.fates("planned").total(), "would be sent", "would be sent"),
        (counts.reasons().total(), "would not", "would not"),
    ) or _name(
        (counts.left.total(), "would move on", "would move on"),
        (counts.here, "would wait here", "would wait here"),
    )
    if not name:
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


def _name(*counts: tuple[int, str, str]) -> str:
    """The counts that are not 0: "44 sent, 653 wait for their time". With singular and plural."""
    return ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in counts if n)


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
