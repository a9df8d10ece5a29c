"""Targets by subject, so that the fills of two catalogs into one database leave each other's alone.

A database from before knows the targets of its last fill alone: they are those of all subjects declared here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_DECLARED_HERE = """
INSERT INTO subject_slo (subject, name, latency, accuracy)
SELECT d.subject, t.name, t.latency, t.accuracy
FROM slo t CROSS JOIN (
    SELECT DISTINCT s.subject FROM strategy s JOIN environment e ON e.id = s.environment_id
    WHERE s.declared AND e.imported_file_id IS NULL
) d
ORDER BY d.subject, t.name
"""


def upgrade() -> None:
    """Create the table and fill it."""
    op.create_table(
        "subject_slo",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("latency", sa.JSON(), nullable=False),
        sa.Column("accuracy", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subject_slo"),
        sa.UniqueConstraint("subject", "name", name="uq_subject_slo_subject_name"),
    )
    op.execute(_DECLARED_HERE)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("subject_slo")
