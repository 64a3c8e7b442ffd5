"""Wording and evidence of consent, and pending opt-ins on e-mail"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("consent_record", sa.Column("wording", sa.String(), nullable=True))
    op.add_column("consent_record", sa.Column("evidence", _JSON, nullable=True))
    op.create_table(
        "email_confirmation",
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("profile_id", sa.BigInteger(), nullable=False),
        sa.Column("said_at", sa.BigInteger(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("wording", sa.String(), nullable=True),
        sa.Column("evidence", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("address", "topic"),
    )
