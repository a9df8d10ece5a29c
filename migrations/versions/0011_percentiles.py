"""The median and p90 that the analysis estimates, for the views `strategy_summary` and `leaderboard`."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COLUMNS = ("p50_s", "p90_s")


def upgrade() -> None:
    """Add the columns; an analysis from before has neither and is computed again by the next fill or import."""
    for name in _COLUMNS:
        op.add_column("analysis_strategy", sa.Column(name, sa.Float(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for name in _COLUMNS:
        op.drop_column("analysis_strategy", name)
