"""Bringing a database to the schema this program knows, forward only."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from config.database import Database, unusable
from config.errors import SegueError

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number that is ours: processes that start together migrate one after the other.
_LOCK = 7_334_801


def migrate(db: Database) -> None:
    """Apply the migrations that the database does not have yet.

    Safe to call from several processes at once. Raises SegueError when the database can't be
    reached, is damaged, is not Segue's, or is newer than this program.
    """
    try:
        with db.transaction() as tx:
            if tx.conn.dialect.name == "postgresql":
                tx.conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            current = MigrationContext.configure(tx.conn).get_current_revision()
            known = ScriptDirectory.from_config(_config(tx.conn))
            if current is not None and current not in {
                script.revision for script in known.walk_revisions()
            }:
                raise SegueError(
                    f"the database {db.shown} was written by a newer Segue (schema {current}); "
                    "run that version, or restore a backup from before the upgrade"
                )
            if current != known.get_current_head():
                if current is None and _tables(tx.conn):
                    raise SegueError(
                        f"the database {db.shown} holds tables that Segue did not make; "
                        "set SEGUE_DATABASE_URL to an empty one"
                    )
                command.upgrade(_config(tx.conn), "head")
    except DBAPIError as error:
        raise unusable(db.url, error) from error


def differences(conn: Connection) -> list[object]:
    """What the models say that the migrated database does not have; empty when they agree."""
    context = MigrationContext.configure(conn, opts={"compare_type": True})
    return list(compare_metadata(context, SQLModel.metadata))


def _tables(conn: Connection) -> list[str]:
    return inspect(conn).get_table_names()


def _config(conn: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = conn
    config.attributes["metadata"] = SQLModel.metadata
    return config
