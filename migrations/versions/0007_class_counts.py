"""How often each class occurs among the validation items: what a constant answer would score. Older evidence: NULL."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("accuracy", sa.Column("class_counts", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("accuracy", "class_counts")
