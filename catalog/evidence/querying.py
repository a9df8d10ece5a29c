"""SQL that people type: it reads, or it is refused."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from catalog.errors import QueryError
from catalog.evidence.database import Database

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# So often may Ctrl-C be noticed within one statement; in SQLite's instructions.
_INSTRUCTIONS = 100_000
_ALLOWED = "one statement that reads, such as: SELECT * FROM leaderboard (docs/sql.md has more)"


@dataclass(frozen=True)
class QueryResult:
    """Rows as the database gives them; `columns` are their names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_query(database: Database, statement: str) -> QueryResult:
    """Run one statement that only reads.

    Parameters
    ----------
    database : Database
        Opened read-only.
    statement : str
        SQL of the database's own dialect.

    Returns
    -------
    QueryResult

    Raises
    ------
    QueryError
        When it does not parse, names what does not exist, is several statements, or does more than read.
    """
    if not database.readonly:
        raise ValueError("open the database read-only to run statements that people type")
    with database.session() as session:
        connection = session.connection()
        try:
            with _only_reading(connection):
                result = connection.exec_driver_sql(statement)
                if not result.returns_rows:
                    raise QueryError(f"this statement gives no rows; allowed: {_ALLOWED}")
                return QueryResult(tuple(result.keys()), tuple(tuple(row) for row in result))
        except (DBAPIError, sqlite3.Warning) as error:
            raise QueryError(_explained(connection, str(getattr(error, "orig", error)).strip())) from error


@contextmanager
def _only_reading(connection: Connection) -> Iterator[None]:
    """SQLite opened read-only still attaches other files and takes pragmas: an authorizer refuses them."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.set_authorizer(lambda action, *rest: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)
    driver.set_progress_handler(lambda: 0, _INSTRUCTIONS)
    try:
        yield
    finally:
        driver.set_authorizer(None)
        driver.set_progress_handler(None, 0)


def _explained(connection: Connection, said: str) -> str:
    if any(part in said for part in ("not authorized", "read-only", "readonly", "prohibited", "VACUUM")):
        return f"only reading is allowed: {_ALLOWED}"
    if "one statement" in said or "multiple commands" in said:
        return f"these are several statements; allowed: {_ALLOWED}"
    if "no such table" in said or "does not exist" in said:
        inspector = inspect(connection)
        return f"{said}; there are {', '.join(sorted((*inspector.get_view_names(), *inspector.get_table_names())))}"
    return f"{said}; docs/sql.md describes views and tables"
