"""Conditions over attributes, consent and event history, compiled to SQL for a whole cohort.

A condition is data with a JSON form. In Python it is written as:

    did("order_completed", within=days(30)) & (attribute("lifetime_value") > 200)

Comparisons are true or false, never NULL: a missing value or one of another type does not match.
`~` and `!=` negate this: `!=` matches all profiles that `==` does not match.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.types import BigInteger, Text
from typing_extensions import override

from config.channels import ChannelName
from config.clock.times import Duration
from config.database.arrays import one_of
from config.database.buckets import in_buckets
from profiles.attributes.companies import GROUP_ID
from profiles.conditions.json_path import Place, anywhere, parse_path
from profiles.identity.addresses import is_usable
from profiles.tables import (
    companies,
    consents,
    events,
    identifiers,
    preferences,
    profiles,
)

Operator = Literal["==", "!=", ">", ">=", "<", "<=", "in", "contains", "exists"]
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
Scalar = bool | int | float | str
# Columns of the profile; every other name is an attribute.
PROFILE_COLUMNS = ("country", "timezone", "language")
# Values with a choice in the preference center, which overrides the profile's value.
_CHOSEN_COLUMNS = ("timezone", "language")


# The moment of the evaluation. A statement with a condition is built once, and takes the moment as
# its parameter `now`.
NOW = bindparam("now", type_=BigInteger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The rows that a condition is evaluated on, in SQL.

    profile_id: the profile's id in the enclosing statement.
    since, until: the time range of `did` without `within`; None: all time up to now.
    once: events with these names must be after `since`; others may be at `since`.
    context: the properties of the entry (a JSON column), for `did(..., same=...)`.
    """

    sqlite: bool
    profile_id: ColumnElement[int]
    since: ColumnElement[int] | None = None
    until: ColumnElement[int] | None = None
    # the entry event does not count for "did ... since the entry"
    except_event: ColumnElement[int] | None = None
    once: frozenset[str] = frozenset()
    context: ColumnElement[Any] | None = None

    def in_bucket(self, table: FromClause) -> ColumnElement[bool]:
        """The condition on a row of another table that it is in the profile's bucket.

        It names the bucket twice: the list is known before the statement is executed, and Citus
        joins tables only by the column that they are distributed by.
        """
        known = in_buckets(table.c.bucket)
        if not isinstance(self.profile_id, Column):
            return known
        return and_(known, table.c.bucket == self.profile_id.table.c.bucket)


class _Condition(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __and__(self, other: "Condition") -> "AllOf":
        return AllOf(conditions=(self, other))

    def __or__(self, other: "Condition") -> "AnyOf":
        return AnyOf(conditions=(self, other))

    def __invert__(self) -> "Not":
        return Not(condition=self)

    def __bool__(self) -> bool:
        raise TypeError("join conditions with & | ~, not with and, or, not")

    @abstractmethod
    def sql(self, scope: Scope) -> ColumnElement[bool]:
        """The condition as a boolean SQL expression."""

    def began(self, scope: Scope, untold: ColumnElement[int]) -> ColumnElement[Any]:
        """The time since when it is true, from events; NULL if it is false.

        untold: the time to use if it is true and no event determines since when.
        """
        return case((self.sql(scope), untold))

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

    def entry_keys(self) -> Iterator[str]:
        """The properties in which events must equal the entry."""
        for part in self.parts:
            yield from part.entry_keys()


class Test(_Condition):
    """An attribute of the profile, a trait of its company, or a property of an event.

    It is compared with a value. The name may be a path (profiles/conditions/json_path.py). An
    attribute whose own name is written like a path is found before the path. Where lists are on the
    path, the test holds when it holds for at least one of their elements; `!=` is the opposite of
    `==` there too.
    """

    __test__ = False  # not a test case; pytest collects classes by this name

    type: Literal["test"] = "test"
    of: Literal["trait", "property", "group"]
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

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        """The test of a trait, correlated to the profile. Properties are tested by `on`."""
        if self.of == "group":
            return self._of_company(scope)
        # An alias, because the enclosing statement may also select from profiles.
        who = profiles.alias("who_has")
        source: FromClause = who
        if self.name not in PROFILE_COLUMNS:
            matches = self.on(who.c.attributes, scope)
        else:
            text: ColumnElement[Any] = who.c[self.name]
            if self.name in _CHOSEN_COLUMNS:
                own = preferences.alias("what_they_chose")
                theirs = and_(own.c.profile_id == who.c.id, own.c.bucket == who.c.bucket)
                source = who.outerjoin(own, and_(theirs, in_buckets(own.c.bucket)))
                text = func.coalesce(own.c[self.name], text)
            matches = self._holds(
                lambda value: text if isinstance(value, str) else null(), text.is_not(None), scope
            )
        return (
            select(literal(1))
            .select_from(source)
            .where(who.c.id == scope.profile_id, scope.in_bucket(who), matches)
            .exists()
        )

    def _of_company(self, scope: Scope) -> ColumnElement[bool]:
        """The test of a trait of the profile's company. Without a company nothing is equal."""
        if self.op == "!=":
            return not_(self.model_copy(update={"op": "=="})._of_company(scope))
        who, company = profiles.alias("who_belongs"), companies.alias("company_of")
        return (
            select(literal(1))
            .select_from(who)
            .join(company, company.c.id == cast(who.c.attributes[GROUP_ID].as_string(), Text))
            .where(
                who.c.id == scope.profile_id,
                scope.in_bucket(who),
                self.on(company.c.traits, scope),
            )
            .exists()
        )

    def trait_names(self) -> Iterator[str]:
        if self.of == "group":
            yield GROUP_ID
        if self.of == "trait":
            yield self.name
            if (first := parse_path(self.name)[0][0]) != self.name:
                yield first

    def on(self, document: ColumnElement[Any], scope: Scope) -> ColumnElement[bool]:
        """The test on a JSON column of the enclosing statement."""
        if self.op == "!=":
            return not_(self.model_copy(update={"op": "=="}).on(document, scope))
        path = parse_path(self.name)
        own = Place(sqlite=scope.sqlite, document=document, members=(self.name,))
        if path == (own.members,):
            return self._at(own, scope)
        listed = len(path) > 1
        at_path = anywhere(
            document,
            path,
            lambda place: self._at(place, scope, listed=listed),
            sqlite=scope.sqlite,
        )
        return case((own.kind != "missing", self._at(own, scope)), else_=at_path)

    def _at(self, place: Place, scope: Scope, *, listed: bool = False) -> ColumnElement[bool]:
        """The test at one place; `listed`: there are lists on the way to it."""
        exists = not_(one_of(place.kind, ["null", "missing"]))
        if self.op != "contains":
            return self._holds(place.value, exists, scope)
        equals = self.model_copy(update={"op": "=="})
        holds = place.any_element(lambda element: equals._at(element, scope))
        if listed:
            return or_(holds, equals._at(place, scope))
        return or_(holds, self._holds(place.value, exists, scope))

    def _holds(
        self,
        member: Callable[[Scalar], ColumnElement[Any]],
        exists: ColumnElement[bool],
        scope: Scope,
    ) -> ColumnElement[bool]:
        """The comparison; `member` is what is there, or NULL when it is of another kind."""
        if self.op == "exists":
            return exists
        if isinstance(self.value, tuple):
            any_of = (_compare(member(one), "==", one, scope.sqlite) for one in self.value)
            return or_(false(), *any_of)
        assert self.value is not None
        if self.op == "contains":
            if not isinstance(self.value, str):
                return false()
            position = func.instr if scope.sqlite else func.strpos
            return func.coalesce(position(member(self.value), self.value) > 0, false())
        if self.op == "!=":
            return not_(_compare(member(self.value), "==", self.value, scope.sqlite))
        return _compare(member(self.value), self.op, self.value, scope.sqlite)


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

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        matching = self._matching(scope)
        if self.at_least == 1:
            return select(literal(1)).select_from(events).where(*matching).exists()
        counted = select(func.count()).select_from(events).where(*matching).scalar_subquery()
        return counted >= self.at_least

    @override
    def began(self, scope: Scope, untold: ColumnElement[int]) -> ColumnElement[Any]:
        """The time of the event that made it true."""
        happened = select(events.c.occurred_at).where(*self._matching(scope))
        last = happened.order_by(events.c.occurred_at).offset(self.at_least - 1).limit(1)
        return last.scalar_subquery()

    def _matching(self, scope: Scope) -> list[ColumnElement[bool]]:
        matching = [
            events.c.profile_id == scope.profile_id,
            scope.in_bucket(events),
            events.c.name == self.event,
            events.c.occurred_at <= NOW,
            *(test.on(events.c.properties, scope) for test in self.where),
        ]
        if self.within is not None:
            matching.append(events.c.occurred_at > NOW - self.within)
        elif scope.since is not None:
            later = operator.gt if self.event in scope.once else operator.ge
            matching.append(later(events.c.occurred_at, scope.since))
        if scope.until is not None:
            matching.append(events.c.occurred_at <= scope.until)
        if scope.except_event is not None:
            matching.append(events.c.id != func.coalesce(scope.except_event, 0))
        if self.same is not None:
            matching.append(self._same(self.same, scope))
        return matching

    def _same(self, name: str, scope: Scope) -> ColumnElement[bool]:
        """Whether the property is equal in event and entry, as text: 1042 equals "1042"."""
        if scope.context is None:
            return false()
        ours, theirs = (
            cast(document[name].as_string(), Text)
            for document in (events.c.properties, scope.context)
        )
        return func.coalesce(and_(ours == theirs, theirs != ""), false())

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

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return (
            select(literal(1))
            .select_from(consents)
            .where(
                consents.c.profile_id == scope.profile_id,
                scope.in_bucket(consents),
                consents.c.channel == self.channel,
                consents.c.topic == self.topic,
                consents.c.granted,
            )
            .exists()
        )


class HasAddress(_Condition):
    """The profile has a usable address on a channel."""

    type: Literal["has_address"] = "has_address"
    channel: ChannelName

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return (
            select(literal(1))
            .select_from(identifiers)
            .where(
                identifiers.c.profile_id == scope.profile_id,
                is_usable(self.channel),
            )
            .exists()
        )


class Everyone(_Condition):
    """Always true."""

    type: Literal["everyone"] = "everyone"

    @override
    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return true()


class AllOf(_Condition):
    """All of the conditions."""

    type: Literal["all_of"] = "all_of"
    conditions: tuple["Condition", ...]

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return and_(true(), *(condition.sql(scope) for condition in self.conditions))

    def began(self, scope: Scope, untold: ColumnElement[int]) -> ColumnElement[Any]:
        """The latest time of the conditions."""
        moments = [condition.began(scope, untold) for condition in self.conditions]
        last = _extreme(("max", "greatest"), moments, scope) if moments else untold
        return case((self.sql(scope), last))

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return self.conditions


class AnyOf(_Condition):
    """At least one of the conditions."""

    type: Literal["any_of"] = "any_of"
    conditions: tuple["Condition", ...]

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return or_(false(), *(condition.sql(scope) for condition in self.conditions))

    def began(self, scope: Scope, untold: ColumnElement[int]) -> ColumnElement[Any]:
        """The earliest time of the conditions that are true."""
        moments = [
            func.coalesce(condition.began(scope, untold), NOW) for condition in self.conditions
        ]
        first = _extreme(("min", "least"), moments, scope) if moments else untold
        return case((self.sql(scope), first))

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return self.conditions


class Not(_Condition):
    """The opposite of a condition."""

    type: Literal["not"] = "not"
    condition: "Condition"

    def sql(self, scope: Scope) -> ColumnElement[bool]:
        return not_(self.condition.sql(scope))

    @property
    def parts(self) -> tuple[_Condition, ...]:
        return (self.condition,)


Condition = Annotated[
    Test | Did | Consented | HasAddress | Everyone | AllOf | AnyOf | Not,
    Field(discriminator="type"),
    AfterValidator(_of_profile),
]
for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


class _Named:
    """`attribute("x") > 3`: an operator on a name gives a Test."""

    def __init__(self, of: Literal["trait", "property", "group"], name: str) -> None:
        self._of: Literal["trait", "property", "group"] = of
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


def everyone() -> Everyone:
    """Every profile."""
    return Everyone()


def _compare(
    member: ColumnElement[Any], op: Operator, value: Scalar, sqlite: bool
) -> ColumnElement[bool]:
    """The comparison; false if the member is NULL: missing or of another type than the value."""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, str) and op != "==" and not sqlite:
        # by code point, as on SQLite, regardless of the collation of the database
        member = member.collate("C")
    return func.coalesce(_OPERATORS[op](member, value), false())


def _extreme(
    functions: tuple[str, str], moments: Sequence[ColumnElement[Any]], scope: Scope
) -> ColumnElement[Any]:
    """The earliest or latest of times."""
    if len(moments) == 1:
        return moments[0]  # with one argument SQLite's functions are aggregates
    sqlite, postgresql = functions
    found: ColumnElement[Any] = getattr(func, sqlite if scope.sqlite else postgresql)(*moments)
    return found
