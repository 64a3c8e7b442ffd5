"""The current state of consent: yes, no, or withdrawn to unset."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.tables import consent_records, consents

_c, _r = consents.c, consent_records.c
_STATEMENTS = select(_c.profile_id, _c.channel, _c.topic, _c.granted, _c.changed_at).where(
    any_of(_c.profile_id, "profiles")
)
_RECORDED_AT = (
    select(_r.profile_id, _r.channel, _r.topic, _r.recorded_at)
    .where(any_of(_r.profile_id, "profiles"))
    .order_by(_r.id)
)
_WITHDRAWN = (
    select(_r.profile_id, _r.channel, _r.topic, _r.granted, _r.occurred_at)
    .where(any_of(_r.profile_id, "profiles"), _r.granted.is_(None))
    .order_by(_r.id)
)
_INSERT_RECORDS = InsertRows(
    *(_r.profile_id, _r.channel, _r.topic, _r.granted, _r.occurred_at, _r.recorded_at),
    *(_r.source, _r.wording, _r.evidence, _r.identifier_kind, _r.identifier_value, _r.bucket),
)

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
    found = tx.conn.execute(_STATEMENTS, {"profiles": profile_ids})
    current = {one.key: one for one in (Statement._make(row) for row in found)}
    ahead = [one for one in current.values() if one.changed_at > tx.now]
    if ahead:
        records = tx.conn.execute(_RECORDED_AT, {"profiles": {one.profile_id for one in ahead}})
        written = {(*key,): at for *key, at in records}
        for one in ahead:
            current[one.key] = one._replace(changed_at=written.get(one.key, tx.now))
    return current


def withdrawn(tx: Tx, profile_ids: Collection[int]) -> dict[ConsentKey, Statement]:
    """The consent that these profiles returned to unset, with its time.

    A row in `consent` is later and overrides it.
    """
    found = tx.conn.execute(_WITHDRAWN, {"profiles": profile_ids})
    return {one.key: one for one in (Statement._make(row) for row in found)}


def insert_records(tx: Tx, rows: Sequence[tuple[Any, ...]]) -> None:
    """Record statements.

    rows: profile, channel, topic, granted, occurred_at, recorded_at, source, wording, evidence,
    kind and value of the identifier.
    """
    _INSERT_RECORDS(tx.conn, [(*row, bucket_of(row[0])) for row in rows])
