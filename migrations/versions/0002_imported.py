"""Where evidence came from: files that were imported, and which rows they brought; nothing means measured here."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("environment", "measurement", "accuracy")


def upgrade() -> None:
    """Add the files and the references to them.

    The columns are added in SQL: SQLite's batch mode would rebuild the tables, and dropping the old ones would take
    all samples along (`ON DELETE CASCADE`).
    """
    op.create_table(
        "imported_file",
        sa.Column("id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("key", "sha256", "name", "format", "imported_at")),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_imported_file"),
        sa.UniqueConstraint("key", name="uq_imported_file_key"),
    )
    for table in _TABLES:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN imported_file_id INTEGER "
            f"CONSTRAINT fk_{table}_imported_file_id REFERENCES imported_file (id)"
        )
        op.create_index(f"ix_{table}_imported_file_id", table, ["imported_file_id"])
