"""Consent records for consent that returns to unset"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("consent_record", "granted", nullable=True)
        return
    op.execute("PRAGMA writable_schema = ON")
    if op.get_bind().exec_driver_sql("PRAGMA writable_schema").scalar_one():
        _in_place()
    else:
        # SQLite in defensive mode does not allow changes of its schema, so the table is copied.
        with op.batch_alter_table("consent_record", recreate="always") as batch_op:
            batch_op.alter_column("granted", existing_type=sa.Boolean(), nullable=True)


def _in_place() -> None:
    """Change the schema without copying rows (https://www.sqlite.org/lang_altertable.html, 7)."""
    version = op.get_bind().exec_driver_sql("PRAGMA schema_version").scalar_one()
    op.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'granted BOOLEAN NOT NULL', 'granted BOOLEAN')"
        " WHERE type = 'table' AND name = 'consent_record'"
    )
    # makes other processes read the schema again
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = RESET")
