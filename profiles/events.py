"""Writing down what profiles did, each event once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config.database import Tx, insert_into
from config.times import Instant, Seconds
from profiles.tables import events as event_table

# The event that says that something about the profile itself is different: attributes, consent.
PROFILE_CHANGED = "profile_changed"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as it arrives. The same `dedupe_key` on the same profile is the same event.

    waited: from its receipt to the transaction that writes it down.
    """

    profile_id: int
    name: str
    occurred_at: Instant
    dedupe_key: str
    properties: dict[str, Any]
    waited: Seconds = 0


def record_events(tx: Tx, events: Sequence[NewEvent], *, worked: bool) -> int:
    """Insert those not yet there and say how many they were.

    `worked=True` is for history: journeys do not react to it, though their conditions see it.
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
            }
            for event in events
        ],
        # without it PostgreSQL's driver reports no count for many rows
        execution_options={"preserve_rowcount": True},
    ).rowcount
