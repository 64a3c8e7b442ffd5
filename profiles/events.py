"""Record the events of profiles, each once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from config.clock.times import Instant, Seconds
from config.database.arrays import InsertRows
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.identity.person import Key
from profiles.tables import events as event_table

_c = event_table.c
_INSERT = InsertRows(
    _c.profile_id,
    _c.name,
    _c.occurred_at,
    _c.received_at,
    _c.properties,
    _c.dedupe_key,
    _c.worked_at,
    _c.identifier_kind,
    _c.identifier_value,
    _c.bucket,
    on_conflict="DO NOTHING",
)

# The event for a change of the profile itself: attributes, consent.
PROFILE_CHANGED = "profile_changed"


class NewEvent(NamedTuple):
    """An event to record. Events of a profile with the same `dedupe_key` are the same event.

    waited: seconds from its receipt to the transaction that records it.
    identifier: the identifier that the event is about; None: unknown.
    """

    profile_id: int
    name: str
    occurred_at: Instant
    dedupe_key: str
    properties: dict[str, Any]
    waited: Seconds = 0
    identifier: Key | None = None


def identifier_columns(key: Key | None) -> dict[str, str | None]:
    """The columns of events and consent records for the identifier that they are about."""
    kind, value = key or (None, None)
    return {"identifier_kind": kind, "identifier_value": value}


def record_events(tx: Tx, events: Sequence[NewEvent], *, worked: bool) -> int:
    """Insert the events that are not recorded yet; returns their number.

    worked: True for history, which conditions can use but journeys do not react to.
    """
    now = tx.now
    worked_at = now if worked else None
    rows = [
        (
            event.profile_id,
            event.name,
            event.occurred_at,
            now - event.waited,
            event.properties,
            event.dedupe_key,
            worked_at,
            *(event.identifier or (None, None)),
            bucket_of(event.profile_id),
        )
        for event in events
    ]
    if not worked:
        tx.event_buckets.update([row[-1] for row in rows])
    return _INSERT(tx.conn, rows)
