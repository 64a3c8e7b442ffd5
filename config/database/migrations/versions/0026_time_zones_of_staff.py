"""Each user of the staff site may have a time zone of their own"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("staff_user", sa.Column("timezone", sa.String(), nullable=True))
    op.create_index("ix_staff_act_at", "staff_act", ["at"])
