"""What Alembic runs: the scripts, on the connection that `migrate.py` gives, in its transaction."""

from alembic import context

from broker.stores.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
