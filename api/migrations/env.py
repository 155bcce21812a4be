"""Runs the migrations on the connection, and in the transaction, that `api.store` hands over."""

from alembic import context

from api.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite cannot alter columns in place
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
