"""A server announces changes of the evidence. The triggers have one definition, in `migrations/notifications.py`."""

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change no table."""


def downgrade() -> None:
    """Change no table."""
