"""When a customer got an identifier, and the limits of joins that calls met"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("identifier", sa.Column("added_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "join_limit_hit",
        sa.Column("profile_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("limited_kind", sa.String(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("limited_to", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("exempt", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("profile_id", "at", "kind", "value", "limited_kind", "bucket"),
    )
