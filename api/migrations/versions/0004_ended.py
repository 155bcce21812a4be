"""When a recording's last file was written."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recordings", sa.Column("ended_ms", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("recordings", "ended_ms")
