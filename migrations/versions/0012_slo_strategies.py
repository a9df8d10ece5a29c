"""How each strategy stands to each declared SLO, stored with the answers to them, for `runner leaderboard`."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; answers from before have none and are stored again by the next fill or import."""
    op.add_column("analysis_slo", sa.Column("statuses", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("analysis_slo", "statuses")
