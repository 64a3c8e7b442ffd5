"""A journey as a Mermaid flowchart, with the enrollments at each step and on each edge."""

from collections.abc import Iterator

from flows.orchestration.pages.counts import JourneyCounts
from journeys.definition.graph import END, Node
from journeys.definition.journey import EventEntry, Journey, SegmentEntry
from journeys.definition.steps import (
    NEXT,
    ExitStep,
    ExperimentStep,
    SendStep,
    SplitStep,
    Step,
    WaitStep,
    WaitUntilStep,
)
from journeys.launches.api_start import API_AUDIENCE


def mermaid(journey: Journey, counts: JourneyCounts | None = None) -> str:
    """The flowchart's source; without counts the plain journey."""
    return "\n".join(["flowchart TD", *(f"  {line}" for line in _lines(journey, counts))])


def _lines(journey: Journey, counts: JourneyCounts | None) -> Iterator[str]:
    ids = {name: f"s{number}" for number, name in enumerate(journey.graph)} | {END: "done"}
    starts = {f"start{place or ''}": label for place, label in enumerate(_entries(journey, counts))}
    for start, label in starts.items():
        yield f"{start}([{label}])"
    for name, node in journey.graph.items():
        here = counts.here[name] if counts else 0
        yield ids[name] + _shape(node.step, _label(name, f"{here:,} here" if here else ""))
    yield 'done(["end"])'
    for start in starts:
        yield f"{start} --> {ids[journey.first_step]}"
    for name, node in journey.graph.items():
        for target, outcomes in _edges(node):
            labels = [
                _outcome_label(outcome, counts.passed[name, outcome] if counts else 0)
                for outcome in outcomes
            ]
            label = f"|{_label(*labels)}|" if any(labels) else ""
            yield f"{ids[name]} -->{label} {ids[target]}"
    sends = [ids[name] for name, node in journey.graph.items() if isinstance(node.step, SendStep)]
    if sends:
        yield "classDef send fill:#dbeafe,stroke:#2563eb,color:#111827"
        yield f"class {','.join(sends)} send"


def _edges(node: Node) -> Iterator[tuple[str, list[str]]]:
    """The targets of a step, each with the outcomes that lead to it."""
    if isinstance(node.step, ExitStep):
        yield END, [f"exit: {node.step.reason}"]
        return
    for target in dict.fromkeys(node.edges.values()):
        yield target, [outcome for outcome, leads in node.edges.items() if leads == target]


def _outcome_label(outcome: str, number: int) -> str:
    name = "" if outcome == NEXT or outcome.startswith("exit: ") else outcome
    return f"{name} {number:,}".strip() if number else name


def _shape(step: Step, label: str) -> str:
    match step:
        case SplitStep() | ExperimentStep():
            return f"{{{label}}}"
        case WaitStep() | WaitUntilStep():
            return f"([{label}])"
        case _:
            return f"[{label}]"


def _entries(journey: Journey, counts: JourneyCounts | None) -> list[str]:
    """The labels of the ways in: those that people took, or else the journey's own."""
    if counts is None or not counts.entries:
        entered = f"{counts.entered:,} entered" if counts else ""
        return [_label(journey.entry.described, entered)]
    return [
        _label(_way(journey, way, audience), f"{number:,} entered")
        for (way, audience), number in counts.entries.most_common()
    ]


def _way(journey: Journey, way: str, audience: str) -> str:
    """How people entered, in a few words."""
    if way == "launch":
        return "API call" if audience == API_AUDIENCE else f"launch for {audience}"
    if way == "event":
        entry = journey.entry
        return entry.described if isinstance(entry, EventEntry) else "an event"
    if isinstance(journey.entry, SegmentEntry):
        return journey.entry.described
    return "another journey"


def _label(*lines: str) -> str:
    """A quoted label, in which Mermaid interprets no character."""
    text = "<br/>".join(line.translate(_ENTITIES) for line in lines if line)
    return f'"{text}"'


_ENTITIES = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"})
