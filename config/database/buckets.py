"""Buckets: 256 groups of rows, by which tables can be partitioned and workers share the work.

A statement names the buckets of its rows, so that PostgreSQL reads no other partition and Citus
asks no other node:

    _FOUND = select(profiles.c.country).where(
        any_of(profiles.c.id, "profiles"), in_buckets(profiles.c.bucket)
    )
    tx.rows(_FOUND, {"profiles": ids, "buckets": tx.buckets})

profiles/bucketing.py computes the buckets.
"""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, SmallInteger, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from config.database.arrays import any_of

# It divides evenly over 2, 4, 8 ... workers or partitions.
BUCKETS = 256
ALL_BUCKETS: Collection[int] = tuple(range(BUCKETS))
# The buckets in which a process may look for due work now (journeys/operations/leases.py).
Leased = Callable[[], Collection[int]]


def all_buckets() -> Collection[int]:
    """A `Leased` of a process that may look everywhere."""
    return ALL_BUCKETS


def in_buckets(column: ColumnElement[int], name: str = "buckets") -> ColumnElement[bool]:
    """The condition that `column` is one of the buckets in the parameter `name`; by default all.

    It only tells the database where to look: a statement finds the same rows without it, if the
    buckets are those of its rows. SQLite has one file, so it gets no condition.
    """
    return _InBuckets(any_of(column, name, ALL_BUCKETS))


def in_one_bucket(column: ColumnElement[int], name: str = "bucket") -> ColumnElement[bool]:
    """As `in_buckets`, for a statement about one profile: the parameter `name` is its bucket.

    PostgreSQL keeps the plan of such a statement. With a list of unknown length it plans a large
    statement anew at each execution, which takes several times as long as to execute it.
    """
    return _InBuckets(column == bindparam(name, type_=SmallInteger))


class _InBuckets(FunctionElement[bool]):
    # no Boolean type, for the reason in arrays.py
    inherit_cache = True


@compiles(_InBuckets, "sqlite")
def _on_sqlite(*_: Any, **_kw: Any) -> str:
    return "1 = 1"


@compiles(_InBuckets, "postgresql")
def _on_postgresql(in_buckets: _InBuckets, compiler: SQLCompiler, **kw: Any) -> str:
    [condition] = in_buckets.clauses
    return compiler.process(condition, **kw)
