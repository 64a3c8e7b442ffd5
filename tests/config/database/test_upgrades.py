"""Databases of earlier releases, with active enrollments: upgraded while idle and while in use.

`upgrades/` has for each schema, in plain SQL, rows that a release with it writes and earlier ones
could not. docs/decisions/0007-expand-then-contract.md has the rules for migrations.
"""

import asyncio
import hashlib
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import sleep
from typing import Any

import orjson
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel

from channels.outbox.unknown import settle_lost
from config.clock.times import DAY, format_instant
from config.database.engine import Database
from config.database.schema import _config, differences, migrate, take_tables
from config.errors import SegueError
from config.timing import Timing
from flows.local.stack import free_ports
from flows.worker.worker import Worker
from journeys.dsl import Email, Journey, OnEvent, Send, Wait
from profiles.tables import (
    ADDRESS_KIND,
    consent_records,
    consents,
    events,
    identifiers,
    suppressions,
)
from tests.chaos import provider, worker
from tests.chaos.provider import remembered
from tests.support.patience import PATIENCE
from tests.support.shop import MONDAY, House

HERE = Path(__file__).parent
VERSIONS = HERE.parents[2] / "config" / "database" / "migrations" / "versions"
# What was released is never changed: a database that has it would not get the change.
RELEASED = {"0001_the_first_schema.py": "8cc3e2695bb221c8"}
REVISIONS = [one.revision for one in ScriptDirectory(str(VERSIONS.parent)).walk_revisions()][::-1]
EARLIER = REVISIONS[:-1]
# The last migration for which workers have to stop: what releases before it write is refused.
LAST_STOP = "0014"
_processes = get_context("forkserver")


def to_revision(db: Database, revision: str) -> None:
    with db.transaction() as tx:
        command.upgrade(_config(tx.conn), revision)


def revision(db: Database) -> str:
    with db.transaction(write=False) as tx:
        return str(tx.conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def statements(revision: str) -> list[str]:
    """What a release with that schema writes that those before could not."""
    lines = (HERE / "upgrades" / f"{revision}.sql").read_text()
    return [one for one in lines.split(";\n") if one.strip()]


def fill(db: Database, revision: str) -> None:
    """Bring an empty database to that schema, with what the releases up to it had written."""
    for one in REVISIONS[: REVISIONS.index(revision) + 1]:
        to_revision(db, one)
        with db.transaction() as tx:
            for statement in statements(one):
                tx.conn.exec_driver_sql(statement)


Contents = dict[str, list[tuple[Any, ...]]]


def contents(conn: Connection, columns: dict[str, list[str]]) -> Contents:
    return {
        table: sorted(tuple(row) for row in conn.execute(_all(table, names)))
        for table, names in columns.items()
    }


def _all(table: str, columns: list[str]) -> Any:
    # as text, so that rows can be put in order
    shown = ", ".join(f"coalesce(CAST(\"{name}\" AS TEXT), '-')" for name in columns)
    return text(f"SELECT {shown} FROM {table}")


# Columns that a later migration takes away or renames.
GONE = {("identifier", "state"), ("message", "deadline")}


def columns_of(conn: Connection) -> dict[str, list[str]]:
    found = inspect(conn)
    return {
        table: [
            column["name"]
            for column in found.get_columns(table)
            if (table, column["name"]) not in GONE
        ]
        for table in found.get_table_names()
        if table != "alembic_version"
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        db = Database(f"sqlite:///{tmp_path / 'old.db'}")
    else:
        db = Database(request.getfixturevalue("postgresql_url"))
        with db.transaction() as tx:
            tx.conn.execute(text("DROP SCHEMA public CASCADE"))
            tx.conn.execute(text("CREATE SCHEMA public"))
    yield db
    db.close()


@pytest.fixture(params=EARLIER)
def old(request: pytest.FixtureRequest, empty: Database) -> Database:
    """A database of an earlier release, with all that it had written."""
    fill(empty, request.param)
    return empty


def test_every_migration_brings_rows_of_its_own() -> None:
    assert {file.stem for file in (HERE / "upgrades").iterdir()} == set(REVISIONS)
    assert len(REVISIONS) == len(list(VERSIONS.glob("[0-9]*.py")))
    assert EARLIER


def test_released_migrations_are_unchanged() -> None:
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in VERSIONS.glob("[0-9]*.py")
    }
    assert RELEASED.items() <= found.items()


# At rest ------------------------------------------------------------------------------------------


def test_an_upgraded_database_keeps_its_rows_and_continues(old: Database) -> None:
    with old.transaction(write=False) as tx:
        columns = columns_of(tx.conn)
        before = contents(tx.conn, columns)
    assert all(before.values()), "some table is empty"
    migrate(old)
    with old.transaction(write=False) as tx:
        assert contents(tx.conn, columns) == before
        assert differences(tx.conn) == []
        found = select(suppressions.c.channel, suppressions.c.address, suppressions.c.state)
        assert ("email", "eve@example.com", "bounced") in tx.conn.execute(found).tuples().all()

    house = House(old)
    # The journey has another shape by now; who is in it runs to its end on the one they entered.
    steps = [Send("hello", Email("hello")), Wait("9d")]
    house.open(Journey("letters", entry=OnEvent("signed_up"), topic="news", steps=steps))
    with old.transaction() as tx:
        settle_lost(tx)
    house.until(MONDAY + 5 * DAY)
    shown = [
        (row.profile_id, row.channel, row.state, format_instant(row.send_at)[5:16])
        for row in house.rows()
        if row.journey == "letters"
    ]
    ann, bob, cyd, dan, eve, fay = range(1, 7)
    assert shown == [
        (dan, "email", "sent", "03-01T10:00"),
        (dan, "sms", "unknown", "03-01T11:00"),
        (eve, "email", "skipped", "03-01T10:00"),
        (eve, "sms", "cancelled", "03-01T11:00"),
        (fay, "email", "unknown", "03-02T09:00"),
        (fay, "sms", "sent", "03-02T10:00"),
        (bob, "email", "sent", "03-02T09:30"),
        (bob, "sms", "sent", "03-02T10:30"),
        (cyd, "email", "sent", "03-02T10:00"),
        (ann, "email", "sent", "03-02T10:00"),
        (ann, "sms", "sent", "03-02T11:00"),
        (dan, "push", "sent", "03-04T11:00"),
        (dan, "email", "sent", "03-04T13:00"),
        (ann, "push", "skipped", "03-05T11:00"),
        (ann, "email", "sent", "03-05T11:00"),
    ]


def test_a_sqlite_that_guards_its_own_schema_is_upgraded_as_well(tmp_path: Path) -> None:
    """Some are built so that `PRAGMA writable_schema` does nothing."""

    def guard(action: int, name: str | None, value: str | None, *_: object) -> int:
        guarded = (action, name, value) == (sqlite3.SQLITE_PRAGMA, "writable_schema", "ON")
        return sqlite3.SQLITE_IGNORE if guarded else sqlite3.SQLITE_OK

    db = Database(f"sqlite:///{tmp_path / 'old.db'}")
    event.listen(db.engine, "connect", lambda connection, _: connection.set_authorizer(guard))
    fill(db, "0006")
    with db.transaction(write=False) as tx:
        columns = columns_of(tx.conn)
        before = contents(tx.conn, columns)
    migrate(db)
    with db.transaction(write=False) as tx:
        assert contents(tx.conn, columns) == before
        assert differences(tx.conn) == []
    db.close()


def test_addresses_get_the_one_form_in_which_they_are_looked_up(
    empty: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """0011: an address that two customers have in two spellings stays with one of them, and what
    either of them refused holds for both.
    """
    fill(empty, REVISIONS[REVISIONS.index("0011") - 1])
    ann, bob, cyd, dan, eve, fay = range(1, 7)
    written = [
        # (kind, value, owner, state, seen_at, retired_at), and what becomes of them
        (("phone", "+541123456789", ann, "active", 5, None), ("+5491123456789", "active", None)),
        (("phone", "+551187654321", cyd, "active", 5, None), ("+5511987654321", "active", None)),
        (("phone", "+551132654321", cyd, "active", 5, None), ("+551132654321", "active", None)),
        (("phone", "+551178654321", cyd, "active", 5, None), ("+551178654321", "active", None)),
        (("phone", "+548001234567", cyd, "active", 5, None), ("+548001234567", "active", None)),
        (("email", "cyd@bücher.example", cyd, "active", 5, None),
         ("cyd@xn--bcher-kva.example", "active", None)),
        (("email", "ｄａｎ@x.example", dan, "active", 5, None), ("dan@x.example", "active", None)),
        # both forms with one customer: one row is enough
        (("phone", "+541122223333", dan, "bounced", 9, None), ("+5491122223333", "bounced", None)),
        (("phone", "+5491122223333", dan, "active", 5, 7), ("+5491122223333", "bounced", None)),
        # both forms, two customers
        (("phone", "+5491144445555", bob, "active", 5, None), ("+5491144445555", "bounced", None)),
        (("phone", "+541144445555", eve, "bounced", 9, None), ("+541144445555", "bounced", "now")),
    ]  # fmt: skip
    with empty.transaction() as tx:
        for (kind, value, owner, state, seen_at, retired_at), _ in written:
            tx.conn.execute(
                text(
                    "INSERT INTO identifier (kind, value, profile_id, state, seen_at, retired_at) "
                    "VALUES (:kind, :value, :owner, :state, :seen, :retired)"
                ),
                {"kind": kind, "value": value, "owner": owner, "state": state,
                 "seen": seen_at, "retired": retired_at},
            )  # fmt: skip
        tx.conn.execute(delete(consents).where(consents.c.channel == "sms"))
        said = {(bob, "*"): True, (bob, "news"): False, (eve, "*"): False, (fay, "*"): True}
        tx.conn.execute(
            text(
                "INSERT INTO consent (profile_id, channel, topic, granted, changed_at) "
                "VALUES (:profile_id, :channel, :topic, :granted, :changed_at)"
            ),
            [
                {"profile_id": who, "channel": "sms", "topic": topic, "granted": yes,
                 "changed_at": 1}
                for (who, topic), yes in said.items()
            ],
        )  # fmt: skip
    migrate(empty)
    with empty.transaction(write=False) as tx:
        found = {
            row.value: row
            for row in tx.conn.execute(select(identifiers).where(identifiers.c.profile_id < 7))
        }
        rows = tx.conn.execute(select(suppressions)).all()
        suppressed = {(ADDRESS_KIND[row.channel], row.address): row.state for row in rows}
        for (_, _, owner, *_), (value, state, retired) in written:
            row = found[value]
            dead = suppressed.get((row.kind, value), "active")
            assert (row.profile_id, dead) == (owner, state), value
            assert (row.retired_at is None) is (retired is None), value
        assert found["+5491122223333"].seen_at == 9
        assert "+541122223333" not in found
        refused = {
            (row.profile_id, row.topic)
            for row in tx.conn.execute(select(consents).where(consents.c.channel == "sms"))
            if not row.granted
        }
        assert refused == {(eve, "*"), (bob, "*"), (bob, "news"), (eve, "news")}
        proof = select(consent_records.c.profile_id, consent_records.c.source).where(
            consent_records.c.source.startswith("upgrade")
        )
        assert sorted(tx.conn.execute(proof).all()) == [
            (bob, f"upgrade: one address with profile {eve}"),
            (eve, f"upgrade: one address with profile {bob}"),
        ]
    assert f"{bob} and {eve}" in caplog.text
    assert "example" not in caplog.text


def test_conversions_get_the_time_of_their_event(empty: Database) -> None:
    """0025: that of the first order from the entry on, where the goal is one order."""
    fill(empty, REVISIONS[REVISIONS.index("0025") - 1])
    entered, ordered, counted = 1772300000, 1772310000, 1772390000
    definition = {"did": {"type": "did", "event": "order_completed", "where": [], "at_least": 2}}
    with empty.transaction() as tx:
        tx.conn.execute(
            text(
                "INSERT INTO journey_version (journey, version, definition, created_at) "
                "VALUES ('twice', 'v', :definition, 1)"
            ),
            {"definition": orjson.dumps({"journey": {"goal": definition}}).decode()},
        )
        for journey, version in (("letters", "8f75360173f9"), ("twice", "v")):
            tx.conn.execute(
                text(
                    "INSERT INTO enrollment (profile_id, journey, version, entry_key, context, "
                    "entered_at, since, step, arrived_at, phase, attempts, ended_at, end_reason, "
                    "converted_at, bucket) VALUES (3, :journey, :version, 'x', '{}', :entered, "
                    ":entered, 'hello', :entered, 0, 0, :counted, 'completed', :counted, "
                    "(SELECT bucket FROM profile WHERE id = 3))"
                ),
                {"journey": journey, "version": version, "entered": entered, "counted": counted},
            )
        for number, at in enumerate((entered - 1, ordered + 5, ordered, counted + 1)):
            tx.conn.execute(
                text(
                    "INSERT INTO event (profile_id, name, occurred_at, received_at, properties, "
                    "dedupe_key, worked_at, bucket) VALUES (3, 'order_completed', :at, :counted, "
                    "'{}', :key, :counted, (SELECT bucket FROM profile WHERE id = 3))"
                ),
                {"at": at, "counted": counted, "key": f"order {number}"},
            )
    migrate(empty)
    with empty.transaction(write=False) as tx:
        found = text("SELECT journey, converted_at FROM enrollment WHERE entry_key = 'x'")
        assert dict(tx.conn.execute(found).tuples().all()) == {"letters": ordered, "twice": counted}


# Which migrations are left does not matter to the lock: all, those after the last stop, one.
@pytest.mark.parametrize("old", [EARLIER[0], LAST_STOP, EARLIER[-1]], indirect=True)
def test_concurrent_starts_migrate_one_after_the_other(old: Database) -> None:
    databases = [Database(old.url) for _ in range(6)]
    start = threading.Barrier(len(databases))

    def begin(db: Database) -> None:
        start.wait()
        migrate(db)
        db.close()

    with ThreadPoolExecutor(len(databases)) as pool:
        list(pool.map(begin, databases))
    with old.transaction(write=False) as tx:
        assert differences(tx.conn) == []


@pytest.mark.parametrize("revision", REVISIONS[REVISIONS.index(LAST_STOP) :])
def test_rows_that_an_earlier_release_writes_are_accepted(db: Database, revision: str) -> None:
    """A worker of before may be at work yet."""
    with db.transaction() as tx:
        for statement in statements(revision):
            taken = tx.conn.exec_driver_sql(statement).rowcount
            assert taken or "INSERT INTO" not in statement


@pytest.mark.parametrize("revision", REVISIONS[: REVISIONS.index(LAST_STOP)])
def test_what_a_release_before_a_stop_writes_is_refused(db: Database, revision: str) -> None:
    """It does not write the bucket, and names columns that were dropped."""
    with db.transaction(write=False) as tx:
        names = [table for table, columns in columns_of(tx.conn).items() if "bucket" in columns]
    for statement in statements(revision):
        into = re.search(r"^INSERT INTO (\w+)", statement, re.MULTILINE)
        if into and into[1] in names:
            with pytest.raises(DBAPIError), db.transaction() as tx:
                tx.conn.exec_driver_sql(statement)


# At work ------------------------------------------------------------------------------------------

WORKERS = 3


def until(done: Callable[[], Any], what: Callable[[], str] = str) -> None:
    for _ in range(int(PATIENCE / 0.05)):
        if done():
            return
        sleep(0.05)
    raise AssertionError(what())


def _work(environment: dict[str, str], port: int, directory: Path) -> None:
    os.environ |= environment
    worker.work(f"worker-{port}", directory, port, suffers=False)


def _provide(port: int, memory: str) -> None:
    provider.FAULTS.clear()
    provider.serve(port, memory, 0, [])


class Others:
    """Another program at work on the database, from before the upgrade until its end."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stop = threading.Event()
        self._reading = db.engine.connect().execution_options(segue_write=False)
        self._thread = threading.Thread(target=self._write)
        self.written = 0
        self.error: BaseException | None = None

    def start(self) -> None:
        """Read everything in a transaction that stays open, and begin to write in others."""
        for table in columns_of(self._reading):
            self._reading.execute(text(f"SELECT count(*) FROM {table}"))
        self._thread.start()

    def read(self) -> int:
        """What was read at first can be read again."""
        found = self._reading.execute(text("SELECT count(per_week) FROM preference"))
        return int(found.scalar_one())

    def end_reading(self) -> None:
        self._reading.close()

    def _write(self) -> None:
        try:
            while not self._stop.wait(0.005):
                self.write()
        except BaseException as error:
            self.error = error

    def write(self) -> None:
        with self._db.transaction() as tx:
            for statement in _OTHERS_WRITE:
                tx.conn.execute(text(statement), {"number": self.written})
        self.written += 1

    def stop_writing(self) -> None:
        """As a worker stops; after a while it counts as gone."""
        self._stop.set()
        self._thread.join()
        with self._db.transaction() as tx:
            tx.conn.execute(text("DELETE FROM attendance WHERE worker = 'other:1'"))

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._reading.close()


_OTHERS_WRITE = (
    "INSERT INTO attendance (worker, seen_at) VALUES ('other:1', 1772445600)"
    " ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at",
    "UPDATE preference SET per_week = per_week WHERE profile_id = 4",
    "INSERT INTO event (profile_id, name, occurred_at, received_at, properties, dedupe_key)"
    " VALUES (4, 'looked', 1772445500, 1772445500, '{}', 'others ' || :number)",
)


def test_workers_start_together_on_an_old_database_that_others_use(
    empty: Database, tmp_path: Path
) -> None:
    before = REVISIONS[REVISIONS.index(LAST_STOP) - 1]
    fill(empty, before)
    *ports, provider_port = free_ports(WORKERS + 1)
    memory = tmp_path / "provider.jsonl"
    _processes.set_forkserver_preload(["tests.config.database.test_upgrades"])
    answering = _processes.Process(target=_provide, args=(provider_port, str(memory)))
    environment = {
        "SEGUE_DATA_DIR": str(tmp_path),
        "SEGUE_DATABASE_URL": empty.url,
        "SEGUE_POLICY_FILE": str(worker.POLICY),
        "SEGUE_PROVIDERS": "sandbox",
        "SEGUE_SANDBOX_PORT": str(provider_port),
        "SEGUE_NOW": format_instant(MONDAY),
    }
    logs = [tmp_path / f"worker-{port}.log" for port in ports]
    workers = [
        _processes.Process(target=_work, args=(environment, port, tmp_path)) for port in ports
    ]

    def said() -> str:
        return "\n".join(log.read_text() for log in logs if log.exists())

    others = Others(empty)
    others.start()
    try:
        for process in (answering, *workers):
            process.start()
        # A worker of the release before is let by until it stops.
        until(lambda: "waits for these workers to stop: other:1" in said(), said)
        written = others.written
        until(lambda: others.written > written + 20, said)
        assert revision(empty) == before
        others.stop_writing()
        if not empty.is_sqlite:
            # There a table that somebody reads can't be changed.
            until(lambda: "the database upgrade waits: the transaction of process" in said(), said)
            assert revision(empty) == before
            assert others.read() == 1
            others.end_reading()
        until(lambda: revision(empty) != before, said)
        if empty.is_sqlite:
            assert others.read() == 1
        with pytest.raises(IntegrityError):
            others.write()
        # Fay's text, Ann's mail; and all that the others told is worked, too
        until(lambda: {one.message_id for one in remembered(memory)} == {6, 10}, said)
        until(lambda: _unworked(empty) == 0, said)
        assert others.error is None
        assert [process.exitcode for process in workers] == [None] * WORKERS
        for process in workers:
            process.terminate()
        for process in workers:
            process.join(60)
        assert [process.exitcode for process in workers] == [0] * WORKERS
    finally:
        others.end()
        for process in (answering, *workers):
            if process.pid is not None:
                process.kill()
                process.join()
    # every line is one of a log: no traceback, and nothing worse than a warning
    logged = [orjson.loads(line) for line in said().splitlines() if line]
    assert [one for one in logged if one["level"] not in ("info", "warning")] == []
    assert logged
    with empty.transaction() as tx:
        assert differences(tx.conn) == []
        told = tx.conn.execute(select(events.c.id).where(events.c.name == "looked"))
        assert len(told.all()) == others.written


def _unworked(db: Database) -> int:
    with db.transaction(write=False) as tx:
        return len(tx.conn.execute(select(events.c.id).where(events.c.worked_at.is_(None))).all())


def next_upgrade(db: Database) -> None:
    """A migration of the next release: every table gets a column."""
    with db.transaction() as tx:
        take_tables(tx, db.shown)
        for table in columns_of(tx.conn):
            tx.conn.execute(text(f"ALTER TABLE {table} ADD COLUMN of_next_year TEXT"))
        tx.conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))


def test_a_worker_continues_during_an_upgrade(
    db: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(db)
    house.shorten(housekeeping=0.02, large_round=1)
    steps = [Send("hello", Email("hello")), Wait("1d")]
    came = Journey("j", entry=OnEvent("came", again="always"), topic="news", steps=steps)
    house.open(came)
    others = Database(db.url)

    async def scenario() -> None:
        # psycopg prepares a statement when it comes for the sixth time
        for number in range(1, 17):
            if number == 9:
                await asyncio.to_thread(next_upgrade, others)
            house.did(house.customer(), "came")
            async with asyncio.timeout(PATIENCE):
                while [row.state for row in house.rows()] != ["sent"] * number:
                    await asyncio.sleep(0.01)

    async def both() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        try:
            await scenario()
            async with asyncio.timeout(PATIENCE):
                while "a newer Segue has upgraded the database (schema 9999)" not in caplog.text:
                    await asyncio.sleep(0.01)
        finally:
            stop.set()
            await working

    with house.providers.listening():
        asyncio.run(both())
    others.close()
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []
    with pytest.raises(SegueError, match=r"newer Segue \(schema 9999\)"):
        migrate(db)  # who starts anew is told


def test_statements_that_were_prepared_outlive_a_new_column(db: Database) -> None:
    """On PostgreSQL a prepared statement may not give more than it gave before: we name columns."""
    with db.engine.connect() as conn, db.engine.connect() as careless:
        for _ in range(8):
            for table in SQLModel.metadata.sorted_tables:
                conn.execute(select(table))
            conn.commit()
            careless.exec_driver_sql("SELECT * FROM preference")
            careless.commit()
        if not db.is_sqlite:
            held = conn.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
            assert held >= len(SQLModel.metadata.sorted_tables)
            conn.commit()
        next_upgrade(db)
        for table in SQLModel.metadata.sorted_tables:
            conn.execute(select(table))
        if not db.is_sqlite:
            with pytest.raises(DBAPIError, match="cached plan must not change result type"):
                careless.exec_driver_sql("SELECT * FROM preference")


def test_an_upgrade_that_gets_no_lock_names_the_blocking_process(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(postgresql_url, timing=Timing(upgrade_pause=0, upgrade_tries=3))
    with db.transaction() as tx:
        tx.conn.execute(text("DROP SCHEMA public CASCADE"))
        tx.conn.execute(text("CREATE SCHEMA public"))
    to_revision(db, "0001")
    with db.transaction(write=False) as tx:
        process = tx.conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        tx.conn.execute(text("SELECT * FROM preference"))
        with pytest.raises(
            SegueError, match=rf"locked: the transaction of process {process} \(.+\) has been open"
        ):
            migrate(db)
        assert revision(db) == "0001"
    migrate(db)
    assert revision(db) != "0001"
    db.close()
