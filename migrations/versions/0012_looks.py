"""The look that a round was measured for, and the share of the error that a decision at it may spend.

Older evidence has neither: its rounds are those of a declared plan, which may spend the whole error at once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("measurement", sa.Column("look", sa.Integer(), nullable=True))
    op.add_column("measurement", sa.Column("error_share", sa.Float(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("measurement", "error_share")
    op.drop_column("measurement", "look")
