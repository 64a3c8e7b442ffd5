"""Fill in the segments that conditions name: `in_segment("lapsed")`, `segment = "lapsed"`."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from config.errors import SegueError
from config.text.suggestions import meant
from journeys.definition.journey import Journey, Version
from journeys.definition.segment import Segment
from profiles.conditions.language import AllOf, AnyOf, Condition, InSegment, Not


def nest(segments: Mapping[str, Segment]) -> tuple[dict[str, Segment], list[SegueError]]:
    """The segments with the conditions of those that they name, and the errors.

    A segment with an error is left out: it names one that does not exist, or itself by others.
    """
    done: dict[str, Segment] = {}
    faults: dict[str, SegueError] = {}
    for name in segments:
        _fill(name, segments, done, faults, ())
    circles = {str(fault): fault for fault in faults.values()}
    return {name: done[name] for name in segments if name in done}, list(circles.values())


def _fill(
    name: str,
    segments: Mapping[str, Segment],
    done: dict[str, Segment],
    faults: dict[str, SegueError],
    way: tuple[str, ...],
) -> None:
    """Put the segment into `done` or `faults`. way: the segments that led to it."""
    if name in done or name in faults:
        return
    try:
        if name in way:
            circle = " -> ".join((*way[way.index(name) :], name))
            raise SegueError(
                f"segment {name!r} is part of itself: {circle}; take one of these out of the other"
            )
        names = sorted({one.segment for one in _named(segments[name].condition)})
        for other in names:
            if other not in segments:
                raise _unknown(f"segment {name!r}", other, segments)
            _fill(other, segments, done, faults, (*way, name))
            if other in faults:
                raise faults[other]
        condition = _filled(segments[name].condition, done)
        done[name] = replace(segments[name], condition=condition)
    except SegueError as fault:
        faults[name] = fault


def _named(condition: Condition) -> list[InSegment]:
    match condition:
        case InSegment():
            return [condition]
        case AllOf() | AnyOf():
            return [one for part in condition.conditions for one in _named(part)]
        case Not():
            return _named(condition.condition)
        case _:
            return []


def _filled(condition: Condition, segments: Mapping[str, Segment]) -> Condition:
    match condition:
        case InSegment():
            found = segments[condition.segment].condition
            return InSegment(segment=condition.segment, condition=found)
        case AllOf():
            return AllOf(conditions=tuple(_filled(one, segments) for one in condition.conditions))
        case AnyOf():
            return AnyOf(conditions=tuple(_filled(one, segments) for one in condition.conditions))
        case Not():
            return Not(condition=_filled(condition.condition, segments))
        case _:
            return condition


def filled(condition: Condition, segments: Mapping[str, Segment], where: str) -> Condition:
    """The condition with those of the segments that it names. Raises SegueError for a segment that
    does not exist; its text begins with `where`.
    """
    for one in _named(condition):
        if one.segment not in segments:
            raise _unknown(where, one.segment, segments)
    return _filled(condition, segments)


def with_segments(version: Version, segments: Mapping[str, Segment]) -> Version:
    """The version with the conditions of the segments that its own conditions name.

    They are part of the version: people in the journey keep them when a segment changes. Raises
    SegueError for a segment that does not exist.
    """
    journey = version.journey
    names = [one.segment for part in journey.conditions() for one in _named(part)]
    if not names:
        return version
    for name in names:
        if name not in segments:
            raise _unknown(f"journey {journey.name}, in_segment({name!r})", name, segments)
    conditions = {name: segments[name].condition.model_dump(mode="json") for name in names}
    definition = _with(version.definition["journey"], conditions)
    return Version(Journey.model_validate(definition), version.sources)


def _with(part: Any, conditions: Mapping[str, Any]) -> Any:
    """A part of a definition, with the conditions of segments, at any depth."""
    if isinstance(part, list):
        return [_with(one, conditions) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "in_segment":
        return {**part, "condition": conditions[part["segment"]]}
    return {name: _with(one, conditions) for name, one in part.items()}


def _unknown(where: str, name: str, segments: Collection[str]) -> SegueError:
    return SegueError(
        f"{where}: there is no segment {name!r}; {meant(name, segments)}there are: "
        f"{', '.join(sorted(segments))}"
    )
