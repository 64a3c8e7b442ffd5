"""Everything that is stored about one person, as JSON."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select

from config.clock.times import format_instant
from config.database.engine import Tx
from journeys.privacy.conditions import THEIRS, condition_of, parameters_of
from journeys.privacy.people import DataSubject
from journeys.privacy.registry import PERSONAL
from journeys.privacy.requests import record_request, requests_about
from profiles.identity.erased import ErasedAddresses

Export = dict[str, Any]

# Columns with instants that do not end in `_at`.
_INSTANTS = {"at", "since", "latest_anchor", "not_after"}
# Columns that only the database needs.
_INNER = {"bucket"}
_ROWS: Mapping[str, Select[Any]] = {
    name: select(*(column for column in table.columns if column.name not in _INNER))
    .where(condition_of(table))
    .order_by(*table.primary_key)
    for name, table in THEIRS.items()
    if PERSONAL[name].exported
}


def export_person(tx: Tx, person: DataSubject, erased: ErasedAddresses, *, asked_by: str) -> Export:
    """All rows about a person by table, with those of profiles that were joined into it.

    Times are ISO 8601 in UTC. Records who asked for it; the transaction must write.
    """
    given = parameters_of(person)
    found = {name: _rows(tx, reading, given) for name, reading in _ROWS.items()}
    found = {name: rows for name, rows in found.items() if rows}
    counts = {name: len(rows) for name, rows in found.items()}
    record_request(
        tx, erased, "export", asked_by=asked_by, identifiers=person.identifiers, counts=counts
    )
    requests = [
        {"act": one.act, "at": format_instant(one.at), "asked_by": one.asked_by}
        for one in requests_about(tx, erased, person.identifiers)
    ]
    return {
        "customer": person.profile_id,
        "joined": sorted(person.every - {person.profile_id}),
        "exported_at": format_instant(tx.now),
        "asked_by": asked_by,
        "requests": requests,
        "data": found,
    }


def _rows(tx: Tx, reading: Select[Any], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: _shown(name, value) for name, value in row.items()}
        for row in tx.conn.execute(reading, given).mappings()
    ]


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, int) and (name.endswith("_at") or name in _INSTANTS):
        return format_instant(value)
    if name == "attribute_times" and isinstance(value, dict):
        return {key: format_instant(at) for key, at in value.items()}
    return value
