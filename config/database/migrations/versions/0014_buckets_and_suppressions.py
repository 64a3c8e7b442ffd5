"""Buckets, suppressions by channel, identifiers of statements, and addresses of messages

docs/decisions/0024-buckets.md has the reasons, also why workers of earlier releases must stop.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# `config.database.schema.migrate` waits until all workers of earlier releases have stopped.
WORKERS_STOP = True

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def bucket_of(column: str) -> str:
    """`bucket_of` of profiles/bucketing.py in SQL, for both databases."""
    return f"({column} % 2147483648 * 2654435761 % 4294967296 / 16777216)"


# The bucket of an identifier. SQLite uses the function below during the upgrade.
IDENTIFIER_BUCKET = {
    "sqlite": "identifier_bucket(kind, value)",
    "postgresql": "get_byte(sha256(convert_to(kind || ':' || value, 'UTF8')), 0)",
}


def identifier_bucket(kind: str, value: str) -> int:
    return hashlib.sha256(f"{kind}:{value}".encode()).digest()[0]


class Table(NamedTuple):
    """The changes of a table.

    key: the primary key. The bucket is added to it, except on SQLite if the key is a row number.
    unique: name and columns of a unique constraint, to which the bucket is added.
    check: name and text of a check constraint, which stays.
    whose: the column with the profile id.
    """

    name: str
    key: Sequence[str]
    unique: tuple[str, Sequence[str]] | None = None
    check: tuple[str, str] | None = None
    dropped: Sequence[str] = ()
    whose: str = "profile_id"

    def bucket(self, engine: str) -> str:
        if self.name == "identifier":
            return IDENTIFIER_BUCKET[engine]
        return bucket_of(self.whose)


_TABLES = (
    Table("profile", ["id"], whose="id"),
    Table("identifier", ["kind", "value"], dropped=["state"]),
    Table("consent", ["profile_id", "channel", "topic"]),
    Table("consent_record", ["id"]),
    Table("preference", ["profile_id"]),
    Table("event", ["id"], unique=("uq_event_dedupe_key", ["profile_id", "dedupe_key"])),
    Table(
        "enrollment",
        ["id"],
        check=("ck_enrollment_due_or_ended", "(due_at IS NULL) <> (ended_at IS NULL)"),
    ),
    Table("passage", ["profile_id", "enrollment_id", "step"]),
    Table("segment_member", ["journey", "profile_id"]),
    Table(
        "message",
        ["id"],
        unique=("uq_message_wanted_once", ["enrollment_id", "step", "member", "profile_id"]),
    ),
    Table("message_device", ["message_id", "token"]),
)
# New columns, which are empty in existing rows.
_NEW: Sequence[tuple[str, str, Any]] = (
    ("profile", "attribute_identifiers", _JSON),
    ("consent_record", "identifier_kind", sa.String()),
    ("consent_record", "identifier_value", sa.String()),
    ("event", "identifier_kind", sa.String()),
    ("event", "identifier_value", sa.String()),
    ("message", "address", sa.String()),
)
# The unique indexes of `enrollment`: columns and condition by name.
_UNIQUE_INDEXES = {
    "uq_enrollment_current": (["profile_id", "journey", "entry_key"], "ended_at IS NULL"),
    "uq_enrollment_launch": (["profile_id", "journey", "launch_id"], "launch_id IS NOT NULL"),
}


def upgrade() -> None:
    conn = op.get_bind()
    engine = conn.dialect.name
    if engine == "sqlite":
        driver: Any = conn.connection.driver_connection
        driver.create_function("identifier_bucket", 2, identifier_bucket, deterministic=True)
        # Otherwise a user-defined view on one of the tables makes the copy fail.
        op.execute("PRAGMA legacy_alter_table = ON")
    _suppressions(engine)
    for name in _UNIQUE_INDEXES:
        op.drop_index(name, "enrollment")
    for table_name, column, kind in _NEW:
        op.add_column(table_name, sa.Column(column, kind, nullable=True))
    op.alter_column("message", "deadline", new_column_name="latest_anchor")
    for table in _TABLES:
        if engine == "sqlite":
            _copy(conn, table)
        else:
            _rewrite(table)
    for name, (columns, condition) in _UNIQUE_INDEXES.items():
        where = sa.text(condition)
        op.create_index(
            name,
            "enrollment",
            [*columns, "bucket"],
            unique=True,
            sqlite_where=where,
            postgresql_where=where,
        )
    if engine == "sqlite":
        op.execute("PRAGMA legacy_alter_table = OFF")


def _suppressions(engine: str) -> None:
    """Create a suppression from `identifier.state`, for the one channel of each kind of address."""
    op.create_table(
        "suppression",
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("address", "channel", "bucket"),
    )
    op.execute(
        "INSERT INTO suppression (channel, address, bucket, state) "  # noqa: S608  our own names
        "SELECT CASE kind WHEN 'email' THEN 'email' WHEN 'phone' THEN 'sms' ELSE 'push' END, "
        f"value, {IDENTIFIER_BUCKET[engine]}, state FROM identifier "
        "WHERE kind IN ('email', 'phone', 'push_token') AND state <> 'active'"
    )


def _rewrite(table: Table) -> None:
    """Change the table in one statement, which makes PostgreSQL rewrite it once; grants stay."""
    op.add_column(table.name, sa.Column("bucket", sa.SmallInteger(), nullable=True))
    changes = [
        f"ALTER COLUMN bucket TYPE smallint USING {table.bucket('postgresql')}::smallint",
        "ALTER COLUMN bucket SET NOT NULL",
        f"DROP CONSTRAINT {table.name}_pkey",
        f"ADD CONSTRAINT {table.name}_pkey PRIMARY KEY ({', '.join(table.key)}, bucket)",
        *(f"DROP COLUMN {column}" for column in table.dropped),
    ]
    if table.unique is not None:
        name, columns = table.unique
        changes += [
            f"DROP CONSTRAINT {name}",
            f"ADD CONSTRAINT {name} UNIQUE ({', '.join(columns)}, bucket)",
        ]
    op.execute(f"ALTER TABLE {table.name} {', '.join(changes)}")


def _copy(conn: sa.Connection, table: Table) -> None:
    """Copy the rows to a new table.

    SQLite can neither change a key nor add a NOT NULL column without a default.
    """
    old = sa.Table(table.name, sa.MetaData(), autoload_with=conn)
    made = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql <> ''"
    indexes = conn.execute(sa.text(made), {"name": table.name}).scalars().all()
    kept = [column for column in old.columns if column.name not in table.dropped]
    numbered = list(table.key) == ["id"]
    constraints: list[sa.Constraint] = [
        sa.PrimaryKeyConstraint(*table.key, *([] if numbered else ["bucket"]))
    ]
    if table.unique is not None:
        name, columns = table.unique
        constraints.append(sa.UniqueConstraint(*columns, "bucket", name=name))
    if table.check is not None:
        name, condition = table.check
        constraints.append(sa.CheckConstraint(condition, name=name))
    sa.Table(
        f"new_{table.name}",
        sa.MetaData(),
        *(sa.Column(one.name, one.type, nullable=one.nullable) for one in kept),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *constraints,
        sqlite_autoincrement=table.name == "profile",
    ).create(conn)
    names = ", ".join(f'"{column.name}"' for column in kept)
    op.execute(
        f"INSERT INTO new_{table.name} ({names}, bucket) "  # noqa: S608  our own names
        f"SELECT {names}, {table.bucket('sqlite')} FROM {table.name}"
    )
    if table.name == "profile":
        # Keeps the sequence, so that ids of deleted profiles are not used again.
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'new_profile'")
        op.execute("UPDATE sqlite_sequence SET name = 'new_profile' WHERE name = 'profile'")
    op.execute(f"DROP TABLE {table.name}")
    op.execute(f"ALTER TABLE new_{table.name} RENAME TO {table.name}")
    for index in indexes:
        op.execute(index)
