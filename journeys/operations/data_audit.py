"""Which attributes, events and properties there are, how old they are, and what reads each."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, TableValuedAlias, Text, column, func, select
from sqlalchemy.dialects.postgresql import JSONB

from config.clock.times import Instant
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry, Version
from journeys.definition.steps import WaitStep
from profiles.events import PROFILE_CHANGED
from profiles.tables import events, profiles

_p, _e = profiles.c, events.c
DatumKind = Literal["attribute", "event", "property"]


class Datum(NamedTuple):
    """An attribute, an event, or a property of an event as event.property."""

    kind: DatumKind
    name: str


class DatumUse(NamedTuple):
    """How many profiles or events have it, when one last did, and what reads it.

    newest: of an attribute the last update of a profile that has it; of others the latest event.
    """

    datum: Datum
    number: int
    newest: Instant
    read_by: list[str]


def audit_data(tx: Tx, catalog: Catalog) -> list[DatumUse]:
    """Everything that is stored, by kind and name. It reads all profiles and events."""
    readers: dict[Datum, dict[str, None]] = defaultdict(dict)
    for datum, reader in _reads(catalog):
        readers[datum][reader] = None
    statements = _SQLITE if tx.is_sqlite else _POSTGRESQL
    found = [
        DatumUse(datum=datum, number=number, newest=newest, read_by=list(readers.get(datum, ())))
        for kind, statement in statements.items()
        for *names, number, newest in tx.rows(statement, {})
        if names[0] != PROFILE_CHANGED
        for datum in [Datum(kind, ".".join(names))]
    ]
    return sorted(found, key=lambda one: one.datum)


def _members(document: Any, *, sqlite: bool) -> TableValuedAlias:
    if sqlite:
        return func.json_each(document).table_valued("key", "type", joins_implicitly=True)
    return func.jsonb_each(document).table_valued(
        column("key", Text), column("value", JSONB), joins_implicitly=True
    )


def _statements(*, sqlite: bool) -> Mapping[DatumKind, Select[Any]]:
    attribute, prop = (
        _members(document, sqlite=sqlite) for document in (_p.attributes, _e.properties)
    )
    present = [
        one.c.type != "null" if sqlite else func.jsonb_typeof(one.c.value) != "null"
        for one in (attribute, prop)
    ]
    return {
        "attribute": select(attribute.c.key, func.count(), func.max(_p.updated_at))
        .select_from(profiles)
        .where(present[0])
        .group_by(attribute.c.key),
        "event": select(_e.name, func.count(), func.max(_e.occurred_at)).group_by(_e.name),
        "property": select(_e.name, prop.c.key, func.count(), func.max(_e.occurred_at))
        .select_from(events)
        .where(present[1])
        .group_by(_e.name, prop.c.key),
    }


_SQLITE, _POSTGRESQL = _statements(sqlite=True), _statements(sqlite=False)


# What reads it ------------------------------------------------------------------------------------


def _reads(catalog: Catalog) -> Iterator[tuple[Datum, str]]:
    for segment in catalog.segments.values():
        yield from _of_condition(segment.condition.model_dump(), f"segment {segment.name}")
    for persona in catalog.personas:
        yield from _of_condition(persona.condition.model_dump(), f"persona {persona.name}")
    for trait in catalog.traits.of_events.values():
        where = f"trait {trait.name}"
        yield Datum("event", trait.event), where
        for path in (trait.property, *(test.name for test in trait.where)):
            if path:
                yield _property(trait.event, path), where
    for journey in catalog.journeys():
        for version in catalog.versions(journey):
            yield from _of_version(version, f"journey {journey}")


def _of_version(version: Version, where: str) -> Iterator[tuple[Datum, str]]:
    journey = version.journey
    entry = journey.entry
    entry_event = entry.event if isinstance(entry, EventEntry) else None
    if isinstance(entry, EventEntry):
        yield Datum("event", entry.event), where
        for path in (entry.key, *(test.name for test in entry.where)):
            if path:
                yield _property(entry.event, path), where
    for condition in journey.conditions():
        yield from _of_condition(condition.model_dump(), where)
    for node in journey.graph.values():
        if isinstance(node.step, WaitStep) and node.step.date is not None:
            yield Datum("attribute", _first(node.step.date)), where
    for step in journey.sends():
        for message in step.messages:
            template = f"template {journey.name}/{message.template} of {message.channel}"
            for variable in version.template(message).variables:
                root, _, path = variable.partition(".")
                if root == "profile" and path:
                    yield Datum("attribute", _first(path)), template
                if root == "event" and path and entry_event is not None:
                    yield _property(entry_event, path), template


def _of_condition(part: Any, where: str) -> Iterator[tuple[Datum, str]]:
    """What a condition as JSON reads."""
    if isinstance(part, list | tuple):
        for one in part:
            yield from _of_condition(one, where)
    if not isinstance(part, dict):
        return
    match part.get("type"):
        case "test" if part["of"] == "trait":
            yield Datum("attribute", _first(part["name"])), where
        case "did":
            yield Datum("event", part["event"]), where
            for path in (part.get("same"), *(test["name"] for test in part["where"])):
                if path:
                    yield _property(part["event"], path), where
    for value in part.values():
        yield from _of_condition(value, where)


def _property(event: str, path: str) -> Datum:
    return Datum("property", f"{event}.{_first(path)}")


def _first(path: str) -> str:
    """The member that a path begins with: address.country -> address."""
    return path.partition(".")[0].partition("[")[0]
