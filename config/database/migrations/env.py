"""Alembic runs this module: migrate with the connection that `config.database.schema` opened."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=context.config.attributes["metadata"],
    # Batch mode would rebuild a table on SQLite while other processes use it.
    render_as_batch=False,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
