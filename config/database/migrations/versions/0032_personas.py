"""Personas of profiles, and the movement between them"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("profile", sa.Column("persona", sa.String(), nullable=True))
    op.create_table(
        "persona_move",
        sa.Column("month", sa.String(), nullable=False),
        sa.Column("from_persona", sa.String(), nullable=False),
        sa.Column("to_persona", sa.String(), nullable=False),
        sa.Column("people", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", "from_persona", "to_persona"),
    )
