"""Helpers for bulk statements: many values in one parameter, and locks in a fixed order."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    ColumnElement,
    Dialect,
    Select,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from typing_extensions import override

from config.database.arrays import any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from profiles.bucketing import buckets_of
from profiles.tables import profiles

T = TypeVar("T")

# Values in one IN (...); the limits are 32,766 in SQLite and 65,535 in PostgreSQL.
_SLICE = 10_000


def in_slices(values: Sequence[T], size: int = _SLICE) -> Iterator[Sequence[T]]:
    """Slices of the values; the default size fits into one IN (...)."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class _Texts(TypeDecorator[Mapping[int, str | None]]):
    """Texts by id in one parameter, as JSON."""

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: Mapping[int, str | None] | None, dialect: Dialect) -> str:
        return orjson.dumps(dict(value or {}), option=orjson.OPT_NON_STR_KEYS).decode()


class _TextOf(FunctionElement[str]):
    inherit_cache = True
    type = Text()


@compiles(_TextOf, "sqlite")
def _text_on_sqlite(text_of: _TextOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, texts = (compiler.process(clause, **kw) for clause in text_of.clauses)
    return f"""json_extract({texts}, '$."' || {column} || '"')"""


@compiles(_TextOf, "postgresql")
def _text_on_postgresql(text_of: _TextOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, texts = (compiler.process(clause, **kw) for clause in text_of.clauses)
    return f"(CAST({texts} AS jsonb) ->> CAST({column} AS text))"


def text_bound(column: ColumnElement[int], name: str) -> ColumnElement[str]:
    """The text of the id in `column`; the parameter `name` takes the texts by id."""
    return _TextOf(column, bindparam(name, type_=_Texts()))


def new_profile_ids(tx: Tx, number: int) -> Sequence[int]:
    """New ids for profiles that the caller inserts; ids are never reused.

    They are needed before the INSERT because a profile's bucket is computed from its id.
    """
    if tx.conn.dialect.name == "sqlite":
        # SQLite has one writer; the INSERT continues the ids.
        last = tx.conn.execute(_LAST_ID).scalar() or 0
        return range(last + 1, last + 1 + number)
    return tx.conn.execute(_NEXT_IDS, {"number": number}).scalars().all()


_LAST_ID = text("SELECT seq FROM sqlite_sequence WHERE name = 'profile'")
_NEXT_IDS = text(
    "SELECT nextval(pg_get_serial_sequence('profile', 'id')) FROM generate_series(1, :number)"
)


def new_row_ids(tx: Tx, table: Table, number: int) -> Sequence[int]:
    """New ids for rows that the caller inserts in this transaction, in ascending order."""
    if tx.is_sqlite:
        # SQLite has one writer.
        last = tx.conn.scalar(_highest_id(table)) or 0
        return range(last + 1, last + 1 + number)
    of = {"of_table": table.name, "number": number}
    return sorted(tx.conn.execute(_NEXT_ROW_IDS, of).scalars())


@lru_cache
def _highest_id(table: Table) -> Select[tuple[int | None]]:
    return select(func.max(table.c.id))


_NEXT_ROW_IDS = text(
    "SELECT nextval(pg_get_serial_sequence(:of_table, 'id')) FROM generate_series(1, :number)"
)


def lock_profiles(tx: Tx, ids: Collection[int], *, skip_locked: bool = False) -> list[int]:
    """Lock profiles until the transaction ends, in id order, which prevents deadlocks.

    FOR NO KEY UPDATE does not block inserts of events. SQLite needs no lock, as it has one writer.
    Returns the locked ids: all that exist, or with `skip_locked` those that were not locked.
    """
    if tx.conn.dialect.name == "sqlite":
        return sorted(ids)
    lock = _LOCK_FREE if skip_locked else _LOCK
    return [
        row.id
        for buckets in bucket_turns(tx, buckets_of(ids))
        for row in tx.rows(lock, {"profiles": ids, "buckets": buckets})
    ]


_PROFILES = (
    select(profiles.c.id)
    .where(any_of(profiles.c.id, "profiles"), in_buckets(profiles.c.bucket))
    .order_by(profiles.c.id)
)
_LOCK = _PROFILES.with_for_update(key_share=True)
_LOCK_FREE = _PROFILES.with_for_update(key_share=True, skip_locked=True)
