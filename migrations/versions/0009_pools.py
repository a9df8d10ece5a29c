"""The pools that rounds draw their inputs from, with the size of every input, and the stratum of each sample.

Older evidence has no pool: its rows keep NULL, and mean that all rounds sent the same inputs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the two tables and add the columns that refer to them."""
    op.create_table(
        "input_pool",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("key", "unit", "created_at")),
        sa.PrimaryKeyConstraint("id", name="pk_input_pool"),
        sa.UniqueConstraint("key", name="uq_input_pool_key"),
    )
    op.create_table(
        "pool_input",
        sa.Column("pool_id", sa.Integer(), nullable=False),
        sa.Column("input_id", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        # The media type, where an input is an encoded file.
        sa.Column("media", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("pool_id", "input_id", name="pk_pool_input"),
        sa.ForeignKeyConstraint(["pool_id"], ["input_pool.id"], name="fk_pool_input_pool_id", ondelete="CASCADE"),
    )
    op.add_column("measurement", sa.Column("pool_key", sa.String(), nullable=True))
    op.create_index("ix_measurement_pool_key", "measurement", ["pool_key"])
    op.add_column("sample", sa.Column("stratum", sa.String(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("sample", "stratum")
    op.drop_index("ix_measurement_pool_key", "measurement")
    op.drop_column("measurement", "pool_key")
    op.drop_table("pool_input")
    op.drop_table("input_pool")
