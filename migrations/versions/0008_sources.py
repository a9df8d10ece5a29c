"""The view `strategy_summary`, and with it `leaderboard`, names every imported file; no table changes."""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing: the views are created again once the schema is the newest."""


def downgrade() -> None:
    """Change nothing."""
