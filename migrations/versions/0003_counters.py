"""Counters that tell whether a measurement is valid: of tiers, links, clocks and the host, and what was found in them.

Older evidence has none of them: its rows keep NULL.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS: dict[str, dict[str, type[sa.types.TypeEngine[object]]]] = {
    "measurement": {
        "warmup_latency_s": sa.JSON,
        "window_s": sa.Float,
        "clock_jump_s": sa.Float,
        "host_load": sa.JSON,
        "findings": sa.JSON,
    },
    "tier_run": {
        "first_inference_s": sa.Float,
        "waited_s": sa.Float,
        "major_faults": sa.Integer,
        "memory_limit_events": sa.Integer,
        "oom_kills": sa.Integer,
        "memory_peak_bytes": sa.BigInteger,
        "restarted": sa.Boolean,
        "window_cpu_seconds": sa.Float,
        "window_periods": sa.Integer,
        "window_throttled_periods": sa.Integer,
        "window_throttled_s": sa.Float,
        "window_waited_s": sa.Float,
        "window_major_faults": sa.Integer,
        "window_memory_limit_events": sa.Integer,
    },
    "link_probe": {
        "moment": sa.String,
        "tolerance": sa.Float,
        "small_bytes": sa.BigInteger,
        "large_bytes": sa.BigInteger,
        "small_s": sa.Float,
        "large_s": sa.Float,
        "discarded_bit_per_s": sa.JSON,
    },
}


def upgrade() -> None:
    """Add the columns."""
    for table, columns in _COLUMNS.items():
        for name, kind in columns.items():
            # Nullable, so that no row of the old evidence is rewritten.
            op.add_column(table, sa.Column(name, kind(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    for table, columns in _COLUMNS.items():
        for name in columns:
            op.drop_column(table, name)
