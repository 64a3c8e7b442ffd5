"""Statements that lock rows: one for all buckets, or one for each.

Citus does not lock rows of several shards by one statement (SELECT ... FOR UPDATE). With the
setting `distributed` such a statement is executed for one bucket after the other, in the same
order by all processes, so that they do not deadlock.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import Select

from config.database.engine import Tx
from config.database.execution import SqlStatement


def bucket_turns(tx: Tx, buckets: Collection[int] | None = None) -> Iterator[Collection[int]]:
    """The buckets for each execution of a statement that locks rows.

    buckets: None: those of the transaction.
    """
    buckets = tx.buckets if buckets is None else buckets
    if tx.distributed:
        yield from ([bucket] for bucket in sorted(buckets))
    else:
        yield buckets


def lock_rows(
    tx: Tx,
    statement: SqlStatement,
    given: Mapping[str, Any],
    *,
    most: int | None = None,
    find: Select[tuple[int]] | None = None,
) -> list[Any]:
    """Execute a statement that locks rows in the transaction's buckets; returns its rows.

    Parameters
    ----------
    most: the most rows, which the statement takes as the parameter `most`. find: finds the buckets
        that have such rows, without locks and with the same parameters; None: all are asked.
    """
    buckets = tx.buckets
    if tx.distributed and find is not None:
        buckets = [
            bucket for (bucket,) in tx.rows(find, {**given, "most": most, "buckets": buckets})
        ]
    rows: list[Any] = []
    for some in bucket_turns(tx, buckets):
        left = None if most is None else most - len(rows)
        if left == 0:
            break
        rows += tx.rows(statement, {**given, "most": left, "buckets": some})
    return rows
