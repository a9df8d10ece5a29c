"""What is known: tables, the database, writing and reading evidence."""

from catalog.evidence.database import Database, open_database

__all__ = ["Database", "open_database"]
