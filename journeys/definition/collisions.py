"""Warn of messages that a cap always refuses, because another message has always filled it.

Two messages meet if one follows the other, or if one event causes both, and the time between them
is bounded: nothing for caps of calendar periods, whose period may end in between, and less than the
period for rolling caps. Messages that are deferred are late, not refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from channels.rules.caps import Counted, counts
from config.clock.times import Seconds
from config.policy import Cap, Policy
from journeys.definition.graph import END
from journeys.definition.journey import EventEntry, Journey
from journeys.definition.steps import (
    NEXT,
    TIMEOUT,
    MessageSpec,
    SendStep,
    Step,
    WaitStep,
    WaitUntilStep,
)
from profiles.conditions.language import Did


class _Reached(NamedTuple):
    """A Send step that is reached at most `within` seconds after something."""

    journey: Journey
    step: SendStep
    within: Seconds

    @property
    def shown(self) -> str:
        return f"{self.journey.name} / {self.step.name}"


def collision_warnings(journeys: Mapping[str, Journey], policy: Policy) -> list[str]:
    """The messages that can never be sent after another one, as texts."""
    found: dict[str, None] = {}
    for journey in journeys.values():
        for step in journey.sends():
            for later in _after(journey, step.name):
                if cap := _filled(policy, _Reached(journey, step, 0), later):
                    found[
                        f"{later.shown} is never sent where {step.name!r} was: nothing is between "
                        f"them, and the cap {str(cap)!r} is full. Put a Wait before it, or "
                        'on_cap="defer"'
                    ] = None
    for event, together in sorted(_by_event(journeys).items()):
        for first, second in _pairs(together):
            if cap := _filled(policy, first, second):
                found[
                    f"{second.shown} is never sent where {first.shown} was: both follow "
                    f"{event!r}, and the cap {str(cap)!r} is full. Put a Wait before it, or "
                    'on_cap="defer"'
                ] = None
    return list(found)


def _pairs(together: Sequence[_Reached]) -> Iterator[tuple[_Reached, _Reached]]:
    """Messages of different journeys, that of the higher priority first."""
    ordered = sorted(together, key=lambda one: (-one.journey.priority, one.within, one.shown))
    for place, first in enumerate(ordered):
        for second in ordered[place + 1 :]:
            if first.journey is not second.journey:
                yield first, second


def _filled(policy: Policy, first: _Reached, second: _Reached) -> Cap | None:
    """The cap by which the second send is refused if the first one was sent."""
    for message in second.step.messages:
        if message.on_cap == "defer" or second.step.kind != "marketing":
            continue
        for cap in policy.caps:
            used = sum(counts(cap, _counted(first, one)) for one in _sent(first.step))
            apart = max(first.within, second.within) + message.after
            near = apart < cap.within if cap.within is not None else apart == 0
            if 0 < cap.limit <= used and near and counts(cap, _counted(second, message)):
                return cap
    return None


def _sent(step: SendStep) -> Sequence[MessageSpec]:
    """The messages that the step sends at once."""
    return step.messages[:1] if step.mode == "first" else step.messages


def _counted(one: _Reached, message: MessageSpec) -> Counted:
    return Counted(
        send_at=0,
        channel=message.channel,
        kind=one.step.kind,
        topic=one.step.topic or one.journey.topic,
    )


def _by_event(journeys: Mapping[str, Journey]) -> dict[str, list[_Reached]]:
    """The sends that an event causes, by its name."""
    found: dict[str, list[_Reached]] = {}
    for journey in journeys.values():
        entry = journey.entry
        if isinstance(entry, EventEntry):
            found.setdefault(entry.event, []).extend(_from(journey, journey.first_step, 0))
        for node in journey.graph.values():
            if isinstance(node.step, WaitUntilStep) and isinstance(node.step.condition, Did):
                target = node.edges.get(NEXT, END)
                found.setdefault(node.step.condition.event, []).extend(_from(journey, target, 0))
    return found


def _after(journey: Journey, step: str) -> Iterator[_Reached]:
    """The sends behind a Send step, up to the next one on each way."""
    for target in journey.graph[step].edges.values():
        yield from _from(journey, target, 0)


def _from(journey: Journey, place: str, within: Seconds) -> Iterator[_Reached]:
    if place == END:
        return
    node = journey.graph[place]
    step = node.step
    if isinstance(step, SendStep):
        yield _Reached(journey, step, within)
        return
    for outcome, target in node.edges.items():
        lasts = _lasts(step, outcome)
        if lasts is not None:
            yield from _from(journey, target, within + lasts)


def _lasts(step: Step, outcome: str) -> Seconds | None:
    """How long a step takes at most on its way to an outcome; None: unknown."""
    if isinstance(step, WaitStep):
        return step.duration
    if isinstance(step, WaitUntilStep):
        return step.timeout if outcome == TIMEOUT else None
    return 0
