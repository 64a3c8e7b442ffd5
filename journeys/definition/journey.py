"""A journey: who enters, what happens to them, when they leave and what counts as success.

A journey is data. With the sources of its templates it makes a *version*, which the database
keeps, so that people run to its end on what they entered.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from channels.templates.compile import Template, compile_template
from config.times import DAY, Duration
from journeys.definition.graph import Node, build_graph
from journeys.definition.steps import MessageSpec, SendStep, SplitStep, Step, WaitUntilStep
from profiles.conditions.language import Condition, Did, PropertyTest


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class After(_Part):
    """Again, but not before so long after the last entry."""

    after: Duration


Again = Literal["once", "always"] | After


class _Entry(_Part):
    again: Again = "once"


class EventEntry(_Entry):
    """Enter on an event; `key` names the property (a cart's id) that keeps entries apart.

    max_age: an event that was older when it was received is history and enters nobody.
    """

    type: Literal["event"] = "event"
    event: str
    where: tuple[PropertyTest, ...] = ()
    key: str | None = None
    max_age: Duration = Field(default=DAY, gt=0, exclude_if=lambda age: age == DAY)


class SegmentEntry(_Entry):
    """Enter when one comes into a segment.

    At once where an event or a change of the profile brings them in; where time alone does, when a
    worker or a run of the journey looks through everybody.
    """

    type: Literal["segment"] = "segment"
    segment: str


class ScheduleEntry(_Entry):
    """Enter a segment at the times of a cron line in a time zone."""

    type: Literal["schedule"] = "schedule"
    segment: str
    cron: str
    timezone: str


class LaunchEntry(_Entry):
    """Enter only when a person or a program launches the journey."""

    type: Literal["launch"] = "launch"


Entry = Annotated[
    EventEntry | SegmentEntry | ScheduleEntry | LaunchEntry, Field(discriminator="type")
]


class Goal(_Part):
    """What the journey is for, counted once an enrollment: so long after the entry or a message."""

    did: Did
    within: Duration
    after: Literal["entry", "message"] = Field(
        default="entry", exclude_if=lambda after: after == "entry"
    )


class Journey(_Part):
    """A journey as a marketer describes it: `Journey("welcome", entry=..., steps=[...])`."""

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
        return self.steps[0].name

    def awaited(self) -> Iterator[Condition]:
        """What people may be waiting for, or leave at."""
        if self.exit_when is not None:
            yield self.exit_when
        for node in self.graph.values():
            if isinstance(node.step, WaitUntilStep):
                yield node.step.condition

    def conditions(self) -> Iterator[Condition]:
        """Every condition that is asked of people who are in the journey."""
        yield from self.awaited()
        if self.goal is not None:
            yield self.goal.did
        for node in self.graph.values():
            if isinstance(node.step, SplitStep):
                yield from (way.condition for way in node.step.ways)

    def sends(self) -> list[SendStep]:
        """Every send of the journey, in graph order."""
        return [node.step for node in self.graph.values() if isinstance(node.step, SendStep)]


class Version:
    """A journey with the sources of its templates, by file name.

    digest: names the version. One that was written down keeps the name it was written under, even
    where a later Segue would write the same definition in another way.
    """

    def __init__(
        self, journey: Journey, sources: Mapping[str, str], digest: str | None = None
    ) -> None:
        self.journey = journey
        self.sources = dict(sources)
        self.digest = digest or self._digest()

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any], digest: str) -> "Version":
        """The version that was written down as `definition` under that digest."""
        journey = Journey.model_validate(definition["journey"])
        return cls(journey, definition["templates"], digest)

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The version as JSON: what the database keeps."""
        journey = self.journey.model_dump(mode="json")
        return {"journey": journey, "templates": self.sources}

    def _digest(self) -> str:
        """The same definition has the same digest everywhere."""
        packed = orjson.dumps(self.definition, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(packed).hexdigest()[:12]

    def template(self, message: MessageSpec) -> Template:
        """The compiled template of a message. Raises TemplateError naming file, line and mend."""
        return compile_template(message.channel, message.template, self.sources)
