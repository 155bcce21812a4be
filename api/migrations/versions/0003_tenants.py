"""Several secrets for each customer, operators, and what apps may do."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operators",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    kept = op.create_table(
        "secrets",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("secrets_of", "secrets", ["role", "owner_id"])
    old = sa.table("customers", sa.column("id"), sa.column("secret_digest"), sa.column("created_ms"))
    rows = op.get_bind().execute(sa.select(old.c.id, old.c.secret_digest, old.c.created_ms)).all()
    if rows:
        op.bulk_insert(
            kept,
            [
                {"id": secrets.token_hex(4), "role": "customer", "owner_id": owner, "digest": digest, "created_ms": created_ms}
                for owner, digest, created_ms in rows
            ],
        )
    # Not in a batch: that makes the table anew on SQLite, which the foreign keys of apps and recordings do not let happen.
    op.drop_column("customers", "secret_digest")
    op.add_column("customers", sa.Column("name", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("customers", sa.Column("max_recordings", sa.BigInteger(), nullable=True))
    op.add_column("apps", sa.Column("name", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("apps", sa.Column("sealed_certificate", sa.LargeBinary(), nullable=True))
    op.add_column("apps", sa.Column("open_channels", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("apps", sa.Column("max_recordings", sa.BigInteger(), nullable=True))
    op.add_column("apps", sa.Column("removed_ms", sa.BigInteger(), nullable=True))
    op.create_index(
        "live_of_app",
        "recordings",
        ["app_id"],
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )


def downgrade() -> None:
    op.drop_index("live_of_app", "recordings")
    for name in ("removed_ms", "max_recordings", "open_channels", "sealed_certificate", "name"):
        op.drop_column("apps", name)
    for name in ("max_recordings", "name"):
        op.drop_column("customers", name)
    op.add_column("customers", sa.Column("secret_digest", sa.LargeBinary(), nullable=False, server_default=""))
    newest = "SELECT digest FROM secrets WHERE role = 'customer' AND owner_id = customers.id ORDER BY created_ms DESC, id LIMIT 1"
    op.get_bind().execute(sa.text(f"UPDATE customers SET secret_digest = ({newest}) WHERE EXISTS ({newest})"))  # noqa: S608  # constants
    op.drop_index("secrets_of", "secrets")
    op.drop_table("secrets")
    op.drop_table("operators")
