"""Time zone and language as preferences"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("preference", sa.Column("timezone", sa.String(), nullable=True))
    op.add_column("preference", sa.Column("language", sa.String(), nullable=True))
