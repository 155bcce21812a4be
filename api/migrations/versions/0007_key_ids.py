"""Which master key a digest and a resourceId need, so that an old key is dropped when nothing needs it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("secrets", sa.Column("key_id", sa.String(8), nullable=True))
    op.add_column("recordings", sa.Column("resource_key_id", sa.String(8), nullable=True))


def downgrade() -> None:
    op.drop_column("recordings", "resource_key_id")
    op.drop_column("secrets", "key_id")
