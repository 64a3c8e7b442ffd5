"""The names of attributes and events that recent customers and events have."""

from typing import NamedTuple

from sqlalchemy import select

from config.database.engine import Tx
from profiles.tables import events, profiles

# The most rows that are read, the newest first.
_PROFILES = 10_000
_EVENTS = 100_000
_NEWEST_PROFILES = select(profiles.c.attributes).order_by(profiles.c.id.desc()).limit(_PROFILES)
_newest_events = select(events.c.name).order_by(events.c.id.desc()).limit(_EVENTS).subquery()
_NAMES = select(_newest_events.c.name).distinct()


class SeenNames(NamedTuple):
    """What there is evidence for. Both are empty without customers or events."""

    attributes: frozenset[str]
    events: frozenset[str]


def seen_names(tx: Tx) -> SeenNames:
    """The names that the newest profiles and events have."""
    attributes = {name for row in tx.conn.execute(_NEWEST_PROFILES) for name in row.attributes}
    return SeenNames(
        attributes=frozenset(attributes), events=frozenset(tx.conn.execute(_NAMES).scalars())
    )
