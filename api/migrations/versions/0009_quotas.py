"""Quotas of customers for streams, pixels, spool and callbacks. Recordings that are live by then count none of the first two."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_UNSTORED = sa.text("stored IS NULL")
_LIMITS = ("max_streams", "max_pixels", "max_spool_bytes", "max_callbacks")


def upgrade() -> None:
    for name in _LIMITS:
        op.add_column("customers", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in ("streams", "pixels"):
        op.add_column("recordings", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("unstored_slices", "slices", ["sid"], sqlite_where=_UNSTORED, postgresql_where=_UNSTORED)


def downgrade() -> None:
    op.drop_index("unstored_slices", "slices")
    for name in ("pixels", "streams"):
        op.drop_column("recordings", name)
    for name in reversed(_LIMITS):
        op.drop_column("customers", name)
