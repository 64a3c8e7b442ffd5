"""Reports: what a worker counted for large journeys, and the rows of a period"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kept_report",
        sa.Column("journey", sa.String(), nullable=False),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.Column("took", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("journey"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.create_index(
            "ix_message_at", "message", ["send_at", "wanted_at"], postgresql_using="brin"
        )
        op.create_index("ix_event_at", "event", ["occurred_at"], postgresql_using="brin")
