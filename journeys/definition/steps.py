"""The steps of a journey, as validated data.

A step name is unique within its journey. It appears in the Prefect run graph, in reports and in
explanations. The handlers that run the steps are in `journeys/engine/handlers.py`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from channels.rules.planner import Mode, OnCap
from channels.rules.recipient import Kind
from config.channels import ChannelName
from config.clock.times import Duration, Seconds
from config.policy import parse_time_of_day, parse_weekdays
from config.text.strict import Strict, describe_errors
from profiles.conditions.language import Condition

NEXT = "next"
TIMEOUT = "timeout"
OTHERWISE = "otherwise"
HOLDOUT = "holdout"
FAILED = "failed"
MISSING = "missing"
# The exit reason at a wait for a date, if the profile has no readable date and there is no
# `missing` branch.
NO_DATE = "no_date"

AwaitedEvidence = Literal["delivered", "opened", "clicked"]
TimeOfDay = Annotated[
    Seconds, BeforeValidator(lambda v: v if isinstance(v, int) else parse_time_of_day(v))
]
Weekdays = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda v: v if isinstance(v, tuple | list) else parse_weekdays(v)),
]


class _Step(Strict):
    name: str = Field(min_length=1, max_length=60)

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """Add the step's name to validation errors."""
        try:
            step = build(given)
            step.check()
        except ValueError as error:
            name = given.get("name") if isinstance(given, dict) else given
            what = describe_errors(error) if isinstance(error, ValidationError) else error
            raise ValueError(f"step {name!r}: {what}") from error
        return step

    def check(self) -> None:
        """Raise ValueError if the step's fields contradict each other."""

    def branches(self) -> Iterator[tuple[str, tuple["Step", ...]]]:
        """The nested branches: the outcome that leads to each, and its steps."""
        yield from ()

    def outcomes(self) -> list[str]:
        """The outcomes with which an enrollment can leave the step."""
        return [NEXT]


class MessageSpec(Strict):
    """One message of a Send step: its channel, template and timing.

    after: seconds after the group's anchor. on_cap: what happens if a cap is full.
    max_delay: the most seconds by which the message may be delayed; default: the policy's.
    """

    channel: ChannelName
    template: str
    after: Duration = 0
    on_cap: OnCap = "skip"
    max_delay: Duration | None = None

    @property
    def member(self) -> str:
        """The message's name, unique within the step: `channel:template`."""
        return f"{self.channel}:{self.template}"


class SendStep(_Step):
    """Send one message, or several together as a group."""

    type: Literal["send"] = "send"
    messages: tuple[MessageSpec, ...] = Field(min_length=1)
    mode: Mode = "any"
    kind: Kind = "marketing"
    topic: str | None = Field(default=None, description="default: the topic of the journey")
    fallback_after: Duration | None = None
    unless: AwaitedEvidence | None = None
    stop_on: Literal["opened", "clicked", "converted"] | None = None

    def check(self) -> None:
        members = [message.member for message in self.messages]
        if len(set(members)) < len(members):
            raise ValueError("one send has the same template twice; remove one")
        if (self.fallback_after is None) != (self.unless is None):
            raise ValueError("fallback_after and unless go together: give both or neither")
        if self.fallback_after is not None and self.mode != "first":
            raise ValueError('a fallback is for mode="first"; the other modes send all at once')


class WaitStep(_Step):
    """Wait for a duration, or until a local time, a weekday or a date attribute of the profile.

    A profile without a readable date takes the `missing` steps. If there are none, its enrollment
    ends with the reason `no_date`.
    """

    type: Literal["wait"] = "wait"
    duration: Duration | None = None
    time: TimeOfDay | None = Field(default=None, description="local time of day, HH:MM")
    days: Weekdays | None = Field(default=None, description="local weekdays, Monday 0")
    date: str | None = Field(default=None, description="attribute that holds a date, YYYY-MM-DD")
    yearly: bool = Field(
        default=False, description="use the date's next anniversary, as for a birthday"
    )
    before: Duration = Field(default=0, description="seconds before that date")
    after: Duration = Field(
        default=0, description="seconds after that date", exclude_if=lambda after: not after
    )
    missing: tuple["Step", ...] | None = Field(
        default=None,
        min_length=1,
        description="steps for profiles without a readable date",
        exclude_if=lambda missing: missing is None,
    )

    def check(self) -> None:
        until_local = self.time is not None or self.days is not None
        ways = (self.duration is not None) + (until_local and self.date is None)
        ways += self.date is not None
        if ways != 1 or (self.date is not None and self.days is not None):
            raise ValueError(
                "a wait has a duration, or a time and days, or a date and time; give one of them"
            )
        if self.date is None and (self.before or self.after or self.yearly):
            raise ValueError("before, after and yearly belong to a wait until a date")
        if self.before and self.after:
            raise ValueError("before and after exclude each other; give one of them")
        if self.missing is not None and self.date is None:
            raise ValueError("missing belongs to a wait until a date; give date= or remove missing")

    def branches(self) -> Iterator[tuple[str, tuple["Step", ...]]]:
        if self.missing is not None:
            yield MISSING, self.missing

    def outcomes(self) -> list[str]:
        return [NEXT] if self.missing is None else [NEXT, MISSING]


class WaitUntilStep(_Step):
    """Wait until a condition holds (`then`) or `timeout` seconds have passed (`on_timeout`)."""

    type: Literal["wait_until"] = "wait_until"
    condition: Condition
    timeout: Duration = Field(gt=0)
    then: tuple["Step", ...] = ()
    on_timeout: tuple["Step", ...] = ()

    def branches(self) -> Iterator[tuple[str, tuple["Step", ...]]]:
        yield NEXT, self.then
        yield TIMEOUT, self.on_timeout

    def outcomes(self) -> list[str]:
        return [NEXT, TIMEOUT]


class Branch(Strict):
    """One branch of a split, taken if its condition holds and no earlier one does."""

    name: str
    condition: Condition
    steps: tuple["Step", ...]


class SplitStep(_Step):
    """Take the first branch whose condition holds; if none does, the `otherwise` steps."""

    type: Literal["split"] = "split"
    ways: tuple[Branch, ...] = Field(min_length=1)
    otherwise: tuple["Step", ...] = ()

    def check(self) -> None:
        names = [way.name for way in self.ways]
        if len(set(names)) < len(names) or OTHERWISE in names:
            raise ValueError(
                f"the branches need different names, other than {OTHERWISE!r}: {names}"
            )

    def branches(self) -> Iterator[tuple[str, tuple["Step", ...]]]:
        for way in self.ways:
            yield way.name, way.steps
        yield OTHERWISE, self.otherwise

    def outcomes(self) -> list[str]:
        return [*(way.name for way in self.ways), OTHERWISE]


class Arm(Strict):
    """One arm of an experiment; its share is its weight divided by the sum of all weights."""

    name: str
    weight: Annotated[int, Field(ge=1)]
    steps: tuple["Step", ...]


class ExperimentStep(_Step):
    """Draw an arm deterministically: the same profile gets the same arm every time.

    holdout: percent of profiles that get no arm and continue with the next step.
    promoted: the outcome that everybody takes since the experiment is over. Journey files do not
    set it; `segue experiment --promote` does (docs/decisions/0035-promotion-and-holdout.md).
    """

    type: Literal["experiment"] = "experiment"
    arms: tuple[Arm, ...] = Field(min_length=1)
    holdout: Annotated[int, Field(ge=0, le=99)] = 0
    promoted: str | None = Field(default=None, exclude_if=lambda promoted: promoted is None)

    def check(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or HOLDOUT in names:
            raise ValueError(f"the arms need different names, other than {HOLDOUT!r}: {names}")
        if self.promoted is not None and self.promoted not in self.outcomes():
            raise ValueError(f"it has no arm {self.promoted!r} to promote")

    def branches(self) -> Iterator[tuple[str, tuple["Step", ...]]]:
        for arm in self.arms:
            yield arm.name, arm.steps
        if self.holdout:
            yield HOLDOUT, ()

    def outcomes(self) -> list[str]:
        return [*(arm.name for arm in self.arms), *([HOLDOUT] if self.holdout else [])]


class UpdateStep(_Step):
    """Set attributes on the profile."""

    type: Literal["update"] = "update"
    attributes: dict[str, bool | int | float | str | None] = Field(min_length=1)


class CallStep(_Step):
    """POST the profile's user id and the entry's context to a URL.

    After `tries` failed attempts `on_error` decides whether the enrollment continues or exits.
    """

    type: Literal["call"] = "call"
    url: str = Field(pattern=r"^https?://")
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    on_error: Literal["continue", "exit"] = "continue"

    def outcomes(self) -> list[str]:
        return [NEXT, FAILED] if self.on_error == "continue" else [NEXT]


class EnterStep(_Step):
    """Enter the profile into another journey, by that journey's re-entry rule."""

    type: Literal["enter"] = "enter"
    journey: str


class ExitStep(_Step):
    """End the enrollment with a reason."""

    type: Literal["exit"] = "exit"
    reason: str = "exit step"

    def outcomes(self) -> list[str]:
        return []


Step = Annotated[
    SendStep
    | WaitStep
    | WaitUntilStep
    | SplitStep
    | ExperimentStep
    | UpdateStep
    | CallStep
    | EnterStep
    | ExitStep,
    Field(discriminator="type"),
]
for _model in (WaitStep, WaitUntilStep, Branch, SplitStep, Arm, ExperimentStep):
    _model.model_rebuild()
