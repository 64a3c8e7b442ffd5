"""One profile by an identifier, with the fields that a caller names, for other systems.

Two statements: one finds the profile and reads the clock, the other reads every field. A field
costs a part of the second statement, and one that is not named costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, func, select

from config.clock.times import Instant, format_instant
from config.database.aggregates import rows_as_json
from config.database.arrays import STATEMENTS
from config.database.buckets import in_one_bucket
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.definition.segment import Segment
from journeys.enrollments import enrollments
from profiles.attributes.companies import GROUP_ID, IS_COMPANY_OF_PROFILE
from profiles.bucketing import bucket_of
from profiles.conditions.sql import Scope, condition_holds
from profiles.events import PROFILE_CHANGED
from profiles.identity.addresses import is_in_use, is_suppressed_anywhere
from profiles.identity.owners import holder_of
from profiles.identity.person import Key
from profiles.tables import companies, consents, events, identifiers, preferences, profiles

ProfileField = Literal[
    "attributes", "consents", "events", "group", "identifiers", "journeys", "segments"
]
PROFILE_FIELDS: Sequence[ProfileField] = get_args(ProfileField)

_PROFILE = bindparam("profile", type_=BigInteger)
_MOST = bindparam("most", type_=BigInteger)


class Unverified(NamedTuple):
    """The identifier is an anonymous id that an unverified address joined to a profile.

    Whoever has it may have typed another person's address, so it shows nothing of the profile.
    """


class ProfileViews:
    """Reads profiles. It follows changes of the catalog's segments."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._segments = _Segments(())

    def read(
        self, tx: Tx, key: Key, fields: Sequence[ProfileField], most_events: int
    ) -> dict[str, Any] | Unverified | None:
        """The fields of the profile that has an identifier; None if no profile has it.

        A retired address belongs to no profile.

        Parameters
        ----------
        key: in normal form. fields: in the order of PROFILE_FIELDS, each once.
        most_events: of the field `events`.
        """
        reading = _reading(tuple(fields), self._current_segments(), tx.is_sqlite)
        sought: int | None = None
        while (holder := holder_of(tx, key)) is not None and not holder.retired:
            if holder.unverified:
                return Unverified()
            given = {
                "profile": holder.profile_id,
                "bucket": bucket_of(holder.profile_id),
                "now": tx.now,
                "most": most_events,
            }
            for row in tx.rows(reading.statement, given):
                return {name: read(row[part]) for name, part, read in reading.parts}
            if holder.profile_id == sought:
                break
            sought = holder.profile_id  # merged into another profile between the statements
        return None

    def _current_segments(self) -> "_Segments":
        current = tuple(self._catalog.segments.values())
        if current != self._segments.all:
            self._segments = _Segments(current)
        return self._segments


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Segments as part of the key of a cache: it is quicker to hash than their conditions."""

    all: tuple[Segment, ...]


# The value of a field, from its columns.
_Read = Callable[[Sequence[Any]], Any]


class _Part(NamedTuple):
    """The columns of a field, and how they are read."""

    columns: Sequence[ColumnElement[Any]]
    read: _Read


class _Reading(NamedTuple):
    """The statement for some fields, and the place of each in its rows."""

    statement: Select[Any]
    parts: Sequence[tuple[ProfileField, slice, _Read]]


@lru_cache(maxsize=STATEMENTS)
def _reading(fields: tuple[ProfileField, ...], segments: _Segments, sqlite: bool) -> _Reading:
    columns: list[ColumnElement[Any]] = [profiles.c.id]
    parts: list[tuple[ProfileField, slice, _Read]] = []
    for name in fields:
        part = _PARTS[name](segments, sqlite)
        parts.append((name, slice(len(columns), len(columns) + len(part.columns)), part.read))
        columns += part.columns
    named = [column.label(f"c{number}") for number, column in enumerate(columns)]
    chosen = and_(
        preferences.c.profile_id == profiles.c.id,
        preferences.c.bucket == profiles.c.bucket,
        in_one_bucket(preferences.c.bucket),
    )
    statement = (
        select(*named)
        .join_from(profiles, preferences, chosen, isouter=True)
        .where(profiles.c.id == _PROFILE, in_one_bucket(profiles.c.bucket))
    )
    return _Reading(statement, parts)


def _attributes(_segments: _Segments, _sqlite: bool) -> _Part:
    p, chosen = profiles.c, preferences.c
    columns = {
        "attributes": p.attributes,
        "country": p.country,
        # A choice in the preference center takes precedence, as in conditions.
        "timezone": func.coalesce(chosen.timezone, p.timezone),
        "language": func.coalesce(chosen.language, p.language),
    }
    names = list(columns)[1:]

    def read(row: Sequence[Any]) -> dict[str, Any]:
        stated = zip(names, row[1:], strict=True)
        return {**row[0], **{name: value for name, value in stated if value is not None}}

    return _Part(list(columns.values()), read)


def _segments(segments: _Segments, sqlite: bool) -> _Part:
    scope = Scope(sqlite=sqlite, profile_id=_PROFILE, alone=True)
    names = [one.name for one in segments.all]
    columns = [condition_holds(one.condition, scope) for one in segments.all]
    return _Part(columns, lambda row: sorted(compress(names, row)))


def _consents(_segments: _Segments, _sqlite: bool) -> _Part:
    c = consents.c
    rows = select(rows_as_json(c.channel, c.topic, c.granted, c.changed_at))
    found = rows.where(c.profile_id == _PROFILE, in_one_bucket(c.bucket)).scalar_subquery()

    def read(row: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "channel": channel,
                "topic": topic,
                "granted": bool(granted),
                "changed_at": format_instant(at),
            }
            for channel, topic, granted, at in sorted(row[0] or ())
        ]

    return _Part([found], read)


def _journeys(_segments: _Segments, _sqlite: bool) -> _Part:
    e = enrollments.c
    rows = select(
        rows_as_json(e.entered_at, e.id, e.journey, e.step, e.entry_key, e.arrived_at, e.due_at)
    )
    found = rows.where(e.profile_id == _PROFILE, in_one_bucket(e.bucket), e.ended_at.is_(None))

    def read(row: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "journey": journey,
                "entry_key": entry_key or None,
                "entered_at": format_instant(entered_at),
                "step": step,
                "arrived_at": format_instant(arrived_at),
                "due_at": format_instant(due_at),
            }
            for entered_at, _, journey, step, entry_key, arrived_at, due_at in sorted(row[0] or ())
        ]

    return _Part([found.scalar_subquery()], read)


def _events(_segments: _Segments, sqlite: bool) -> _Part:
    e = events.c
    last = (
        select(e.occurred_at, e.id, e.name, e.properties)
        .where(e.profile_id == _PROFILE, in_one_bucket(e.bucket), e.name != PROFILE_CHANGED)
        .order_by(e.occurred_at.desc(), e.id.desc())
        .limit(_MOST)
        .subquery()
    )
    # SQLite stores JSON as text, and would put it in as one.
    properties = func.json(last.c.properties) if sqlite else last.c.properties
    found = select(rows_as_json(last.c.occurred_at, last.c.id, last.c.name, properties))

    def read(row: Sequence[Any]) -> list[dict[str, Any]]:
        newest_first = sorted(row[0] or (), key=_time_and_id, reverse=True)
        return [
            {"event": name, "occurred_at": format_instant(at), "properties": properties}
            for at, _, name, properties in newest_first
        ]

    return _Part([found.scalar_subquery()], read)


def _time_and_id(event: Sequence[Any]) -> tuple[Instant, int]:
    return event[0], event[1]


def _group(_segments: _Segments, _sqlite: bool) -> _Part:
    traits = select(companies.c.traits).where(IS_COMPANY_OF_PROFILE).correlate(profiles)

    def read(row: Sequence[Any]) -> dict[str, Any] | None:
        group_id, traits = row
        return None if group_id is None else {"id": group_id, "traits": traits or {}}

    return _Part([profiles.c.attributes[GROUP_ID].as_string(), traits.scalar_subquery()], read)


def _identifiers(_segments: _Segments, _sqlite: bool) -> _Part:
    i = identifiers.c
    rows = select(rows_as_json(i.kind, i.value, i.platform, is_suppressed_anywhere()))
    found = rows.where(i.profile_id == _PROFILE, is_in_use()).scalar_subquery()

    def read(row: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "kind": kind,
                "value": value,
                **({"platform": platform} if platform else {}),
                "suppressed": bool(suppressed),
            }
            for kind, value, platform, suppressed in sorted(row[0] or (), key=_kind_and_value)
        ]

    return _Part([found], read)


def _kind_and_value(identifier: Sequence[Any]) -> tuple[str, str]:
    return identifier[0], identifier[1]


_PARTS: Mapping[ProfileField, Callable[[_Segments, bool], _Part]] = {
    "attributes": _attributes,
    "consents": _consents,
    "events": _events,
    "group": _group,
    "identifiers": _identifiers,
    "journeys": _journeys,
    "segments": _segments,
}
