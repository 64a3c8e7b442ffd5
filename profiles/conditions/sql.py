"""Compile conditions to SQL, for a whole cohort."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

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
    tuple_,
)
from sqlalchemy.types import BigInteger, Text

from config.database.arrays import one_of
from config.database.buckets import in_buckets, in_one_bucket
from profiles.attributes.companies import GROUP_ID
from profiles.conditions.json_path import Place, anywhere, parse_path
from profiles.conditions.language import (
    PROFILE_COLUMNS,
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Did,
    Everyone,
    HasAddress,
    InSegment,
    Not,
    Operator,
    Scalar,
    Test,
)
from profiles.identity.addresses import is_usable
from profiles.tables import companies, consents, events, identifiers, preferences, profiles

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
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
    everybody: the enclosing statement selects among all rows of `profiles`, and the scope has no
        more than their ids. Then `did` counts all events once, and not those of each profile.
    alone: the enclosing statement is about one profile, and its parameter `bucket` is the bucket.
    """

    sqlite: bool
    profile_id: ColumnElement[int]
    since: ColumnElement[int] | None = None
    until: ColumnElement[int] | None = None
    # the entry event does not count for "did ... since the entry"
    except_event: ColumnElement[int] | None = None
    once: frozenset[str] = frozenset()
    context: ColumnElement[Any] | None = None
    everybody: bool = False
    alone: bool = False

    def in_bucket(self, table: FromClause) -> ColumnElement[bool]:
        """The condition on a row of another table that it is in the profile's bucket.

        It names the bucket twice: the list is known before the statement is executed, and Citus
        joins tables only by the column that they are distributed by. For everybody there is no
        list: PostgreSQL would search an index for each of 256 buckets.
        """
        if self.alone:
            return in_one_bucket(table.c.bucket)
        known = true() if self.everybody else in_buckets(table.c.bucket)
        if not isinstance(self.profile_id, Column):
            return known
        return and_(known, table.c.bucket == self.profile_id.table.c.bucket)


def condition_holds(condition: Condition, scope: Scope) -> ColumnElement[bool]:
    """Whether a condition holds for the profile. Properties are tested by `property_holds`."""
    match condition:
        case Test():
            return (
                _group_holds(condition, scope)
                if condition.of == "group"
                else _trait_holds(condition, scope)
            )
        case Did():
            return _did(condition, scope)
        case Consented():
            return _consented(condition, scope)
        case HasAddress():
            return _has_address(condition, scope)
        case Everyone():
            return true()
        case InSegment():
            return _in_segment(condition, scope)
        case AllOf():
            return and_(true(), *(condition_holds(part, scope) for part in condition.conditions))
        case AnyOf():
            return or_(false(), *(condition_holds(part, scope) for part in condition.conditions))
        case Not():
            return not_(condition_holds(condition.condition, scope))
        case _:
            assert_never(condition)


def condition_holds_since(
    condition: Condition, scope: Scope, untold: ColumnElement[int]
) -> ColumnElement[Any]:
    """The time since when a condition holds, from events; NULL if it does not hold.

    That of `did` is the time of the event that made it true, that of `AllOf` the latest time of its
    conditions, and that of `AnyOf` the earliest time of those that hold.

    untold: the time to use if it holds and no event determines since when.
    """
    match condition:
        case Did():
            happened = select(events.c.occurred_at).where(*_matching(condition, scope))
            nth = condition.at_least - 1
            return happened.order_by(events.c.occurred_at).offset(nth).limit(1).scalar_subquery()
        case AllOf():
            moments = [condition_holds_since(part, scope, untold) for part in condition.conditions]
            since = _extreme(("max", "greatest"), moments, scope) if moments else untold
        case AnyOf():
            moments = [
                func.coalesce(condition_holds_since(part, scope, untold), NOW)
                for part in condition.conditions
            ]
            since = _extreme(("min", "least"), moments, scope) if moments else untold
        case _:
            since = untold
    return case((condition_holds(condition, scope), since))


def property_holds(test: Test, document: ColumnElement[Any], scope: Scope) -> ColumnElement[bool]:
    """Whether a test holds for a JSON column of the enclosing statement."""
    if test.op == "!=":
        return not_(property_holds(_equality(test), document, scope))
    path = parse_path(test.name)
    own = Place(sqlite=scope.sqlite, document=document, members=(test.name,))
    if path == (own.members,):
        return _holds_at(test, own, scope)
    listed = len(path) > 1
    at_path = anywhere(
        document,
        path,
        lambda place: _holds_at(test, place, scope, listed=listed),
        sqlite=scope.sqlite,
    )
    return case((own.kind != "missing", _holds_at(test, own, scope)), else_=at_path)


def _trait_holds(test: Test, scope: Scope) -> ColumnElement[bool]:
    # An alias, because the enclosing statement may also select from profiles.
    who = profiles.alias("who_has")
    source: FromClause = who
    if test.of == "computed":
        matches = property_holds(test, who.c.computed, scope)
    elif test.name not in PROFILE_COLUMNS:
        matches = property_holds(test, who.c.attributes, scope)
    else:
        text: ColumnElement[Any] = who.c[test.name]
        if test.name in _CHOSEN_COLUMNS:
            own = preferences.alias("what_they_chose")
            theirs = and_(own.c.profile_id == who.c.id, own.c.bucket == who.c.bucket)
            known = in_one_bucket if scope.alone else in_buckets
            source = who.outerjoin(own, and_(theirs, known(own.c.bucket)))
            text = func.coalesce(own.c[test.name], text)
        matches = _value_holds(
            test, lambda value: text if isinstance(value, str) else null(), text.is_not(None), scope
        )
    return (
        select(literal(1))
        .select_from(source)
        .where(who.c.id == scope.profile_id, scope.in_bucket(who), matches)
        .exists()
    )


def _group_holds(test: Test, scope: Scope) -> ColumnElement[bool]:
    """The test of a trait of the profile's company. Without a company nothing is equal."""
    if test.op == "!=":
        return not_(_group_holds(_equality(test), scope))
    who, company = profiles.alias("who_belongs"), companies.alias("company_of")
    return (
        select(literal(1))
        .select_from(who)
        .join(company, company.c.id == cast(who.c.attributes[GROUP_ID].as_string(), Text))
        .where(
            who.c.id == scope.profile_id,
            scope.in_bucket(who),
            property_holds(test, company.c.traits, scope),
        )
        .exists()
    )


def _equality(test: Test) -> Test:
    return test.model_copy(update={"op": "=="})


def _holds_at(
    test: Test, place: Place, scope: Scope, *, listed: bool = False
) -> ColumnElement[bool]:
    """The test at one place; `listed`: there are lists on the way to it."""
    exists = not_(one_of(place.kind, ["null", "missing"]))
    if test.op != "contains":
        return _value_holds(test, place.value, exists, scope)
    equals = _equality(test)
    in_list = place.any_element(lambda element: _holds_at(equals, element, scope))
    if listed:
        return or_(in_list, _holds_at(equals, place, scope))
    return or_(in_list, _value_holds(test, place.value, exists, scope))


def _value_holds(
    test: Test,
    member: Callable[[Scalar], ColumnElement[Any]],
    exists: ColumnElement[bool],
    scope: Scope,
) -> ColumnElement[bool]:
    """The comparison; `member` is what is there, or NULL when it is of another kind."""
    if test.op == "exists":
        return exists
    if isinstance(test.value, tuple):
        any_of = (_compare(member(one), "==", one, scope.sqlite) for one in test.value)
        return or_(false(), *any_of)
    assert test.value is not None
    if test.op == "contains":
        if not isinstance(test.value, str):
            return false()
        position = func.instr if scope.sqlite else func.strpos
        return func.coalesce(position(member(test.value), test.value) > 0, false())
    if test.op == "!=":
        return not_(_compare(member(test.value), "==", test.value, scope.sqlite))
    return _compare(member(test.value), test.op, test.value, scope.sqlite)


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


def _did(condition: Did, scope: Scope) -> ColumnElement[bool]:
    if condition.at_least == 1:
        matching = _matching(condition, scope)
        return select(literal(1)).select_from(events).where(*matching).exists()
    if scope.everybody:
        owner = (events.c.bucket, events.c.profile_id)
        often = select(*owner).where(*_counting(condition, scope)).group_by(*owner)
        often = often.having(func.count() >= condition.at_least)
        if scope.sqlite:
            return tuple_(profiles.c.bucket, profiles.c.id).in_(often)
        # PostgreSQL makes no join of NOT IN, but one of NOT EXISTS.
        one = often.subquery().c
        same = (one.bucket == profiles.c.bucket, one.profile_id == profiles.c.id)
        return select(literal(1)).where(*same).exists()
    matching = _matching(condition, scope)
    counted = select(func.count()).select_from(events).where(*matching).scalar_subquery()
    return counted >= condition.at_least


def _matching(condition: Did, scope: Scope) -> list[ColumnElement[bool]]:
    """The conditions on the events of the profile that count."""
    own = events.c.profile_id == scope.profile_id
    return [own, scope.in_bucket(events), *_counting(condition, scope)]


def _counting(condition: Did, scope: Scope) -> list[ColumnElement[bool]]:
    """The conditions on the events that count, of any profile."""
    matching = [
        events.c.name == condition.event,
        events.c.occurred_at <= NOW,
        *(property_holds(test, events.c.properties, scope) for test in condition.where),
    ]
    if condition.within is not None:
        matching.append(events.c.occurred_at > NOW - condition.within)
    elif scope.since is not None:
        later = operator.gt if condition.event in scope.once else operator.ge
        matching.append(later(events.c.occurred_at, scope.since))
    if scope.until is not None:
        matching.append(events.c.occurred_at <= scope.until)
    if scope.except_event is not None:
        matching.append(events.c.id != func.coalesce(scope.except_event, 0))
    if condition.same is not None:
        matching.append(_equals_entry(condition.same, scope))
    return matching


def _equals_entry(name: str, scope: Scope) -> ColumnElement[bool]:
    """Whether the property is equal in event and entry, as text: 1042 equals "1042"."""
    if scope.context is None:
        return false()
    ours, theirs = (
        cast(document[name].as_string(), Text) for document in (events.c.properties, scope.context)
    )
    return func.coalesce(and_(ours == theirs, theirs != ""), false())


def _consented(condition: Consented, scope: Scope) -> ColumnElement[bool]:
    return (
        select(literal(1))
        .select_from(consents)
        .where(
            consents.c.profile_id == scope.profile_id,
            scope.in_bucket(consents),
            consents.c.channel == condition.channel,
            consents.c.topic == condition.topic,
            consents.c.granted,
        )
        .exists()
    )


def _in_segment(condition: InSegment, scope: Scope) -> ColumnElement[bool]:
    if condition.condition is None:
        raise ValueError(f"the segment {condition.segment!r} is not filled in")
    # A segment does not depend on the enrollment that asks for it.
    by_itself = replace(
        scope, since=None, until=None, except_event=None, once=frozenset(), context=None
    )
    return condition_holds(condition.condition, by_itself)


def _has_address(condition: HasAddress, scope: Scope) -> ColumnElement[bool]:
    return (
        select(literal(1))
        .select_from(identifiers)
        .where(
            identifiers.c.profile_id == scope.profile_id,
            is_usable(condition.channel),
        )
        .exists()
    )


def _extreme(
    functions: tuple[str, str], moments: Sequence[ColumnElement[Any]], scope: Scope
) -> ColumnElement[Any]:
    """The earliest or latest of times."""
    if len(moments) == 1:
        return moments[0]  # with one argument SQLite's functions are aggregates
    sqlite, postgresql = functions
    found: ColumnElement[Any] = getattr(func, sqlite if scope.sqlite else postgresql)(*moments)
    return found
