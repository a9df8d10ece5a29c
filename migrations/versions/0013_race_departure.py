"""Who left the last race of a subject, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "race_departure",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        *_columns(sa.String, "subject", "operator", "placement", "reason", "created_at"),
        # The look at which it left, and how many rounds it had by then.
        *_columns(sa.Integer, "look", "rounds"),
        # NULL where it missed every target, and where another strategy beat it.
        *_columns(sa.String, "by_operator", "by_placement", "slo", nullable=True),
        *_columns(sa.Float, "margin"),
        sa.PrimaryKeyConstraint("id", name="pk_race_departure"),
        sa.ForeignKeyConstraint(
            ["environment_id"], ["environment.id"], name="fk_race_departure_environment_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_race_departure_environment_id", "race_departure", ["environment_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("race_departure")


def _columns(kind: type[sa.types.TypeEngine[object]], *names: str, nullable: bool = False) -> list[sa.Column[object]]:
    return [sa.Column(name, kind(), nullable=nullable) for name in names]
