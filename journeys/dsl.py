"""The names that journey files and `segments.py` import: `from journeys.dsl import ...`.

`Journey` defines a journey; `OnEvent`, `OnSegment`, `OnSchedule` and `OnLaunch` define its entry.
The other functions build steps and conditions. All return validated values of
`journeys.definition` or `profiles.conditions`; docs/journeys/index.md is the reference. An invalid
value raises pydantic's ValidationError, which the catalog reports with the file and the line.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from config.channels import Channel, channels
from config.clock.times import days, format_duration, hours, minutes
from journeys.definition.journey import (
    After,
    Again,
    EventEntry,
    Goal,
    Journey,
    LaunchEntry,
    ScheduleEntry,
    SegmentEntry,
)
from journeys.definition.segment import Segment
from journeys.definition.steps import (
    Arm,
    Branch,
    CallStep,
    EnterStep,
    ExitStep,
    ExperimentStep,
    MessageSpec,
    SendStep,
    SplitStep,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from profiles.conditions.language import (
    Condition,
    Test,
    attribute,
    consented,
    did,
    everyone,
    group,
    has_address,
    in_segment,
    prop,
    trait,
)

__all__ = [
    "Call",
    "Enter",
    "Exit",
    "Experiment",
    "Goal",
    "Journey",
    "OnEvent",
    "OnLaunch",
    "OnSchedule",
    "OnSegment",
    "Segment",
    "Send",
    "Split",
    "Update",
    "Wait",
    "WaitUntil",
    "arm",
    "attribute",
    "consented",
    "days",
    "did",
    "everyone",
    "group",
    "has_address",
    "hours",
    "in_segment",
    "minutes",
    "prop",
    "trait",
    "when",
    *(channel.step for channel in channels().values()),
]

# Entries -----------------------------------------------------------------------------------------


def OnEvent(
    event: str,
    *where: Test,
    key: str | None = None,
    again: Again | timedelta = "once",
    max_age: timedelta | str = timedelta(days=1),
) -> EventEntry:
    """Enter on an event whose properties pass every test and that is younger than `max_age`.

    key: the property that gives the entry key. The event's age is measured when it is received.
    """
    return EventEntry.model_validate(
        {"event": event, "where": where, "key": key, "again": _again(again), "max_age": max_age}
    )


def OnSegment(segment: str, *, again: Again | timedelta = "once") -> SegmentEntry:
    """Enter when a profile joins a segment."""
    return SegmentEntry(segment=segment, again=_again(again))


def OnSchedule(
    cron: str, *, segment: str, timezone: str, again: Again | timedelta = "once"
) -> ScheduleEntry:
    """Enter a segment at the times of a cron expression in a time zone (IANA name)."""
    return ScheduleEntry(cron=cron, segment=segment, timezone=timezone, again=_again(again))


def OnLaunch(*, again: Again | timedelta = "once") -> LaunchEntry:
    """Enter only by a launch."""
    return LaunchEntry(again=_again(again))


def _again(again: Again | timedelta) -> Again:
    return After.model_validate({"after": again}) if isinstance(again, timedelta) else again


# Messages ----------------------------------------------------------------------------------------


def _writer(channel: Channel) -> Callable[..., MessageSpec]:
    def write(template: str, **options: Any) -> MessageSpec:
        given = {"channel": channel.name, "template": template, **options}
        return MessageSpec.model_validate(given)

    write.__name__ = write.__qualname__ = channel.step
    write.__doc__ = f"A message from `<template>.{channel.name}.*`; options as in MessageSpec."
    return write


# One function for each channel: Email, SMS, Push ...
globals().update({channel.step: _writer(channel) for channel in channels().values()})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., MessageSpec]:
        """Declare the channel functions to type checkers, which do not run the line above."""


# Steps -------------------------------------------------------------------------------------------


def Send(name: str, *messages: MessageSpec, **options: Any) -> SendStep:
    """Send messages together (mode `any` or `all`), or only the first that can be sent (`first`).

    options: the fields of SendStep.
    """
    return SendStep.model_validate({"name": name, "messages": messages, **options})


def Wait(duration: str | timedelta | None = None, name: str = "", **options: Any) -> WaitStep:
    """`Wait("2h")`, `Wait(time="09:00", days="mon-fri")`, `Wait(date="birthday", yearly=True)`.

    With a date, `missing=[steps]` are the steps for profiles without a readable date. Without a
    name, the step is named after its options.
    """
    if not name:
        if isinstance(duration, timedelta):
            duration = format_duration(int(duration.total_seconds()))
        parts = [duration, options.get("days"), options.get("time"), options.get("date")]
        name = "wait " + " ".join(str(part) for part in parts if part)
    return WaitStep.model_validate({"name": name, "duration": duration, **options})


def WaitUntil(
    name: str, condition: Condition, *, timeout: str | timedelta, **branches: list[Any]
) -> WaitUntilStep:
    """Wait until the condition holds (steps `then`) or the timeout passes (steps `on_timeout`)."""
    given = {"name": name, "condition": condition, "timeout": timeout, **branches}
    return WaitUntilStep.model_validate(given)


def when(condition: Condition, steps: list[Any], name: str = "yes") -> Branch:
    """A branch of a split."""
    return Branch(name=name, condition=condition, steps=tuple(steps))


def Split(name: str, *ways: Branch, otherwise: list[Any] | None = None) -> SplitStep:
    """Take the first branch whose condition holds; if none does, the `otherwise` steps."""
    return SplitStep(name=name, ways=ways, otherwise=tuple(otherwise or ()))


def arm(name: str, weight: int, steps: list[Any]) -> Arm:
    """An arm of an experiment. weight: relative to the other arms."""
    return Arm(name=name, weight=weight, steps=tuple(steps))


def Experiment(name: str, *arms: Arm, holdout: int = 0) -> ExperimentStep:
    """Assign each profile to an arm by weight; the same profile always gets the same arm.

    holdout: percent of profiles that get no arm.
    """
    return ExperimentStep(name=name, arms=arms, holdout=holdout)


def Update(name: str, **attributes: Any) -> UpdateStep:
    """Set attributes on the profile: `Update("mark", welcomed=True)`."""
    return UpdateStep(name=name, attributes=attributes)


def Call(name: str, url: str, **options: Any) -> CallStep:
    """POST the profile's user id and the entry's context to a URL. options: as in CallStep."""
    return CallStep.model_validate({"name": name, "url": url, **options})


def Enter(name: str, journey: str) -> EnterStep:
    """Enter the profile into another journey."""
    return EnterStep(name=name, journey=journey)


def Exit(name: str = "exit", reason: str = "exit step") -> ExitStep:
    """End the enrollment."""
    return ExitStep(name=name, reason=reason)
