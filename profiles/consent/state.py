"""The current state of consent: yes, no, or withdrawn to unset."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select

from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import among
from profiles.tables import consent_records, consents

ConsentKey = tuple[int, str, str]  # profile, channel, topic


class Statement(NamedTuple):
    """The last statement of one profile about a channel (topic `*`) or about one topic on it.

    granted None: consent was returned to unset. It has no row in `consent`, only a record; earlier
    statements do not become valid again.
    """

    profile_id: int
    channel: str
    topic: str
    granted: bool | None
    changed_at: Instant

    @property
    def key(self) -> ConsentKey:
        return self.profile_id, self.channel, self.topic


def consent_statements(tx: Tx, profile_ids: Collection[int]) -> dict[ConsentKey, Statement]:
    """The current statements of these profiles.

    A row with a future time, which older imports could write, gets the time of its record.
    """
    c, r = consents.c, consent_records.c
    rows = select(c.profile_id, c.channel, c.topic, c.granted, c.changed_at)
    found = tx.conn.execute(rows.where(among(tx, c.profile_id, profile_ids)))
    current = {one.key: one for one in (Statement._make(row) for row in found)}
    ahead = [one for one in current.values() if one.changed_at > tx.now]
    if ahead:
        whose = among(tx, r.profile_id, {one.profile_id for one in ahead})
        records = select(r.profile_id, r.channel, r.topic, r.recorded_at).where(whose)
        written = {(*key,): at for *key, at in tx.conn.execute(records.order_by(r.id))}
        for one in ahead:
            current[one.key] = one._replace(changed_at=written.get(one.key, tx.now))
    return current


def withdrawn(tx: Tx, profile_ids: Collection[int]) -> dict[ConsentKey, Statement]:
    """The consent that these profiles returned to unset, with its time.

    A row in `consent` is later and overrides it.
    """
    c = consent_records.c
    rows = select(c.profile_id, c.channel, c.topic, c.granted, c.occurred_at).order_by(c.id)
    found = tx.conn.execute(rows.where(among(tx, c.profile_id, profile_ids), c.granted.is_(None)))
    return {one.key: one for one in (Statement._make(row) for row in found)}
