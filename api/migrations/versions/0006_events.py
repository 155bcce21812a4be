"""What notices tell of a recording: whether it makes files, and as whom its present worker is in the channel."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recordings", sa.Column("files", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("recordings", sa.Column("worker_uid", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("recordings", "worker_uid")
    op.drop_column("recordings", "files")
