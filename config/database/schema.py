"""Upgrade a database to the schema of this release, forward only, while other processes use it.

docs/decisions/0007-expand-then-contract.md describes what a migration may do.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import SchemaItem
from sqlmodel import SQLModel

# Each process knows these tables, also one that does not use them, since any may upgrade them.
from config.access import api_keys, staff_acts, staff_sessions, staff_users  # noqa: F401  tables
from config.clock.times import Seconds
from config.database.engine import Database, Tx, unusable
from config.errors import DatabaseUnusable, SegueError

log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
# The key of the advisory lock with which processes that start together migrate one after another.
_LOCK = 7_334_801
# A worker reports its heartbeat every 30 s. Without one for 90 s it counts as stopped.
_STOPPED_AFTER: Seconds = 90
# 57014 query_canceled (the statement timeout), 40P01 deadlock_detected.
_HELD_UP = ("57014", "40P01")
# deadlock_timeout, in milliseconds: after this wait for a lock, a process checks for a deadlock.
_PATIENCE = text("""
    SELECT set_config('statement_timeout', greatest(setting::int / 2, 1)::text, true)
    FROM pg_settings WHERE name = 'deadlock_timeout'
""")
_OLDEST = text("""
    SELECT pid, coalesce(nullif(application_name, ''), usename) AS name,
           extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
      AND wait_event IS DISTINCT FROM 'advisory'  -- waits for our lock
    ORDER BY xact_start LIMIT 1
""")


def migrate(db: Database) -> None:
    """Apply the migrations that the database does not have yet.

    Safe to call from several processes at once, and while others use the database. A migration
    that workers of the previous release are incompatible with waits until they have stopped.

    Raises SegueError if the database is unreachable, damaged, not Segue's or newer than this
    release, or if its tables stay locked by other processes.
    """
    try:
        for left in reversed(range(db.timing.upgrade_tries)):
            with db.transaction() as tx:
                workers = _upgrade(tx, db.shown)
            if not workers:
                db.is_migrated = True
                return
            named = ", ".join(workers)
            if left == db.timing.upgrade_tries - 1:
                log.warning("the database upgrade waits for these workers to stop: %s", named)
            time.sleep(db.timing.upgrade_pause)
    except DBAPIError as error:
        raise unusable(db.url, error) from error
    raise DatabaseUnusable(
        f"the database {db.shown} must be upgraded, but workers of an earlier release use it: "
        f"{named}. Stop them and start again; nothing was changed"
    )


def _upgrade(tx: Tx, shown: str) -> Sequence[str]:
    """Upgrade, or return the workers that must stop first."""
    if tx.conn.dialect.name == "postgresql":
        tx.conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if newer := newer_revision(tx.conn):
        raise SegueError(
            f"the database {shown} was written by a newer Segue (schema {newer}); "
            "run that version, or restore a backup from before the upgrade"
        )
    current = MigrationContext.configure(tx.conn).get_current_revision()
    if current == _scripts(tx.conn).get_current_head():
        return ()
    if current is None and _tables(tx.conn):
        raise SegueError(
            f"the database {shown} has tables that are not Segue's; "
            "set SEGUE_DATABASE_URL to an empty database"
        )
    if workers := _at_work(tx, current):
        return workers
    take_tables(tx, shown)
    command.upgrade(_config(tx.conn), "head")
    return ()


def _at_work(tx: Tx, current: str | None) -> Sequence[str]:
    """The workers that must stop before the upgrade."""
    pending = _scripts(tx.conn).iterate_revisions("head", current or "base")
    stop = any(getattr(script.module, "WORKERS_STOP", False) for script in pending)
    # releases before schema 0004 report no heartbeat
    if not stop or "attendance" not in _tables(tx.conn):
        return ()
    seen = text("SELECT worker FROM attendance WHERE seen_at > :since ORDER BY worker")
    return tx.conn.execute(seen, {"since": tx.now - _STOPPED_AFTER}).scalars().all()


def newer_revision(conn: Connection) -> str | None:
    """The schema's revision if this release does not know it; None otherwise."""
    current = MigrationContext.configure(conn).get_current_revision()
    known = {script.revision for script in _scripts(conn).walk_revisions()}
    return current if current is not None and current not in known else None


def refuse_other_schema(tx: Tx, shown: str) -> None:
    """Raise SegueError unless the database has the schema of this release."""
    if (
        MigrationContext.configure(tx.conn).get_current_revision()
        != _scripts(tx.conn).get_current_head()
    ):
        raise SegueError(
            f"the database {shown} does not have the schema of this release; start a worker of "
            "this release once, which upgrades it"
        )


def take_tables(tx: Tx, shown: str) -> None:
    """Lock all of Segue's tables until the transaction ends, without causing a deadlock.

    On PostgreSQL a change of a table waits for its readers, and later readers wait for the change.
    So all tables are locked before the first change, in one statement with a timeout shorter than
    deadlock_timeout. After a timeout other processes continue, and it is tried again. On SQLite the
    write lock covers all tables.

    Raises DatabaseUnusable after the last attempt.
    """
    conn, timing = tx.conn, tx.timing
    there = set(_tables(conn))
    quote = conn.dialect.identifier_preparer.format_table
    ours = [quote(table) for table in SQLModel.metadata.sorted_tables if table.name in there]
    if conn.dialect.name != "postgresql" or not ours:
        return
    take = text(f"LOCK TABLE {', '.join(ours)} IN ACCESS EXCLUSIVE MODE")
    for left in reversed(range(timing.upgrade_tries)):
        try:
            with conn.begin_nested():
                conn.execute(_PATIENCE)
                conn.execute(take)
                conn.execute(text("SET LOCAL statement_timeout TO DEFAULT"))
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _HELD_UP:
                raise
            holds = _lock_holders(conn)
            if not left:
                raise DatabaseUnusable(
                    f"the database {shown} must be upgraded, but its tables are locked: {holds}. "
                    "Wait for it or end it, then start again; nothing was changed"
                ) from error
            if left == timing.upgrade_tries - 1:
                log.warning("the database upgrade waits: %s", holds)
            time.sleep(timing.upgrade_pause)


def _lock_holders(conn: Connection) -> str:
    """A description of the oldest other open transaction."""
    conn.execute(text("SELECT pg_stat_clear_snapshot()"))
    oldest = conn.execute(_OLDEST).one_or_none()
    if oldest is None:
        return "other transactions have just used them"
    name = f" ({oldest.name})" if oldest.name else ""
    return f"the transaction of process {oldest.pid}{name} has been open for {oldest.seconds} s"


def differences(conn: Connection) -> list[object]:
    """The differences between the models and the migrated database; empty if there are none."""

    def is_ours(item: SchemaItem, *_: object) -> bool:
        return item.info.get("dialect") in (None, conn.dialect.name)

    opts = {"compare_type": True, "include_object": is_ours}
    context = MigrationContext.configure(conn, opts=opts)
    return list(compare_metadata(context, SQLModel.metadata))


def _tables(conn: Connection) -> list[str]:
    return inspect(conn).get_table_names()


def _scripts(conn: Connection) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(conn))


def _config(conn: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = conn
    config.attributes["metadata"] = SQLModel.metadata
    return config
