"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "apps",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["customers.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_apps_customer_id", "apps", ["customer_id"])

    op.create_table(
        "recordings",
        sa.Column("sid", sa.String(length=32), nullable=False),
        sa.Column("app_id", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("resource_key", sa.String(length=32), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("control_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("listing", sa.String(length=8), nullable=False),
        sa.Column("prefix", sa.String(length=128), nullable=False),
        sa.Column("audio", sa.Boolean(), nullable=False),
        sa.Column("video", sa.Boolean(), nullable=False),
        sa.Column("sealed_spec", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("offers", sa.BigInteger(), nullable=False),
        sa.Column("stop", sa.String(length=8), nullable=True),
        sa.Column("workers_lost", sa.BigInteger(), nullable=False),
        sa.Column("first_media_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("uploading", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["app_id"],
            ["apps.id"],
        ),
        sa.PrimaryKeyConstraint("sid"),
        sa.UniqueConstraint("resource_key"),
    )
    op.create_index(
        "one_live_task",
        "recordings",
        ["app_id", "channel", "uid"],
        unique=True,
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )
    op.create_index("unfinished", "recordings", ["node"], sqlite_where=sa.text("NOT finished"), postgresql_where=sa.text("NOT finished"))

    op.create_table(
        "events",
        sa.Column("sid", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sid"],
            ["recordings.sid"],
        ),
        sa.PrimaryKeyConstraint("sid", "epoch", "sequence"),
    )
    op.create_table(
        "files",
        sa.Column("sid", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("track", sa.String(length=16), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("mixed", sa.Boolean(), nullable=False),
        sa.Column("playable", sa.Boolean(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sid"],
            ["recordings.sid"],
        ),
        sa.PrimaryKeyConstraint("sid", "name"),
    )
    op.create_table(
        "slices",
        sa.Column("sid", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("playlist", sa.String(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("duration_ns", sa.BigInteger(), nullable=False),
        sa.Column("discontinuity", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("stored", sa.String(length=8), nullable=True),
        sa.ForeignKeyConstraint(
            ["sid"],
            ["recordings.sid"],
        ),
        sa.PrimaryKeyConstraint("sid", "epoch", "sequence"),
    )


def downgrade() -> None:
    for table in ("slices", "files", "events", "recordings", "apps", "customers"):
        op.drop_table(table)
