"""Retention: counts of removed rows, and what decisions need of them"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _number(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "passage_total",
        *_text("journey", "step", "outcome"),
        *_number("since", "number"),
        sa.PrimaryKeyConstraint("journey", "step", "outcome", "since"),
    )
    op.create_table(
        "message_total",
        *_text("journey", "launch_id", "step", "channel", "state", "reason"),
        *_number("since", "number"),
        sa.PrimaryKeyConstraint(
            "journey", "launch_id", "step", "channel", "state", "reason", "since"
        ),
    )
    op.create_table(
        "experiment_arm",
        *_number("profile_id", "enrollment_id"),
        *_text("step"),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *_text("journey", "outcome"),
        *_number("at"),
        sa.PrimaryKeyConstraint("profile_id", "enrollment_id", "step", "bucket"),
    )
    op.create_table(
        "past_message",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        *_number("profile_id", "enrollment_id"),
        *_text("journey", "step", "channel", "topic"),
        *_number("wanted_at", "send_at"),
        *_text("state"),
        sa.Column("address", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", "bucket"),
    )
    op.create_index("ix_past_message_profile", "past_message", ["profile_id"])
    op.create_table(
        "retention_position",
        *_text("name"),
        *_number("position"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_passage_at", "passage", ["at"], postgresql_using="brin")
