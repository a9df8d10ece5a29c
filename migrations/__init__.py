"""Alembic migrations of the evidence; `catalog.evidence.open_database` runs them."""
