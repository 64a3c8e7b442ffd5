"""Read and write the current consent (yes, no, or withdrawn to unset) and its records."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, or_, select, tuple_

from config.channels import ChannelName
from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of, insert_or_update, rows_of
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
_STARTING = rows_of("starting", _c.profile_id, _c.channel)
_STOPPED = select(_c.profile_id, _c.channel).where(
    tuple_(_c.profile_id, _c.channel).in_(select(_STARTING)),
    _c.topic == "*",
    _c.granted.is_(False),
)
_BEFORE_STOP = (
    select(_r.profile_id, _r.channel, _r.granted)
    .where(tuple_(_r.profile_id, _r.channel).in_(select(_STARTING)), _r.topic == "*")
    .where(or_(_r.granted.is_(True), _r.granted.is_(None)))
    .order_by(_r.id)
)
_CHANGED = (
    select(_r.profile_id, _r.channel, _r.topic, _r.granted, _r.occurred_at, _r.recorded_at)
    .where(
        tuple_(_r.profile_id, _r.channel, _r.topic).in_(
            select(_r.profile_id, _r.channel, _r.topic).where(_r.recorded_at >= bindparam("since"))
        )
    )
    .order_by(_r.id)
)
_SOURCES = (
    select(_r.profile_id, _r.channel, _r.topic, _r.source)
    .where(any_of(_r.profile_id, "profiles"))
    .order_by(_r.id)
)
_UPSERT = insert_or_update(
    _c.profile_id, _c.channel, _c.topic, _c.granted, _c.changed_at, _c.bucket
)
_KEYS = rows_of("keys", _c.profile_id, _c.channel, _c.topic)
_DELETE = delete(consents).where(tuple_(_c.profile_id, _c.channel, _c.topic).in_(select(_KEYS)))

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


def given_back(
    tx: Tx, starting: Iterable[tuple[int, ChannelName]]
) -> dict[tuple[int, ChannelName], bool | None]:
    """The consent that a START restores, for the profiles that stopped the channel.

    It is the last consent to the channel before the STOP; None: unset.
    """
    given = {"starting": sorted(starting)}
    before = {
        (row.profile_id, row.channel): row.granted for row in tx.conn.execute(_BEFORE_STOP, given)
    }
    return {
        (row.profile_id, row.channel): before.get((row.profile_id, row.channel))
        for row in tx.conn.execute(_STOPPED, given)
    }


def last_sources(tx: Tx, profile_ids: Collection[int]) -> dict[ConsentKey, str]:
    """The source of the newest record of each consent of these profiles."""
    return {
        (row.profile_id, row.channel, row.topic): row.source
        for row in tx.conn.execute(_SOURCES, {"profiles": profile_ids})
    }


def consents_at(tx: Tx, at: Instant) -> list[Statement]:
    """The consent before a past moment, where it has changed since."""
    then: dict[ConsentKey, Statement] = {}
    for *parts, recorded_at in tx.conn.execute(_CHANGED, {"since": at}):
        one = Statement._make(parts)
        if recorded_at < at:
            then[one.key] = one
        else:
            then.setdefault(one.key, one._replace(granted=None))
    return list(then.values())


def write_statements(tx: Tx, statements: Collection[Statement]) -> None:
    """Write current statements; those that return consent to unset lose their row."""
    _UPSERT(
        tx.conn,
        [
            (*one.key, one.granted, one.changed_at, bucket_of(one.profile_id))
            for one in statements
            if one.granted is not None
        ],
    )
    if unset := [one.key for one in statements if one.granted is None]:
        tx.conn.execute(_DELETE, {"keys": unset})


def insert_records(tx: Tx, rows: Sequence[tuple[Any, ...]]) -> None:
    """Record statements.

    rows: profile, channel, topic, granted, occurred_at, recorded_at, source, wording, evidence,
    kind and value of the identifier.
    """
    _INSERT_RECORDS(tx.conn, [(*row, bucket_of(row[0])) for row in rows])
