"""The steps of a journey as its page shows them: a list in which branches are lists. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from config.clock.times import HOUR, MINUTE
from flows.http.staff.words import channel_heading, counted, duration
from journeys.definition.steps import (
    FAILED,
    HOLDOUT,
    MISSING,
    NEXT,
    OTHERWISE,
    TIMEOUT,
    CallStep,
    EnterStep,
    ExitStep,
    ExperimentStep,
    SendStep,
    SplitStep,
    Step,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from profiles.conditions.words import in_words

_KINDS: Mapping[str, str] = {
    "send": "Send",
    "wait": "Wait",
    "wait_until": "Wait until",
    "split": "Split",
    "experiment": "Experiment",
    "update": "Set attributes",
    "call": "Call a server",
    "enter": "Enter another journey",
    "exit": "Leave",
}
_MODES = {
    "any": "every message that can be sent",
    "all": "all messages together, or none",
    "first": "the first message that can be sent",
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class StepFigures(NamedTuple):
    """Counts of a journey by step. here: people at it now. left: those who left it, by outcome.
    messages: by step, channel and fate (sent, planned, not sent). converted: by step and outcome,
    how many people took it and how many of them converted; empty: not counted."""

    here: Mapping[str, int]
    left: Mapping[tuple[str, str], int]
    messages: Mapping[tuple[str, str, str], int]
    converted: Mapping[tuple[str, str], tuple[int, int]]


class ShownMessage(NamedTuple):
    """A message of a Send step. counts: `120 sent, 3 planned`."""

    member: str
    channel: str
    template: str
    details: str
    counts: str


class ShownBranch(NamedTuple):
    """A way out of a step, with its own steps; empty: it goes on with the next step.

    converted: `4.2 % converted`, of those who took it; empty: not counted.
    """

    label: str
    taken: int
    share: str
    converted: str
    steps: Sequence["ShownStep"]


class ShownStep(NamedTuple):
    """A step. here: people at it now; left: people who have left it; converted: of those.

    is_end: people leave the journey here.
    """

    name: str
    kind: str
    is_send: bool
    is_experiment: bool
    is_end: bool
    details: Sequence[str]
    messages: Sequence[ShownMessage]
    branches: Sequence[ShownBranch]
    here: int
    left: int
    converted: str


def shown_steps(steps: Sequence[Step], figures: StepFigures) -> list[ShownStep]:
    """The steps in their order."""
    return [_shown(step, figures) for step in steps]


def _shown(step: Step, figures: StepFigures) -> ShownStep:
    left = Counter({outcome: n for (name, outcome), n in figures.left.items() if name == step.name})
    return ShownStep(
        name=step.name,
        kind=_KINDS[step.type],
        is_send=isinstance(step, SendStep),
        is_experiment=isinstance(step, ExperimentStep),
        is_end=isinstance(step, ExitStep),
        details=list(_details(step)),
        messages=list(_messages(step, figures)) if isinstance(step, SendStep) else [],
        branches=list(_branches(step, left, figures)),
        here=figures.here.get(step.name, 0),
        left=left.total(),
        converted=_converted(
            counted for (name, _), counted in figures.converted.items() if name == step.name
        ),
    )


def _converted(counts: Iterable[tuple[int, int]]) -> str:
    """The share of people who converted, of (people, converted)."""
    every = list(counts)
    people = sum(one for one, _ in every)
    return (
        f"{sum(one for _, one in every) / people:.1%} converted".replace("%", " %")
        if people
        else ""
    )


def _details(step: Step) -> Iterator[str]:
    match step:
        case SendStep():
            if len(step.messages) > 1:
                yield _MODES[step.mode]
            if step.kind == "transactional":
                yield "transactional: consent to marketing, sending hours and caps do not apply"
            if step.topic:
                yield f"topic {step.topic}"
            if step.fallback_after is not None:
                yield f"the next one after {duration(step.fallback_after)}, unless {step.unless}"
            if step.stop_on:
                yield f"what is left is cancelled once one is {step.stop_on}"
        case WaitStep():
            yield _wait(step)
        case WaitUntilStep():
            yield in_words(step.condition)
            yield f"for {duration(step.timeout)} at most"
        case ExperimentStep(promoted=str(arm)):
            yield f"it is over: everybody takes {arm}"
        case UpdateStep():
            yield ", ".join(f"{name} = {value}" for name, value in step.attributes.items())
        case CallStep():
            yield f"{urlsplit(step.url).netloc}, {counted(step.tries, 'attempt')} at most"
            if step.on_error == "exit":
                yield "who fails leaves the journey"
        case EnterStep():
            yield step.journey
        case ExitStep():
            yield step.reason


def _wait(step: WaitStep) -> str:
    if step.duration is not None:
        return f"for {duration(step.duration)}"
    at = "" if step.time is None else f"{step.time // HOUR}:{step.time % HOUR // MINUTE:02}"
    if step.date is not None:
        text = f"until {'the next anniversary of ' if step.yearly else ''}the date {step.date}"
        if step.before or step.after:
            word = "before" if step.before else "after"
            text = f"until {duration(step.before or step.after)} {word} {text[len('until ') :]}"
    else:
        days = ", ".join(_DAYS[day] for day in step.days or ())
        text = f"until {days}" if days else "until"
    return f"{text} {at} in the customer’s time zone".replace("  ", " ") if at else text


def _messages(step: SendStep, figures: StepFigures) -> Iterator[ShownMessage]:
    for one in step.messages:
        details = []
        if one.after:
            details.append(f"{duration(one.after)} later")
        if one.on_cap == "defer":
            details.append("waits if a frequency cap is full")
        counts = [
            f"{n:,} {fate}"
            for (name, channel, fate), n in figures.messages.items()
            if (name, channel) == (step.name, one.channel)
        ]
        yield ShownMessage(
            member=one.member,
            channel=channel_heading(one.channel),
            template=one.template,
            details=", ".join(details),
            counts=", ".join(counts),
        )


def _branches(step: Step, left: Counter[str], figures: StepFigures) -> Iterator[ShownBranch]:
    within = dict(step.branches())
    labels = _labels(step)
    if not labels:
        return
    for outcome, label in labels.items():
        taken = left[outcome]
        share = f"{taken / left.total():.0%}".replace("%", " %") if left.total() else ""
        yield ShownBranch(
            label=label,
            taken=taken,
            share=share,
            converted=_converted([figures.converted.get((step.name, outcome), (0, 0))]),
            steps=shown_steps(within.get(outcome, ()), figures),
        )


def _labels(step: Step) -> dict[str, str]:
    """The ways out of a step by outcome, if it has several."""
    match step:
        case SplitStep():
            ways = {way.name: f"{way.name}: if {in_words(way.condition)}" for way in step.ways}
            return {**ways, OTHERWISE: "otherwise"}
        case ExperimentStep():
            weights = sum(arm.weight for arm in step.arms)
            rest = 100 - step.holdout
            arms = {
                arm.name: f"{arm.name}: {rest * arm.weight / weights:.3g} %" for arm in step.arms
            }
            return {**arms, **({HOLDOUT: f"no arm: {step.holdout} %"} if step.holdout else {})}
        case WaitUntilStep():
            return {NEXT: "it happened", TIMEOUT: f"not within {duration(step.timeout)}"}
        case WaitStep(missing=tuple()):
            return {NEXT: "the date is known", MISSING: "the date is not known"}
        case CallStep(on_error="continue"):
            return {NEXT: "it worked", FAILED: "it failed"}
        case _:
            return {}
