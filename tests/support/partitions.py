"""A schema that is partitioned by bucket, and the partitions that each statement reads."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlmodel import SQLModel

from config.database.buckets import BUCKETS
from config.database.engine import Database

PARTITIONS = 16
_WIDTH = BUCKETS // PARTITIONS


def partition_by_bucket(db: Database) -> list[str]:
    """Replace the empty tables with a bucket by partitioned ones. Returns their names."""
    tables = [
        table.name
        for table in SQLModel.metadata.sorted_tables
        if "bucket" in table.columns and table.name != "bucket_lease"
    ]
    with db.transaction() as tx:
        for name in tables:
            statements = [
                f"CREATE TABLE new (LIKE {name} INCLUDING ALL EXCLUDING DEFAULTS) "
                "PARTITION BY RANGE (bucket)",
                f"DROP TABLE {name}",
                f"ALTER TABLE new RENAME TO {name}",
                *(
                    f"CREATE TABLE {name}_p{number} PARTITION OF {name} "
                    f"FOR VALUES FROM ({number * _WIDTH}) TO ({(number + 1) * _WIDTH})"
                    for number in range(PARTITIONS)
                ),
            ]
            for statement in statements:
                tx.conn.execute(text(statement))
    return tables


# The partitions that a statement reads, by table.
Reads = dict[str, set[str]]


@contextmanager
def partitions_read(db: Database, tables: Collection[str]) -> Iterator[dict[str, Reads]]:
    """What PostgreSQL reads for each statement from here on, by the statement's text on one line.

    Each statement is executed twice: first by EXPLAIN ANALYZE, and rolled back. A part of a plan
    that was never executed is left out, since the executor skips partitions too.
    """
    found: dict[str, Reads] = {}

    def explain(_c: Any, cursor: Any, sql: str, given: Any, _x: Any, many: bool) -> None:
        if not sql.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            return
        with cursor.connection.cursor() as explaining:
            for row in given if many else [given]:
                explaining.execute("SAVEPOINT explain")
                explaining.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", row)
                [[[plan]]] = explaining.fetchall()
                explaining.execute("ROLLBACK TO SAVEPOINT explain")
                reads = found.setdefault(" ".join(sql.split()), {})
                for name in _relations(plan["Plan"]):
                    table, _, number = name.rpartition("_p")
                    if table in tables and number.isdigit():
                        reads.setdefault(table, set()).add(name)

    event.listen(db.engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(db.engine, "before_cursor_execute", explain)


def _relations(plan: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in plan and plan["Actual Loops"]:
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from _relations(part)
