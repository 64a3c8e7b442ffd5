"""A schema that is partitioned by bucket, and the partitions that each statement reads."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text

from config.database.engine import Database
from config.settings import ROOT

_SCRIPT = ROOT / "deploy" / "postgres" / "partition.sql"


def partition_by_bucket(db: Database) -> list[str]:
    """Partition the tables as an operator does. Returns their names."""
    with db.transaction() as tx:
        tx.conn.connection.cursor().execute(_SCRIPT.read_text(encoding="utf-8"))
        found = "SELECT relname FROM pg_class WHERE relkind = 'p' ORDER BY relname"
        return list(tx.conn.execute(text(found)).scalars())


# The partitions that a statement reads, by table.
Reads = dict[str, set[str]]


@contextmanager
def partitions_read(db: Database, tables: Collection[str]) -> Iterator[dict[str, Reads]]:
    """What PostgreSQL reads for each statement from here on, by the statement's text on one line.

    Of several executions of a statement the one that reads most counts, for each table. Each is
    executed twice: first by EXPLAIN ANALYZE, and rolled back. A part of a plan
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
                reads: Reads = {}
                for name in _relations(plan["Plan"]):
                    table, _, number = name.rpartition("_p")
                    if table in tables and number.isdigit():
                        reads.setdefault(table, set()).add(name)
                widest = found.setdefault(" ".join(sql.split()), {})
                for table, partitions in reads.items():
                    widest[table] = max(widest.get(table, set()), partitions, key=len)

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
