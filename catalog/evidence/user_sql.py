"""SQL that people type: it reads, or it is refused."""

import sqlite3
from dataclasses import dataclass
from typing import Any

from sqlalchemy import inspect

from catalog.errors import QueryError
from catalog.evidence.database import Database

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# So often may Ctrl-C be noticed within one statement; in SQLite's instructions.
_INSTRUCTIONS = 100_000
_REFUSALS = ("not authorized", "authorization denied", "read-only", "readonly", "prohibited", "VACUUM")
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
    with database.translated(), database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        run = _run_sqlite if connection.dialect.name == "sqlite" else _run_server
        try:
            cursor = run(driver, statement)
            if cursor.description is None:
                raise QueryError(f"this statement gives no rows; allowed: {_ALLOWED}")
            rows = tuple(map(tuple, cursor.fetchall()))
        except (connection.dialect.loaded_dbapi.Error, sqlite3.Warning) as error:
            raise QueryError(_explained(database, str(error).strip())) from error
        finally:
            # Ends the snapshot, which would keep SQLite's write-ahead log from being shortened.
            driver.rollback()
        return QueryResult(tuple(column[0] for column in cursor.description), rows)


def _run_sqlite(driver: sqlite3.Connection, statement: str) -> Any:
    """Run SQL with an authorizer: even opened read-only, SQLite attaches other files and takes pragmas."""
    driver.set_authorizer(lambda action, *rest: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)
    driver.set_progress_handler(lambda: 0, _INSTRUCTIONS)
    try:
        return driver.execute(statement)
    finally:
        # SQLite asks it while it compiles a statement; fetching the rows needs it no more.
        driver.set_authorizer(None)


def _run_server(driver: Any, statement: str) -> Any:
    """Run a prepared statement: it is one statement, so none can end the read-only transaction and go on."""
    # psycopg then begins its transactions with READ ONLY, which the server enforces.
    driver.read_only = True
    # Without parameters, psycopg leaves a `%` of the statement alone.
    return driver.execute(statement.encode(), prepare=True)


def _explained(database: Database, said: str) -> str:
    if any(part in said for part in _REFUSALS):
        return f"only reading is allowed: {_ALLOWED}"
    if "one statement" in said or "multiple commands" in said:
        return f"these are several statements; allowed: {_ALLOWED}"
    if "no such table" in said or "does not exist" in said:
        inspector = inspect(database.engine)
        return f"{said}; there are {', '.join(sorted((*inspector.get_view_names(), *inspector.get_table_names())))}"
    return f"{said}; docs/sql.md describes views and tables"
