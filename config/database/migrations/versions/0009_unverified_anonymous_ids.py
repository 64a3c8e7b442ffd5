"""Unverified anonymous ids, and the times of upgrades"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("identifier", sa.Column("unverified_from", sa.BigInteger(), nullable=True))
    table = op.create_table(
        "upgrade",
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision"),
    )
    clock = "CAST(strftime('%s', 'now') AS INTEGER)"
    if op.get_bind().dialect.name == "postgresql":
        clock = "floor(extract(epoch FROM clock_timestamp()))::bigint"
    now = op.get_bind().execute(sa.text(f"SELECT {clock}")).scalar_one()
    op.bulk_insert(table, [{"revision": revision, "at": now}])
