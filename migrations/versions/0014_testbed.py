"""The testbed that each round ran on; None where the catalog names none, and in older evidence."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("measurement", sa.Column("testbed", sa.String(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("measurement", "testbed")
