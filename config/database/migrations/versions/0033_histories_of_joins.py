"""What it takes to undo joins, and the profiles that calls do not join again"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    json = sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")
    op.add_column("identifier", sa.Column("origin_id", sa.BigInteger(), nullable=True))
    op.create_table(
        "identity_record",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(),
            nullable=False,
        ),
        sa.Column("profile_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("origin_id", sa.BigInteger(), nullable=True),
        sa.Column("from_id", sa.BigInteger(), nullable=True),
        sa.Column("into_id", sa.BigInteger(), nullable=True),
        sa.Column("from_origin", sa.BigInteger(), nullable=True),
        sa.Column("into_origin", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("undone_at", sa.BigInteger(), nullable=True),
        sa.Column("undone_by", sa.String(), nullable=True),
        sa.Column("data", json, nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*(("id",) if on_sqlite else ("id", "bucket"))),
    )
    op.create_index("ix_identity_record_profile_id", "identity_record", ["profile_id"])
    op.create_table(
        "kept_apart",
        sa.Column("join_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("one_origin", sa.BigInteger(), nullable=False),
        sa.Column("other_origin", sa.BigInteger(), nullable=False),
        sa.Column("profile_id", sa.BigInteger(), nullable=False),
        sa.Column("other_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("join_id"),
    )
    op.create_index("ix_kept_apart_profile_id", "kept_apart", ["profile_id"])
    op.create_index("ix_kept_apart_other_id", "kept_apart", ["other_id"])
