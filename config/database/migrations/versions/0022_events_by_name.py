"""The events of one name are read from an index alone"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_event_did", "event")
    op.create_index("ix_event_name", "event", ["name", "profile_id", "bucket", "occurred_at"])
