"""Record the events of profiles, each once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.clock.times import Instant, Seconds
from config.database.engine import Tx, insert_into
from profiles.identity.person import Key
from profiles.tables import events as event_table

# The event for a change of the profile itself: attributes, consent.
PROFILE_CHANGED = "profile_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
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
    if not events:
        return 0
    return tx.conn.execute(
        insert_into(tx.conn, event_table).on_conflict_do_nothing(),
        [
            {
                "profile_id": event.profile_id,
                "name": event.name,
                "occurred_at": event.occurred_at,
                "received_at": tx.now - event.waited,
                "properties": event.properties,
                "dedupe_key": event.dedupe_key,
                "worked_at": tx.now if worked else None,
                **identifier_columns(event.identifier),
            }
            for event in events
        ],
        # without it PostgreSQL's driver reports no count for many rows
        execution_options={"preserve_rowcount": True},
    ).rowcount
