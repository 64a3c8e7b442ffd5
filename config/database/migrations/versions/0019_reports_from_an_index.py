"""Reports count messages from an index alone, on PostgreSQL"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_message_report", "message")
        op.create_index(
            "ix_message_report",
            "message",
            ["journey", "channel", "state"],
            postgresql_include=["reason"],
        )
