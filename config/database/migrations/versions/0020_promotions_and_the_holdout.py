"""Promoted arms; the holdout by profile and by hashed address; the kind of past messages"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promotion",
        sa.Column("journey", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("arm", sa.String(), nullable=False),
        sa.Column("promoted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("journey", "step"),
    )
    op.create_table(
        "held_out",
        sa.Column("profile_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("profile_id", "bucket"),
    )
    op.create_table(
        "held_out_address",
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", "bucket"),
    )
    op.add_column("past_message", sa.Column("kind", sa.String(), nullable=True))
