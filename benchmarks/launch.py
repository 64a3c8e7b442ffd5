"""Launch: an audience enters a journey and its e-mail is planned, under windows and caps.

The reference is a plain bulk insert of the rows that the launch wrote (one enrollment and one
message per profile) into the same tables with the same indexes, in chunks of the same size.
"""

from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Table

from benchmarks.support.databases import Fresh, on_postgresql, on_sqlite
from benchmarks.support.material import EMAIL, EVERYBODY, MORNING, catalog_of, fill, policy
from benchmarks.support.runner import Benchmark, Cost, Figures, a_second, against, cost_of
from channels.messages import messages
from channels.rules.planner import Planner
from config.database.engine import Database
from journeys.definition.catalog import Catalog
from journeys.engine.advance import Engine
from journeys.enrollments import enrollments
from journeys.launches.launching import enter_audience, start_launch

Rows = dict[Table, list[tuple[Any, ...]]]


def enter_and_plan(db: Database, catalog: Catalog) -> int:
    """Launch the journey for all profiles. Returns the number of chunks of the entry."""
    with db.transaction() as tx:
        catalog.register(tx)
    engine = Engine(db, catalog, Planner(policy()))
    version = start_launch(engine, "a launch", "offer", EVERYBODY)
    chunks = sum(1 for _ in enter_audience(engine, version, EVERYBODY, "a launch"))
    engine.advance(version, "offer")
    return chunks


def _on_sqlite(quick: bool) -> Figures:
    people = 500 if quick else 100_000
    with on_sqlite(lambda db: fill(db, people, MORNING), MORNING) as fresh:
        return _measure(fresh, people, rounds=1 if quick else 2)


def _on_postgresql(quick: bool) -> Figures:
    people = 500 if quick else 40_000
    with on_postgresql(lambda db: fill(db, people, MORNING), MORNING) as fresh:
        return _measure(fresh, people, rounds=1 if quick else 2)


def _measure(fresh: Fresh, people: int, rounds: int) -> Figures:
    costs = [_round(fresh) for _ in range(rounds)]
    return {
        "profiles": people,
        **a_second(people, [ours for ours, _ in costs]),
        **against("bulk_insert", costs),
    }


def _round(fresh: Fresh) -> tuple[Cost, Cost]:
    launched, bare = fresh(), fresh()
    chunks: list[int] = []
    ours = cost_of(lambda: chunks.append(enter_and_plan(launched, catalog_of(EMAIL))))
    written = _written(launched)
    size = len(written[enrollments]) // chunks[0]
    other = cost_of(lambda: _insert(bare, written, size))
    launched.close()
    bare.close()
    return ours, other


def _written(db: Database) -> Rows:
    """The rows that the launch wrote, in the form that the driver accepts."""
    with db.transaction(write=False) as tx:
        rows: Rows = {
            table: [
                tuple(Jsonb(value) if isinstance(value, dict) else value for value in row)
                for row in tx.conn.exec_driver_sql(
                    f"SELECT {_columns(table)} FROM {table.name} WHERE journey = 'offer'"
                )
            ]
            for table in (enrollments, messages)
        }
    assert len(rows[enrollments]) == len(rows[messages]), "a profile has no decision"
    return rows


def _insert(db: Database, written: Rows, size: int) -> None:
    for table, rows in written.items():
        marks = ", ".join("?" if db.is_sqlite else "%s" for _ in table.columns)
        insert = f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({marks})"
        for start in range(0, len(rows), size):
            with db.transaction() as tx:
                tx.conn.exec_driver_sql(insert, rows[start : start + size])


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


SQLITE = Benchmark(
    "launch: enter profiles and plan an e-mail each, SQLite",
    _on_sqlite,
    {"per_second": "at least 10,000", "cpu_ratio_to_bulk_insert": "at least 0.45"},
)
POSTGRESQL = Benchmark(
    "the same on PostgreSQL", _on_postgresql, {"cpu_ratio_to_bulk_insert": "at least 0.5"}
)
