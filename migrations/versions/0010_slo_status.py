"""What the evidence answers to each declared SLO, stored with the analyses, for the view `slo_status`."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "analysis_slo",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        *_columns(sa.String, "subject", "slo", "status", "created_at"),
        # NULL where nothing is known of how far the estimates may be off.
        *_columns(sa.Float, "probability", nullable=True),
        # NULL where no strategy's estimates are within the budgets.
        *_columns(sa.String, "operator", "placement", "proven_operator", "proven_placement", nullable=True),
        *_columns(sa.Float, "percentile", "confidence_level"),
        *_columns(sa.Float, "latency_s", nullable=True),
        # How each strategy stands, for `runner leaderboard`.
        *_columns(sa.JSON, "statuses"),
        sa.PrimaryKeyConstraint("id", name="pk_analysis_slo"),
        sa.ForeignKeyConstraint(
            ["environment_id"], ["environment.id"], name="fk_analysis_slo_environment_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_analysis_slo_environment_id", "analysis_slo", ["environment_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("analysis_slo")


def _columns(kind: type[sa.types.TypeEngine[object]], *names: str, nullable: bool = False) -> list[sa.Column[object]]:
    return [sa.Column(name, kind(), nullable=nullable) for name in names]
