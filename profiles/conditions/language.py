"""Conditions on attributes, consent and event history.

A condition is data with a JSON form; profiles/conditions/sql.py compiles it. In Python it is
written as:

    did("order_completed", within=days(30)) & (attribute("lifetime_value") > 200)

Comparisons are true or false, never NULL: a missing value or one of another type does not match.
`~` and `!=` negate this: `!=` matches all profiles that `==` does not match.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from config.channels import ChannelName
from config.clock.times import Duration
from config.text.strict import Strict
from profiles.attributes.companies import GROUP_ID
from profiles.conditions.json_path import parse_path

Operator = Literal["==", "!=", ">", ">=", "<", "<=", "in", "contains", "exists"]
# A "trait" is an attribute of the profile.
Of = Literal["trait", "property", "group", "computed"]
Scalar = bool | int | float | str
# Columns of the profile; every other name is an attribute.
PROFILE_COLUMNS = ("country", "timezone", "language")


class _Condition(Strict):
    model_config = ConfigDict(allow_inf_nan=False)

    def __and__(self, other: "Condition") -> "AllOf":
        return AllOf(conditions=(self, other))

    def __or__(self, other: "Condition") -> "AnyOf":
        return AnyOf(conditions=(self, other))

    def __invert__(self) -> "Not":
        return Not(condition=self)

    def __bool__(self) -> bool:
        raise TypeError("join conditions with & | ~, not with and, or, not")

    @property
    def parts(self) -> tuple["_Condition", ...]:
        """The conditions that it is made of."""
        return ()

    def event_names(self) -> Iterator[str]:
        """The events whose arrival can change the answer."""
        for part in self.parts:
            yield from part.event_names()

    def trait_names(self) -> Iterator[str]:
        """The attributes whose change can change the answer."""
        for part in self.parts:
            yield from part.trait_names()

    def computed_names(self) -> Iterator[str]:
        """The computed traits that it reads."""
        for part in self.parts:
            yield from part.computed_names()

    def entry_keys(self) -> Iterator[str]:
        """The properties in which events must equal the entry."""
        for part in self.parts:
            yield from part.entry_keys()


class Test(_Condition):
    """An attribute of the profile, a trait of its company, a property of an event, or a computed
    trait.

    It is compared with a value. The name may be a path (profiles/conditions/json_path.py). An
    attribute whose own name is written like a path is found before the path. Where lists are on the
    path, the test holds when it holds for at least one of their elements; `!=` is the opposite of
    `==` there too.
    """

    __test__ = False  # not a test case; pytest collects classes by this name

    type: Literal["test"] = "test"
    of: Of
    name: str = Field(pattern=r'^[^"]+$')
    op: Operator
    value: Scalar | tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _comparable(self) -> "Test":
        fits = (
            self.value is None
            if self.op == "exists"
            else self.value is not None and isinstance(self.value, tuple) == (self.op == "in")
        )
        if not fits:
            raise ValueError(
                f"{self.name!r} can't be compared by {self.op!r} with {self.value!r}; compare it "
                "with a text, a number or a bool, or ask .one_of(...) or .exists()"
            )
        if self.op == "contains" and self.value == "":
            raise ValueError(f"{self.name!r} always contains ''; give another text")
        parse_path(self.name)
        return self

    def __eq__(self, other: object) -> bool:
        """Whether it is the same test: to Python True, 1 and 1.0 are equal, to a test they differ.

        Statements are cached by condition.
        """
        return isinstance(other, Test) and self.model_dump_json() == other.model_dump_json()

    def __hash__(self) -> int:
        return hash((self.of, self.name, self.op, self.value))

    def computed_names(self) -> Iterator[str]:
        if self.of == "computed":
            yield self.name

    def trait_names(self) -> Iterator[str]:
        if self.of == "group":
            yield GROUP_ID
        if self.of == "trait":
            yield self.name
            if (first := parse_path(self.name)[0][0]) != self.name:
                yield first


def _of_event(test: Test) -> Test:
    if test.of != "property":
        raise ValueError(
            f"an event is asked for prop({test.name!r}), not for attribute({test.name!r}) or "
            f"group({test.name!r})"
        )
    return test


def _of_profile(condition: _Condition) -> _Condition:
    if isinstance(condition, Test) and condition.of == "property":
        raise ValueError(
            f"prop({condition.name!r}) can only be asked of an event, within did(); "
            f"a profile is asked for attribute({condition.name!r})"
        )
    return condition


# A test of an event's property.
PropertyTest = Annotated[Test, AfterValidator(_of_event)]


class Did(_Condition):
    """The profile has at least `at_least` matching events in a period.

    same: the entry key, such as a cart id; only events with the value of the entry count.
    """

    type: Literal["did"] = "did"
    event: str
    where: tuple[PropertyTest, ...] = ()
    within: Duration | None = None
    at_least: int = Field(default=1, ge=1)
    same: str | None = Field(default=None, pattern=r'^[^"]+$', exclude_if=lambda same: same is None)

    def entry_keys(self) -> Iterator[str]:
        if self.same is not None:
            yield self.same

    def event_names(self) -> Iterator[str]:
        yield self.event


class Consented(_Condition):
    """The profile said yes to a channel (topic `*`) or to a topic on it."""

    type: Literal["consented"] = "consented"
    channel: ChannelName
    topic: str = "*"


class HasAddress(_Condition):
    """The profile has a usable address on a channel."""

    type: Literal["has_address"] = "has_address"
    channel: ChannelName


class Everyone(_Condition):
    """Always true."""

    type: Literal["everyone"] = "everyone"


class InSegment(_Condition):
    """The profile is in a segment.

    condition: that of the segment; the catalog fills it in when it loads the library, and the
    version of a journey keeps it. It means the same everywhere: `did` without `within` looks back
    over all time.
    """

    type: Literal["in_segment"] = "in_segment"
    segment: str = Field(min_length=1)
    condition: "Condition | None" = None

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return () if self.condition is None else (self.condition,)


class AllOf(_Condition):
    """All of the conditions."""

    type: Literal["all_of"] = "all_of"
    conditions: tuple["Condition", ...]

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return self.conditions


class AnyOf(_Condition):
    """At least one of the conditions."""

    type: Literal["any_of"] = "any_of"
    conditions: tuple["Condition", ...]

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return self.conditions


class Not(_Condition):
    """The opposite of a condition."""

    type: Literal["not"] = "not"
    condition: "Condition"

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return (self.condition,)


Condition = Annotated[
    Test | Did | Consented | HasAddress | Everyone | InSegment | AllOf | AnyOf | Not,
    Field(discriminator="type"),
    AfterValidator(_of_profile),
]
for _model in (InSegment, AllOf, AnyOf, Not):
    _model.model_rebuild()


class _Named:
    """`attribute("x") > 3`: an operator on a name gives a Test."""

    def __init__(self, of: Of, name: str) -> None:
        self._of: Of = of
        self._name = name

    def _test(self, op: Operator, value: Any) -> Test:
        return Test(of=self._of, name=self._name, op=op, value=value)

    def __eq__(self, value: object) -> Test:  # type: ignore[override]
        return self._test("==", value)

    def __ne__(self, value: object) -> Test:  # type: ignore[override]
        return self._test("!=", value)

    def __gt__(self, value: float | str) -> Test:
        return self._test(">", value)

    def __ge__(self, value: float | str) -> Test:
        return self._test(">=", value)

    def __lt__(self, value: float | str) -> Test:
        return self._test("<", value)

    def __le__(self, value: float | str) -> Test:
        return self._test("<=", value)

    def one_of(self, *values: Scalar) -> Test:
        """Equal to one of the values."""
        return self._test("in", values)

    def contains(self, value: Scalar) -> Test:
        """A list that has the value as an element, or a text that has it as a part.

        Texts are compared by code point, with case.
        """
        return self._test("contains", value)

    def exists(self) -> Test:
        """Present and not null."""
        return self._test("exists", None)


def attribute(name: str) -> Any:
    """An attribute of the profile, to be compared: `attribute("address.country") == "DE"`."""
    return _Named("trait", name)


def group(name: str) -> Any:
    """A trait of the profile's company, to be compared: `group("plan") == "premium"`."""
    return _Named("group", name)


def trait(name: str) -> Any:
    """A computed trait of the profile, to be compared: `trait("orders_90d") >= 3`."""
    return _Named("computed", name)


def prop(name: str) -> Any:
    """A property of an event, to be compared: `prop("products[].price") >= 50`."""
    return _Named("property", name)


def did(
    event: str,
    *where: Test,
    within: timedelta | str | None = None,
    at_least: int = 1,
    same: str | None = None,
) -> Did:
    """The profile has at least `at_least` such events with these properties within this time.

    same: only events count in which this property equals that of the entry, such as "cart_id".
    """
    return Did.model_validate(
        {"event": event, "where": where, "within": within, "at_least": at_least, "same": same}
    )


def consented(channel: ChannelName, topic: str = "*") -> Consented:
    """The profile said yes to this."""
    return Consented(channel=channel, topic=topic)


def has_address(channel: ChannelName) -> HasAddress:
    """The profile can be reached on this channel."""
    return HasAddress(channel=channel)


def in_segment(segment: str) -> InSegment:
    """The profile is in the segment of this name."""
    return InSegment(segment=segment)


def everyone() -> Everyone:
    """Every profile."""
    return Everyone()
