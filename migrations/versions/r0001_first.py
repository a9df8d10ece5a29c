"""The first schema: tables, the indexes that keep evidence unique, and the views."""

import sqlalchemy as sa
from alembic import op

from catalog.evidence.views import VIEWS

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "artifact",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("operator", sa.String(), nullable=False),
        sa.Column("passes", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "environment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("launcher", sa.String(), nullable=False),
        sa.Column("scale", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("cpu_model", sa.String(), nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("memory_bytes", sa.Integer(), nullable=False),
        sa.Column("kernel", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("onnxruntime", sa.String(), nullable=False),
        sa.Column("tierwise", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "slo",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("latency", sa.JSON(), nullable=False),
        sa.Column("accuracy", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "accuracy",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("operator", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("accuracy_pct", sa.Float(), nullable=False),
        sa.Column("top1_pct", sa.Float(), nullable=True),
        sa.Column("top5_pct", sa.Float(), nullable=True),
        sa.Column("miou_pct", sa.Float(), nullable=True),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(), nullable=False),
        sa.Column("finished_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_accuracy_key"), "accuracy", ["key"], unique=False)
    op.create_table(
        "measurement",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("latency_key", sa.String(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("operator", sa.String(), nullable=False),
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("log_tail", sa.String(), nullable=True),
        sa.Column("inputs_select", sa.String(), nullable=False),
        sa.Column("protocol", sa.JSON(), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.String(), nullable=False),
        sa.Column("finished_at", sa.String(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_measurement_latency_key"), "measurement", ["latency_key"], unique=False)
    op.create_table(
        "strategy",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("operator", sa.String(), nullable=False),
        sa.Column("placement", sa.String(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("passes", sa.JSON(), nullable=False),
        sa.Column("tiers", sa.JSON(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("artifact_key", sa.String(), nullable=False),
        sa.Column("latency_key", sa.String(), nullable=False),
        sa.Column("accuracy_key", sa.String(), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("updated_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subject", "operator", "placement", "environment_id"),
    )
    op.create_table(
        "accuracy_class_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("accuracy_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("intersection_px", sa.Integer(), nullable=False),
        sa.Column("union_px", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["accuracy_id"], ["accuracy.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_accuracy_class_item_accuracy_id"), "accuracy_class_item", ["accuracy_id"], unique=False)
    op.create_table(
        "accuracy_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("accuracy_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("top1", sa.Boolean(), nullable=False),
        sa.Column("top5", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["accuracy_id"], ["accuracy.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_accuracy_item_accuracy_id"), "accuracy_item", ["accuracy_id"], unique=False)
    op.create_table(
        "link_probe",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("measurement_id", sa.Integer(), nullable=False),
        sa.Column("link", sa.String(), nullable=False),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("declared_bit_per_s", sa.Float(), nullable=False),
        sa.Column("measured_bit_per_s", sa.Float(), nullable=False),
        sa.Column("rtt_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["measurement_id"], ["measurement.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_link_probe_measurement_id"), "link_probe", ["measurement_id"], unique=False)
    op.create_table(
        "sample",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("measurement_id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("input_id", sa.String(), nullable=False),
        sa.Column("repetition", sa.Integer(), nullable=False),
        sa.Column("latency_s", sa.Float(), nullable=False),
        sa.Column("transmission_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["measurement_id"], ["measurement.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("measurement_id", "seq"),
    )
    op.create_index(op.f("ix_sample_measurement_id"), "sample", ["measurement_id"], unique=False)
    op.create_table(
        "tier_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("measurement_id", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("cpus", sa.Float(), nullable=False),
        sa.Column("memory_bytes", sa.Integer(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(), nullable=True),
        sa.Column("cold_start_s", sa.Float(), nullable=True),
        sa.Column("peak_rss_bytes", sa.Integer(), nullable=True),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        sa.Column("periods", sa.Integer(), nullable=True),
        sa.Column("throttled_periods", sa.Integer(), nullable=True),
        sa.Column("throttled_s", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["measurement_id"], ["measurement.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_tier_run_measurement_id"), "tier_run", ["measurement_id"], unique=False)
    op.create_table(
        "sample_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("link", sa.String(), nullable=False),
        sa.Column("sent_bytes", sa.Integer(), nullable=False),
        sa.Column("received_bytes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_sample_link_sample_id"), "sample_link", ["sample_id"], unique=False)
    op.create_table(
        "sample_part",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("preprocess_s", sa.Float(), nullable=False),
        sa.Column("compute_s", sa.Float(), nullable=False),
        sa.Column("postprocess_s", sa.Float(), nullable=False),
        sa.Column("serialise_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["sample.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_sample_part_sample_id"), "sample_part", ["sample_id"], unique=False)
    op.execute(
        "CREATE UNIQUE INDEX one_valid_measurement ON measurement (latency_key, round) "
        "WHERE status = 'complete' AND verdict <> 'INVALID'"
    )
    op.execute("CREATE UNIQUE INDEX one_accuracy ON accuracy (key)")
    for statement in VIEWS.values():
        op.execute(statement)
