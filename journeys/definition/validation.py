"""Checks of journeys beyond their types; an error names the journey, the step and the fix.

They apply when the library is loaded. Stored versions are not checked: a rule may be newer than
the version, and its enrollments must still be able to finish.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from channels.rules.recipient import WHOLE_CHANNEL
from channels.templates.compile import TemplateError
from config.channels import Channel, channel_of
from config.clock.zones import zone_names
from config.errors import SegueError
from config.policy import Policy
from config.text.suggestions import meant
from journeys.definition.journey import (
    After,
    EventEntry,
    Journey,
    ScheduleEntry,
    SegmentEntry,
    Version,
)
from journeys.definition.steps import EnterStep, SendStep, UpdateStep, WaitStep
from profiles.conditions.language import PROFILE_COLUMNS
from profiles.consent.double_opt_in import CONFIRMATION_REQUESTED, CONFIRMED_ON

_CRON = "write minute, hour, day of month, month and weekday, as in '0 8 * * mon'"


class InvalidJourney(SegueError):
    """An error in a journey. The text names the journey, the place in it and the fix."""

    def __init__(self, journey: Journey, where: str, what: str) -> None:
        super().__init__(f"journey {journey.name}, {where}: {what}")


def find_faults(
    versions: Mapping[str, Version], segments: Collection[str], policy: Policy
) -> Iterator[InvalidJourney]:
    """The errors in a library: in the entry and the steps of each journey, and between several.

    versions: by the journey's name. segments: the names of the existing segments.
    """
    journeys = {name: version.journey for name, version in versions.items()}
    checks: list[Callable[[], None]] = []
    for version in versions.values():
        checks.append(partial(_check_entry, version.journey, segments))
        checks.append(partial(_check_entry_keys, version.journey))
        for node in version.journey.graph.values():
            match node.step:
                case EnterStep():
                    checks.append(partial(_check_enter, version.journey, node.step, journeys))
                case UpdateStep():
                    checks.append(partial(_check_update, version.journey, node.step))
                case SendStep():
                    checks.append(partial(_check_send, version.journey, node.step, policy))
                    checks.append(partial(_check_templates, version, node.step))
    found = False
    for one in checks:
        try:
            one()
        except InvalidJourney as fault:
            found = True
            yield fault
    if not found:
        try:
            _check_cycles(journeys)
        except InvalidJourney as fault:
            yield fault


# Entries ------------------------------------------------------------------------------------------


def _check_entry(journey: Journey, segments: Collection[str]) -> None:
    entry = journey.entry
    if isinstance(entry, SegmentEntry | ScheduleEntry) and entry.segment not in segments:
        known = ", ".join(sorted(segments))
        raise InvalidJourney(
            journey,
            "entry",
            f"there is no segment {entry.segment!r}; {meant(entry.segment, segments)}"
            f"there are: {known}",
        )
    if isinstance(entry, ScheduleEntry):
        if fault := _unreadable(entry.cron):
            raise InvalidJourney(journey, "entry", f"cron {entry.cron!r}: {fault}; {_CRON}")
        if entry.timezone not in zone_names():
            raise InvalidJourney(
                journey,
                "entry",
                f"there is no time zone {entry.timezone!r}; write its IANA name, as in "
                "Europe/London",
            )


def _check_entry_keys(journey: Journey) -> None:
    """`did(..., same=key)` compares with the entry key, so the entry must have that key."""
    entry = journey.entry
    key = entry.key if isinstance(entry, EventEntry) else None
    for condition in journey.conditions():
        for name in condition.entry_keys():
            if name != key:
                raise InvalidJourney(
                    journey,
                    f"did(..., same={name!r})",
                    f"the entry's key is {key!r}, so events can't be matched by {name!r}; write "
                    f"OnEvent(..., key={name!r}) as the entry, or leave same= out",
                )


def _unreadable(cron: str) -> str | None:
    """What is wrong with a cron expression; None: it is valid here and in Prefect."""
    fields = cron.upper().split()
    if len(fields) != 5:
        return f"it has {len(fields)} fields, and a cron line has five fields"
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        return str(error).replace("Bad", "bad")
    # CronSim accepts LW (last weekday of the month) and 5L (last Friday); Prefect does not.
    if "W" in fields[2]:
        return "bad day-of-month"
    return "bad day-of-week" if "L" in fields[4] else None


def _check_enter(journey: Journey, step: EnterStep, journeys: Collection[str]) -> None:
    if step.journey not in journeys:
        known = ", ".join(sorted(journeys))
        raise InvalidJourney(
            journey,
            f"step {step.name!r}",
            f"no journey {step.journey!r}; {meant(step.journey, journeys)}there are: {known}",
        )


# Updates ------------------------------------------------------------------------------------------


def _check_update(journey: Journey, step: UpdateStep) -> None:
    """Refuse updates of profile columns (time zone, country, language).

    They decide sending windows and translations, so only data from the customer may set them.
    """
    for name in step.attributes:
        if name in PROFILE_COLUMNS:
            raise InvalidJourney(
                journey,
                f"step {step.name!r}",
                f"{name!r} is not an attribute: it comes from the customer's own data; choose "
                "another name",
            )


# Sends --------------------------------------------------------------------------------------------


def _check_send(journey: Journey, step: SendStep, policy: Policy) -> None:
    where = f"step {step.name!r}"
    if step.stop_on == "converted" and journey.goal is None:
        raise InvalidJourney(
            journey,
            where,
            'stop_on="converted" waits for the goal, and the journey has none; give it '
            "goal=Goal(...)",
        )
    for channel, option, evidence in _never_reported(step):
        reported = [
            f'{option}="{known}" (reported by {who})'
            for known, who in channel.evidence.items()
            if known != "replied"
        ]
        instead = f"use {' or '.join(reported)}, or " if reported else ""
        raise InvalidJourney(
            journey,
            where,
            f"nothing reports that {channel.plural} were {evidence}, so "
            f'{option}="{evidence}" would wait forever; {instead}make it the last message',
        )
    topic = step.topic or journey.topic
    about_none = topic == WHOLE_CHANNEL and step.kind == "transactional"
    if policy.topics and topic not in policy.topics and not about_none:
        raise InvalidJourney(
            journey,
            where,
            f"the policy has no topic {topic!r}; {meant(topic, policy.topics)}it has: "
            f"{', '.join(policy.topics)}",
        )


def _never_reported(step: SendStep) -> Iterator[tuple[Channel, str, str]]:
    """The evidence that later messages depend on and that the message's channel never reports.

    Yields the channel, the option (`unless` or `stop_on`) and the evidence.
    """
    latest = max(message.after for message in step.messages)
    for number, message in enumerate(step.messages):
        channel = channel_of(message.channel)
        if step.unless and number + 1 < len(step.messages) and step.unless not in channel.evidence:
            yield channel, "unless", step.unless
        waits = step.stop_on in ("opened", "clicked") and message.after < latest
        if step.stop_on and waits and step.stop_on not in channel.evidence:
            yield channel, "stop_on", step.stop_on


# Templates ----------------------------------------------------------------------------------------


class _Provided(NamedTuple):
    """What templates may use: the first part of a variable, and the names under `links`."""

    roots: frozenset[str]
    links: frozenset[str]


def _check_templates(version: Version, step: SendStep) -> None:
    journey, where = version.journey, f"step {step.name!r}"
    provided = _provided(journey, step)
    for message in step.messages:
        try:
            template = version.template(message)
        except TemplateError as error:
            raise InvalidJourney(journey, where, str(error)) from error
        for variable in sorted(template.variables):
            if fault := _unprovided(variable, provided):
                raise InvalidJourney(
                    journey,
                    where,
                    f"template {message.member} uses {{{{ {variable} }}}}: {fault}",
                )


def _provided(journey: Journey, step: SendStep) -> _Provided:
    roots = {"profile", "trait", "group", "brand", "links"}
    if isinstance(journey.entry, EventEntry):
        roots.add("event")
    links = {"preferences"}
    if asks_to_confirm(journey) and all(one.channel == CONFIRMED_ON for one in step.messages):
        links.add("confirm")
    if step.kind == "marketing":
        links.add("unsubscribe")
    return _Provided(frozenset(roots), frozenset(links))


def asks_to_confirm(journey: Journey) -> bool:
    """Whether the journey's entry event requests a double opt-in e-mail."""
    entry = journey.entry
    return isinstance(entry, EventEntry) and entry.event == CONFIRMATION_REQUESTED


def _unprovided(variable: str, provided: _Provided) -> str | None:
    root, _, rest = variable.partition(".")
    if root not in provided.roots:
        given = ", ".join(sorted(provided.roots))
        return f"{root!r} is not available here; templates may use {given}"
    if root == "links" and rest.split(".")[0] not in provided.links:
        given = ", ".join(sorted(provided.links))
        return f"there is no link of that name on this message; there are: {given}"
    return None


# Cycles -------------------------------------------------------------------------------------------


def _check_cycles(journeys: Mapping[str, Journey]) -> None:
    """Refuse journeys that enter each other in a cycle without a wait."""
    enters = {name: list(_enters_at_once(journey, journeys)) for name, journey in journeys.items()}
    for name in sorted(journeys):
        for step, other in enters[name]:
            if name in _reached(other, enters):
                back = "itself" if other == name else f"{other}, which leads back to this journey"
                raise InvalidJourney(
                    journeys[name],
                    f"step {step!r}",
                    f"it enters {back}, in an endless loop without a wait; put a Wait("
                    '"1h") before it, or limit the re-entry of one of the journeys (again=)',
                )


def _enters_at_once(journey: Journey, journeys: Mapping[str, Journey]) -> Iterator[tuple[str, str]]:
    """The Enter steps that can be reached in the second of the entry, with the journey they enter;
    only journeys that profiles can always re-enter.
    """
    reached = {journey.first_step}
    for name, node in journey.graph.items():
        if name in reached and not (isinstance(node.step, WaitStep) and node.step.duration):
            reached.update(node.edges.values())
            if isinstance(node.step, EnterStep) and _always(journeys[node.step.journey]):
                yield name, node.step.journey


def _always(journey: Journey) -> bool:
    again = journey.entry.again
    return again == "always" or (isinstance(again, After) and again.after == 0)


def _reached(name: str, enters: Mapping[str, Collection[tuple[str, str]]]) -> set[str]:
    """A journey and all journeys that can be reached from it."""
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        reached.add(one := ahead.pop())
        ahead += [other for _, other in enters[one] if other not in reached]
    return reached
