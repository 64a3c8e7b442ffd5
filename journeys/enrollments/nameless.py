"""Replace the enrollments of an erased person by rows that name nobody. Reports count them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select

from config.database.arrays import InsertRows, any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from journeys.enrollments.table import enrollments
from profiles.bucketing import buckets_of
from profiles.bulk import new_row_ids

_c = enrollments.c
_THEIRS = (
    select(enrollments)
    .where(any_of(_c.profile_id, "profiles"), in_buckets(_c.bucket))
    .order_by(_c.id)
)
_LOCK = _THEIRS.with_for_update()
_INSERT = InsertRows(*_c)
_REMOVE = delete(enrollments).where(any_of(_c.profile_id, "profiles"))


def lock_enrollments(tx: Tx, profile_ids: Collection[int]) -> list[dict[str, Any]]:
    """The enrollments of these profiles, locked in the order of their ids."""
    return [
        dict(row)
        for buckets in bucket_turns(tx, buckets_of(profile_ids))
        for row in tx.conn.execute(_LOCK, {"profiles": profile_ids, "buckets": buckets}).mappings()
    ]


def new_ids(tx: Tx, number: int) -> Sequence[int]:
    """Ids for rows that the caller inserts, in ascending order."""
    return new_row_ids(tx, enrollments, number)


def insert_nameless(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows with all columns."""
    _INSERT(tx.conn, [tuple(row[column.name] for column in _c) for row in rows])


def remove_enrollments(tx: Tx, profile_ids: Collection[int]) -> None:
    """Remove the enrollments of these profiles."""
    tx.conn.execute(_REMOVE, {"profiles": profile_ids})
