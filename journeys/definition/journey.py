"""A journey: its entry, steps, exit rule and goal, as validated data.

A journey and the sources of its templates form a *version*. The database stores each version, so
that an enrollment finishes on the version it entered.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, model_validator

from channels.templates.compile import Template, compile_template
from config.clock.times import DAY, Duration
from config.text.strict import Strict
from journeys.definition.graph import Node, build_graph
from journeys.definition.steps import (
    ExperimentStep,
    MessageSpec,
    SendStep,
    SplitStep,
    Step,
    WaitUntilStep,
)
from profiles.conditions.language import Condition, Did, PropertyTest


class After(Strict):
    """Re-entry is allowed once `after` seconds have passed since the previous entry."""

    after: Duration


Again = Literal["once", "always"] | After


class _Entry(Strict):
    again: Again = "once"


class EventEntry(_Entry):
    """Enter on an event. `key` names the property, such as a cart id, that gives the entry key.

    max_age: seconds. An event of this age or older, when it is received, enters nobody.
    """

    type: Literal["event"] = "event"
    event: str
    where: tuple[PropertyTest, ...] = ()
    key: str | None = None
    max_age: Duration = Field(default=DAY, gt=0, exclude_if=lambda age: age == DAY)

    @property
    def described(self) -> str:
        """The entry in a few words."""
        return f"event {self.event}"


class SegmentEntry(_Entry):
    """Enter when a profile joins a segment.

    If an event or a change of the profile is the cause, the profile enters at once. If only time
    has passed, it enters when a worker or a flow run next examines all profiles.
    """

    type: Literal["segment"] = "segment"
    segment: str

    @property
    def described(self) -> str:
        """The entry in a few words."""
        return f"segment {self.segment}"


class ScheduleEntry(_Entry):
    """Enter a segment at the times of a cron expression in a time zone."""

    type: Literal["schedule"] = "schedule"
    segment: str
    cron: str
    timezone: str

    @property
    def described(self) -> str:
        """The entry in a few words."""
        return f"schedule {self.cron} ({self.timezone}), segment {self.segment}"


class LaunchEntry(_Entry):
    """Enter only by a launch."""

    type: Literal["launch"] = "launch"

    @property
    def described(self) -> str:
        """The entry in a few words."""
        return "launch"


Entry = Annotated[
    EventEntry | SegmentEntry | ScheduleEntry | LaunchEntry, Field(discriminator="type")
]


class Goal(Strict):
    """The event that converts an enrollment, at most once.

    within: seconds after the entry, or after any message of the enrollment (see `after`).
    """

    did: Did
    within: Duration
    after: Literal["entry", "message"] = Field(
        default="entry", exclude_if=lambda after: after == "entry"
    )


class Journey(Strict):
    """A journey as a journey file defines it: `Journey("welcome", entry=..., steps=[...])`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    description: str = ""
    entry: Entry
    exit_when: Condition | None = None
    goal: Goal | None = None
    topic: str = Field(min_length=1)
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    steps: tuple[Step, ...] = Field(min_length=1)

    def __init__(self, name: str, **parts: Any) -> None:
        super().__init__(**{"name": name, **parts})

    @cached_property
    def graph(self) -> dict[str, Node]:
        """The steps as a graph, in topological order."""
        return build_graph(self.steps)

    @model_validator(mode="after")
    def _graph_is_sound(self) -> "Journey":
        _ = self.graph
        return self

    @property
    def first_step(self) -> str:
        """The name of the step at which enrollments start."""
        return self.steps[0].name

    def awaited(self) -> Iterator[Condition]:
        """The conditions of the exit rule and of the WaitUntil steps."""
        if self.exit_when is not None:
            yield self.exit_when
        for node in self.graph.values():
            if isinstance(node.step, WaitUntilStep):
                yield node.step.condition

    def conditions(self) -> Iterator[Condition]:
        """Every condition that is evaluated for enrollments."""
        yield from self.awaited()
        if self.goal is not None:
            yield self.goal.did
        for node in self.graph.values():
            if isinstance(node.step, SplitStep):
                yield from (way.condition for way in node.step.ways)

    def sends(self) -> list[SendStep]:
        """Every Send step of the journey, in graph order."""
        return [node.step for node in self.graph.values() if isinstance(node.step, SendStep)]


class Version:
    """A journey with the sources of its templates, by file name.

    digest: names the version. A stored version keeps its digest, even if a later Segue serializes
    the same definition differently.
    """

    def __init__(
        self, journey: Journey, sources: Mapping[str, str], digest: str | None = None
    ) -> None:
        self.journey = journey
        self.sources = dict(sources)
        self.digest = digest or self._digest()

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any], digest: str) -> "Version":
        """Restore a version from its stored definition and digest."""
        journey = Journey.model_validate(definition["journey"])
        return cls(journey, definition["templates"], digest)

    def with_promotions(self, arms: Mapping[str, str]) -> "Version":
        """This version with promoted arms, by the names of the steps.

        Steps that are no experiments of this version, and arms that they do not have, are ignored.
        """
        known = {
            name: arm
            for name, arm in arms.items()
            if name in self.journey.graph
            and isinstance(step := self.journey.graph[name].step, ExperimentStep)
            and arm in step.outcomes()
        }
        if not known:
            return self
        steps = [_promoted(step, known) for step in self.definition["journey"]["steps"]]
        journey = Journey.model_validate({**self.definition["journey"], "steps": steps})
        return Version(journey, self.sources)

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The version as the JSON that the database stores."""
        journey = self.journey.model_dump(mode="json")
        return {"journey": journey, "templates": self.sources}

    def _digest(self) -> str:
        """The first 12 hex digits of the SHA-256 of the definition, with sorted keys."""
        packed = orjson.dumps(self.definition, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(packed).hexdigest()[:12]

    def template(self, message: MessageSpec) -> Template:
        """Compile the template of a message. Raises TemplateError with the file, line and fix."""
        return compile_template(message.channel, message.template, self.sources)


def _promoted(part: Any, arms: Mapping[str, str]) -> Any:
    """A part of a definition with the promoted arms in its experiments, at any depth."""
    if isinstance(part, list):
        return [_promoted(one, arms) for one in part]
    if not isinstance(part, dict):
        return part
    within = {name: _promoted(one, arms) for name, one in part.items()}
    if part.get("type") == "experiment" and part.get("name") in arms:
        within["promoted"] = arms[part["name"]]
    return within
