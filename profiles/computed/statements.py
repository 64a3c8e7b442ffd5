"""SQL of computed traits: the events of profiles, in groups of equal values."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, case, func, literal, null, select

from config.database.arrays import STATEMENTS, any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import buckets_of
from profiles.computed.definitions import EventTrait
from profiles.computed.values import EqualEvents, TraitValue, plain_number
from profiles.conditions.json_path import Place, parse_path
from profiles.conditions.sql import NOW, Scope, property_holds
from profiles.tables import events

_e = events.c


def grouped_events(
    tx: Tx, trait: EventTrait, profile_ids: Collection[int]
) -> Mapping[int, list[EqualEvents]]:
    """The events of profiles that the trait looks at, by profile. One statement.

    Events in the future do not count yet.
    """
    given = {"profiles": profile_ids, "buckets": buckets_of(profile_ids), "now": tx.now}
    found: dict[int, list[EqualEvents]] = defaultdict(list)
    reading = _reading(trait, tx.is_sqlite)
    for profile_id, number, text, truth, *counted in tx.rows(reading, given):
        found[profile_id].append(EqualEvents(_value(number, text, truth), *counted))
    return found


def _value(
    number: Decimal | float | None, text: str | None, truth: int | None
) -> TraitValue | None:
    if number is not None:
        return plain_number(number)
    return text if truth is None else bool(truth)


@lru_cache(maxsize=STATEMENTS)
def _reading(trait: EventTrait, sqlite: bool) -> Select[Any]:
    scope = Scope(sqlite=sqlite, profile_id=_e.profile_id)
    matching = [
        any_of(_e.profile_id, "profiles"),
        in_buckets(_e.bucket),
        _e.name == trait.event,
        _e.occurred_at <= NOW,
        *(property_holds(test, _e.properties, scope) for test in trait.where),
    ]
    if trait.within is not None:
        matching.append(_e.occurred_at > NOW - trait.within)
    number, text, truth = _values(trait.property, sqlite)
    # Labels of a subquery: parameters of expressions are different ones in GROUP BY.
    row = (
        select(
            _e.profile_id,
            _e.occurred_at,
            number.label("number"),
            text.label("text"),
            truth.label("truth"),
        )
        .where(*matching)
        .subquery()
        .c
    )
    groups = (row.profile_id, row.number, row.text, row.truth)
    at = row.occurred_at
    return select(*groups, func.count(), func.min(at), func.max(at)).group_by(*groups)


def _values(path: str, sqlite: bool) -> tuple[ColumnElement[Any], ...]:
    """The property as a number, a text or a bool; those that it is not are NULL."""
    if not path:
        return null().cast(BigInteger), null().cast(BigInteger), null().cast(BigInteger)
    own = Place(sqlite=sqlite, document=_e.properties, members=(path,))
    [members] = parse_path(path)
    there = Place(sqlite=sqlite, document=_e.properties, members=members)

    def value(like: TraitValue) -> ColumnElement[Any]:
        if members == own.members:
            return own.value(like)
        # As in conditions: a property whose own name is written like a path comes first.
        return case((own.kind != literal("missing"), own.value(like)), else_=there.value(like))

    return value(1), value(""), value(like=True)
