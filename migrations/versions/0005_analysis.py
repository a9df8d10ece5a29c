"""Results of analyses: strategies with rank and interval, families with their tests, pairs, accuracy drops."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# In the order in which they can be dropped: those that refer to `analysis` before it.
_TABLES = ("analysis_drop", "analysis_pair", "analysis_family", "analysis_strategy", "analysis")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "analysis",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        *_columns(sa.String, "subject", "evidence_key", "adjustment", "created_at"),
        *_columns(sa.Float, "percentile", "equivalent_within", "confidence_level"),
        *_columns(sa.Integer, "n_resamples", "seed"),
        sa.PrimaryKeyConstraint("id", name="pk_analysis"),
        sa.UniqueConstraint("evidence_key", name="uq_analysis_evidence_key"),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name="fk_analysis_environment_id"),
    )
    op.create_index("ix_analysis_environment_id", "analysis", ["environment_id"])
    _part(
        "analysis_strategy",
        *_columns(sa.String, "operator", "placement", "letters"),
        *_columns(sa.Integer, "rank", "worst_rank", "samples", "rounds", "inputs", "outliers"),
        *_columns(sa.Float, "estimate_s", "ratio_to_best", "mean_s", "median_s", "iqr_s"),
        # NULL where the evidence supports no interval, or where a test does not apply.
        *_columns(sa.Float, "low_s", "high_s", "shapiro_statistic", "shapiro_pvalue", nullable=True),
        *_columns(sa.Float, "rounds_share", "inputs_share", "rest_share", "effective_samples", nullable=True),
        *_columns(sa.String, "refusal", nullable=True),
    )
    _part(
        "analysis_family",
        *_columns(sa.String, "family", "kind"),
        *_columns(sa.JSON, "questions", "members", "left_out"),
        *_columns(sa.Float, "statistic", nullable=True),
        *_columns(sa.Float, "pvalue"),
        *_columns(sa.Integer, "degrees_of_freedom"),
        *_columns(sa.Boolean, "rejected"),
    )
    _part(
        "analysis_pair",
        *_columns(sa.String, "family", "left_strategy", "right_strategy", "magnitude", "verdict"),
        *_columns(sa.Float, "conover_pvalue", "conover_unadjusted_pvalue", "delta"),
        *_columns(sa.Boolean, "significant"),
        *_columns(sa.Float, "ratio", "low", "high", nullable=True),
        *_columns(sa.Integer, "rounds_needed", "inputs_needed", nullable=True),
        *_columns(sa.String, "refusal", "disagreement", nullable=True),
    )
    _part(
        "analysis_drop",
        *_columns(sa.String, "operator", "provider", "metric"),
        *_columns(sa.Float, "drop_pp", "low_pp", "high_pp"),
        *_columns(sa.Integer, "items"),
        *_columns(sa.Float, "mcnemar_pvalue", nullable=True),
        *_columns(sa.Integer, "lost", "gained", nullable=True),
        *_columns(sa.String, "note", nullable=True),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in _TABLES:
        op.drop_table(table)


def _columns(kind: type[sa.types.TypeEngine[object]], *names: str, nullable: bool = False) -> list[sa.Column[object]]:
    return [sa.Column(name, kind(), nullable=nullable) for name in names]


def _part(table: str, *columns: sa.Column[object]) -> None:
    """Create a table whose rows go with their analysis."""
    op.create_table(
        table,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"], name=f"fk_{table}_analysis_id", ondelete="CASCADE"),
    )
    op.create_index(f"ix_{table}_analysis_id", table, ["analysis_id"])
