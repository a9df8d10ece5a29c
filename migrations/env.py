"""Runs migrations on the connection that `catalog.evidence.database` hands over, inside its transaction.

Views are derived, so they have one definition, the present one: they are dropped before tables change and made again
once the schema is the newest.
"""

from alembic import context

from catalog.evidence.tables import EvidenceTable
from migrations.collation import sort_texts_by_bytes
from migrations.notifications import create_triggers
from migrations.views import create_views, drop_views

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=EvidenceTable.metadata,
    # For revisions that Alembic writes: SQLite changes few things in place, so it copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    drop_views(connection)
    context.run_migrations()
    if context.get_context().get_current_revision() == context.get_head_revision():
        sort_texts_by_bytes(connection)
        create_views(connection)
        create_triggers(connection)
