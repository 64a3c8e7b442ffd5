"""What every statement over many profiles needs: slices of values, and locks in a fixed order."""

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import select

from config.database import Tx
from profiles.tables import profiles

T = TypeVar("T")

# How many values one IN (...) takes: SQLite binds 32,766 at most, PostgreSQL 65,535.
_SLICE = 10_000


def in_slices(values: Sequence[T], size: int = _SLICE) -> Iterator[Sequence[T]]:
    """The values in pieces; of the size that fits into one IN (...) unless told otherwise."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def lock_profiles(tx: Tx, ids: Collection[int], *, skip_locked: bool = False) -> list[int]:
    """Hold these profiles until the transaction ends, in id order, so that nobody deadlocks.

    FOR NO KEY UPDATE leaves events free to come in. SQLite has its one writer and ignores it.
    Returns the ids that are held: all, or with `skip_locked` those that nobody else holds.
    """
    if tx.conn.dialect.name == "sqlite":
        return sorted(ids)
    held: list[int] = []
    for some in in_slices(sorted(ids)):
        held += tx.conn.execute(
            select(profiles.c.id)
            .where(profiles.c.id.in_(some))
            .order_by(profiles.c.id)
            .with_for_update(key_share=True, skip_locked=skip_locked)
        ).scalars()
    return held
