"""Computed traits of profiles"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("profile", sa.Column("computed", _JSON, nullable=True))
    op.create_table(
        "trait_state",
        sa.Column("trait", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("cuts", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("trait"),
    )
