"""What probing the links cost each measurement. Older evidence does not know: its rows keep NULL."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("measurement", sa.Column("probing_s", sa.Float(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("measurement", "probing_s")
