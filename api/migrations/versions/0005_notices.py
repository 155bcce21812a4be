"""Notices to the receivers of customers, and where these are."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WAITING, _DEAD, _DONE = (sa.text(condition) for condition in ("state = 'waiting'", "state = 'dead'", "state <> 'waiting'"))


def upgrade() -> None:
    op.add_column("recordings", sa.Column("notices", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "endpoints",
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("gone_ms", sa.BigInteger(), nullable=True),
        sa.Column("event_types", sa.JSON(), nullable=True),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"]),
        sa.PrimaryKeyConstraint("app_id"),
    )
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("sid", sa.String(length=32), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("event_type", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
        sa.Column("notify_ms", sa.BigInteger(), nullable=True),
        sa.Column("first_failed_ms", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.String(length=16), nullable=True),
        sa.Column("done_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("notice_id"),
        sa.UniqueConstraint("sid", "sequence"),
    )
    op.create_index("waiting_notices", "notices", ["app_id", "next_ms"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    op.create_index("waiting_of_sid", "notices", ["sid", "sequence"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    op.create_index("dead_notices", "notices", ["app_id", "done_ms"], sqlite_where=_DEAD, postgresql_where=_DEAD)
    op.create_index("done_notices", "notices", ["state", "done_ms"], sqlite_where=_DONE, postgresql_where=_DONE)


def downgrade() -> None:
    op.drop_table("notices")
    op.drop_table("endpoints")
    op.drop_column("recordings", "notices")
