"""Runs migrations on the connection that `catalog.evidence.database` hands over, inside its transaction."""

from alembic import context

from catalog.evidence.tables import EvidenceTable

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=EvidenceTable.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
