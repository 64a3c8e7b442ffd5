"""Conversions have the time of their event, not that at which it was counted

Where the goal is one event from the entry on, it is the first such event. The others stay as they
are: which of their events count depends on properties.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_VERSIONS = sa.text("SELECT journey, version, definition FROM journey_version")
_DATE = sa.text("""
    UPDATE enrollment SET converted_at = (
        SELECT min(event.occurred_at) FROM event
        WHERE event.profile_id = enrollment.profile_id AND event.bucket = enrollment.bucket
          AND event.name = :event AND event.id <> coalesce(enrollment.entry_event_id, 0)
          AND event.occurred_at BETWEEN enrollment.since AND enrollment.converted_at
    )
    WHERE journey = :journey AND version = :version AND converted_at IS NOT NULL AND EXISTS (
        SELECT 1 FROM event
        WHERE event.profile_id = enrollment.profile_id AND event.bucket = enrollment.bucket
          AND event.name = :event AND event.id <> coalesce(enrollment.entry_event_id, 0)
          AND event.occurred_at BETWEEN enrollment.since AND enrollment.converted_at
    )
""")


def upgrade() -> None:
    conn = op.get_bind()
    for journey, version, definition in conn.execute(_VERSIONS).all():
        if event := _plain_goal(definition):
            conn.execute(_DATE, {"journey": journey, "version": version, "event": event})


def _plain_goal(definition: Any) -> str | None:
    """The event that alone reaches the goal; None: it is not that simple."""
    stored = json.loads(definition) if isinstance(definition, str) else definition
    goal = stored["journey"].get("goal")
    if goal is None or goal.get("after", "entry") != "entry":
        return None
    did = goal["did"]
    conditions = did.get("where") or did.get("within") or did.get("same")
    return None if conditions or did.get("at_least", 1) > 1 else str(did["event"])
