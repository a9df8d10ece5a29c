"""The view `tier_costs`, and more columns of `link_check`: no table changes, but only a revision renews views."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Do nothing: the views are made after the last revision."""


def downgrade() -> None:
    """Do nothing."""
