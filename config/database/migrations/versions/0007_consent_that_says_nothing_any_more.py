"""A record of consent that says nothing any more: no yes, and no no either"""

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
        # A SQLite that lets nobody touch its schema can only copy the table.
        with op.batch_alter_table("consent_record", recreate="always") as batch_op:
            batch_op.alter_column("granted", existing_type=sa.Boolean(), nullable=True)


def _in_place() -> None:
    """As https://www.sqlite.org/lang_altertable.html has it (section 7): no row is touched."""
    version = op.get_bind().exec_driver_sql("PRAGMA schema_version").scalar_one()
    op.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'granted BOOLEAN NOT NULL', 'granted BOOLEAN')"
        " WHERE type = 'table' AND name = 'consent_record'"
    )
    # so that whoever has the database open reads its schema anew
    op.execute(f"PRAGMA schema_version = {version + 1}")
    op.execute("PRAGMA writable_schema = RESET")
