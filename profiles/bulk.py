"""What every statement over many rows needs: many values in one, and locks in a fixed order."""

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

import orjson
from sqlalchemy import ColumnElement, any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from config.database import Tx
from profiles.tables import profiles

T = TypeVar("T")

# How many values one IN (...) takes: SQLite binds 32,766 at most, PostgreSQL 65,535.
_SLICE = 10_000


def in_slices(values: Sequence[T], size: int = _SLICE) -> Iterator[Sequence[T]]:
    """The values in pieces; of the size that fits into one IN (...) unless told otherwise."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def among(tx: Tx, column: ColumnElement[T], values: Collection[T]) -> ColumnElement[bool]:
    """`column IN values` with all of them in one parameter.

    However many there are, the statement is the same, so it is compiled and prepared once.
    """
    if tx.conn.dialect.name == "sqlite":
        rows = func.json_each(orjson.dumps(list(values)).decode()).table_valued("value")
        return column.in_(select(rows.c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))


def lock_profiles(tx: Tx, ids: Collection[int], *, skip_locked: bool = False) -> list[int]:
    """Hold these profiles until the transaction ends, in id order, so that nobody deadlocks.

    FOR NO KEY UPDATE leaves events free to come in. SQLite has its one writer and ignores it.
    Returns the ids that are held: all, or with `skip_locked` those that nobody else holds.
    """
    if tx.conn.dialect.name == "sqlite":
        return sorted(ids)
    held = (
        select(profiles.c.id)
        .where(among(tx, profiles.c.id, ids))
        .order_by(profiles.c.id)
        .with_for_update(key_share=True, skip_locked=skip_locked)
    )
    return list(tx.conn.execute(held).scalars())
