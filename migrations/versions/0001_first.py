"""The first schema: environments, artifacts, strategies, measurements, accuracies, targets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out: what a released migration does must not change with `tables.py`.
MEASUREMENT_COUNTS = "status = 'complete' AND verdict <> 'INVALID'"
ACCURACY_COUNTS = "status = 'complete'"


def upgrade() -> None:
    """Create everything."""
    _create_environment()
    _create_artifact()
    _create_strategy()
    _create_measurement()
    _create_run()
    _create_sample()
    _create_accuracy()
    _create_slo()


def downgrade() -> None:
    """Drop everything, children first."""
    for table in (
        "slo",
        "accuracy_class_item",
        "accuracy_item",
        "accuracy",
        "sample_link",
        "sample_part",
        "sample",
        "link_probe",
        "tier_run",
        "measurement",
        "strategy",
        "artifact",
        "environment",
    ):
        op.drop_table(table)


def _required(name: str, kind: type[sa.types.TypeEngine[object]]) -> sa.Column[object]:
    return sa.Column(name, kind(), nullable=False)


def _optional(name: str, kind: type[sa.types.TypeEngine[object]]) -> sa.Column[object]:
    return sa.Column(name, kind(), nullable=True)


def _text(*names: str) -> list[sa.Column[object]]:
    return [_required(name, sa.String) for name in names]


def _foreign(table: str, parent: str, *, cascade: bool = True) -> sa.ForeignKeyConstraint:
    column = f"{parent}_id"
    name = f"fk_{table}_{column}"
    # Rows below a measurement go with it; an environment cannot go while evidence refers to it.
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=name, ondelete="CASCADE" if cascade else None)


def _create_environment() -> None:
    op.create_table(
        "environment",
        _required("id", sa.Integer),
        *_text("key", "launcher", "scale", "host", "cpu_model"),
        _required("cpu_count", sa.Integer),
        _required("memory_bytes", sa.BigInteger),
        *_text("kernel", "engine", "onnxruntime", "tierwise"),
        _required("details", sa.JSON),
        # Moments are text in ISO 8601 and UTC, since SQLite has no type for them.
        *_text("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_environment"),
        sa.UniqueConstraint("key", name="uq_environment_key"),
    )


def _create_artifact() -> None:
    op.create_table(
        "artifact",
        _required("id", sa.Integer),
        *_text("key", "subject", "operator"),
        _required("passes", sa.JSON),
        *_text("status"),
        _optional("reason", sa.String),
        _required("files", sa.JSON),
        _optional("size_bytes", sa.BigInteger),
        _required("details", sa.JSON),
        *_text("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_artifact"),
        sa.UniqueConstraint("key", name="uq_artifact_key"),
    )


def _create_strategy() -> None:
    op.create_table(
        "strategy",
        _required("id", sa.Integer),
        *_text("subject", "operator", "placement"),
        _required("tiers", sa.JSON),
        _required("environment_id", sa.Integer),
        _required("passes", sa.JSON),
        *_text("artifact_key", "latency_key", "accuracy_key", "task"),
        _required("rounds", sa.Integer),
        _required("declared", sa.Boolean),
        *_text("status"),
        _optional("reason", sa.String),
        *_text("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_strategy"),
        _foreign("strategy", "environment", cascade=False),
        sa.UniqueConstraint(
            "subject",
            "operator",
            "placement",
            "environment_id",
            name="uq_strategy_subject_operator_placement_environment_id",
        ),
    )
    for column in ("environment_id", "artifact_key", "latency_key", "accuracy_key"):
        op.create_index(f"ix_strategy_{column}", "strategy", [column])


def _create_measurement() -> None:
    op.create_table(
        "measurement",
        _required("id", sa.Integer),
        *_text("latency_key"),
        _required("environment_id", sa.Integer),
        *_text("subject", "operator", "placement"),
        _required("round", sa.Integer),
        _required("position", sa.Integer),
        _required("seed", sa.BigInteger),
        *_text("status", "verdict"),
        _optional("reason", sa.String),
        _optional("log_tail", sa.String),
        *_text("inputs_select"),
        _required("protocol", sa.JSON),
        _required("conditions", sa.JSON),
        *_text("started_at", "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
        _foreign("measurement", "environment", cascade=False),
    )
    for column in ("latency_key", "environment_id"):
        op.create_index(f"ix_measurement_{column}", "measurement", [column])
    op.create_index("ix_measurement_subject_operator_placement", "measurement", ["subject", "operator", "placement"])
    op.create_index(
        # Partial: any number of failed or INVALID attempts at a round, and one that counts.
        "uq_measurement_latency_key_round",
        "measurement",
        ["latency_key", "round"],
        unique=True,
        sqlite_where=sa.text(MEASUREMENT_COUNTS),
        postgresql_where=sa.text(MEASUREMENT_COUNTS),
    )


def _create_run() -> None:
    op.create_table(
        "tier_run",
        _required("id", sa.Integer),
        _required("measurement_id", sa.Integer),
        *_text("tier"),
        _required("cpus", sa.Float),
        _required("memory_bytes", sa.BigInteger),
        _required("threads", sa.Integer),
        *_text("provider"),
        _optional("cold_start_s", sa.Float),
        _optional("peak_rss_bytes", sa.BigInteger),
        _optional("cpu_seconds", sa.Float),
        _optional("throttled_periods", sa.Integer),
        _optional("periods", sa.Integer),
        _optional("throttled_s", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_tier_run"),
        _foreign("tier_run", "measurement"),
    )
    op.create_index("ix_tier_run_measurement_id", "tier_run", ["measurement_id"])
    op.create_table(
        "link_probe",
        _required("id", sa.Integer),
        _required("measurement_id", sa.Integer),
        *_text("link", "direction"),
        _required("declared_bit_per_s", sa.Float),
        _required("measured_bit_per_s", sa.Float),
        _required("rtt_s", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_link_probe"),
        _foreign("link_probe", "measurement"),
    )
    op.create_index("ix_link_probe_measurement_id", "link_probe", ["measurement_id"])


def _create_sample() -> None:
    op.create_table(
        "sample",
        _required("id", sa.Integer),
        _required("measurement_id", sa.Integer),
        _required("seq", sa.Integer),
        *_text("input_id"),
        _required("repetition", sa.Integer),
        _required("latency_s", sa.Float),
        _required("transmission_s", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_sample"),
        _foreign("sample", "measurement"),
        # Its index serves the reference to the measurement as well.
        sa.UniqueConstraint("measurement_id", "seq", name="uq_sample_measurement_id_seq"),
    )
    op.create_table(
        "sample_part",
        _required("sample_id", sa.Integer),
        *_text("tier"),
        *(_required(f"{name}_s", sa.Float) for name in ("preprocess", "compute", "postprocess", "serialise")),
        sa.PrimaryKeyConstraint("sample_id", "tier", name="pk_sample_part"),
        _foreign("sample_part", "sample"),
    )
    op.create_table(
        "sample_link",
        _required("sample_id", sa.Integer),
        *_text("link"),
        _required("sent_bytes", sa.BigInteger),
        _required("received_bytes", sa.BigInteger),
        sa.PrimaryKeyConstraint("sample_id", "link", name="pk_sample_link"),
        _foreign("sample_link", "sample"),
    )


def _create_accuracy() -> None:
    op.create_table(
        "accuracy",
        _required("id", sa.Integer),
        *_text("key"),
        _required("environment_id", sa.Integer),
        *_text("subject", "operator", "provider", "metric_primary"),
        *(_optional(f"{name}_pct", sa.Float) for name in ("top1", "top5", "miou")),
        _required("items", sa.Integer),
        *_text("status"),
        _optional("reason", sa.String),
        *_text("started_at", "finished_at"),
        sa.PrimaryKeyConstraint("id", name="pk_accuracy"),
        _foreign("accuracy", "environment", cascade=False),
    )
    op.create_index("ix_accuracy_key", "accuracy", ["key"])
    op.create_index("ix_accuracy_environment_id", "accuracy", ["environment_id"])
    op.create_index(
        # Partial: any number of failed attempts, and one that succeeded.
        "uq_accuracy_key",
        "accuracy",
        ["key"],
        unique=True,
        sqlite_where=sa.text(ACCURACY_COUNTS),
        postgresql_where=sa.text(ACCURACY_COUNTS),
    )
    op.create_table(
        "accuracy_item",
        _required("accuracy_id", sa.Integer),
        *_text("item_id"),
        _required("top1", sa.Boolean),
        _required("top5", sa.Boolean),
        sa.PrimaryKeyConstraint("accuracy_id", "item_id", name="pk_accuracy_item"),
        _foreign("accuracy_item", "accuracy"),
    )
    op.create_table(
        "accuracy_class_item",
        _required("accuracy_id", sa.Integer),
        *_text("item_id"),
        _required("class_id", sa.Integer),
        _required("intersection_px", sa.BigInteger),
        _required("union_px", sa.BigInteger),
        sa.PrimaryKeyConstraint("accuracy_id", "item_id", "class_id", name="pk_accuracy_class_item"),
        _foreign("accuracy_class_item", "accuracy"),
    )


def _create_slo() -> None:
    op.create_table(
        "slo",
        *_text("name"),
        _required("latency", sa.JSON),
        _required("accuracy", sa.JSON),
        sa.PrimaryKeyConstraint("name", name="pk_slo"),
    )
