"""SQL that people type: it reads within limits, or it is refused.

On a PostgreSQL server it runs as a role that may read the evidence and nothing else: a read-only transaction does not
keep a superuser from the server's files and programs (`pg_read_file`, `lo_export`, `COPY … TO PROGRAM`). The role is
made for one statement, within its transaction, which is rolled back: nothing of it stays. PostgreSQL's own
`pg_read_all_data` reads other schemas and password hashes as well.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from datetime import time as time_of_day
from math import isfinite
from threading import Timer
from typing import Any

from sqlalchemy import inspect

from catalog.errors import QueryError
from catalog.evidence.database import Database
from catalog.units import counted, duration, size

_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# So often may Ctrl-C be noticed within one statement, and the time be over; in SQLite's instructions.
_INSTRUCTIONS = 100_000
_BATCH = 1000
_REFUSALS = (
    "not authorized",
    "authorization denied",
    "read-only",
    "readonly",
    "prohibited",
    "VACUUM",
    "data-modifying",
    "permission denied",
)
_ALLOWED = "one statement that reads, such as: SELECT * FROM leaderboard (docs/sql.md has more)"
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
# What a cursor of PostgreSQL takes for a misspelled SELECT.
_WRITES = re.compile(
    "alter|analyze|begin|call|checkpoint|cluster|comment|commit|copy|create|deallocate|delete|discard|do|drop|execute|"
    "grant|insert|listen|load|lock|merge|notify|prepare|refresh|reindex|reset|revoke|rollback|savepoint|set|truncate|"
    "unlisten|update|vacuum"
)
# SQLite takes no larger limit.
_LONGEST = 10**9


@dataclass(frozen=True)
class QueryLimits:
    """How much one statement may give, and how long it may take."""

    rows: int = 1_000_000
    size_bytes: int = 256 * 2**20
    seconds: float = 60.0


@dataclass(frozen=True)
class QueryResult:
    """Rows as the database gives them; `columns` are their names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_query(database: Database, statement: str, limits: QueryLimits | None = None) -> QueryResult:
    """Run one statement that only reads.

    Parameters
    ----------
    database : Database
        Opened read-only.
    statement : str
        SQL of the database's own dialect.
    limits : QueryLimits, optional
        A result beyond them is refused as a whole: a part of it would be taken for all.

    Returns
    -------
    QueryResult

    Raises
    ------
    QueryError
        When it does not parse, names what does not exist, is several statements, does more than read, or exceeds a
        limit.

    Notes
    -----
    SQLite is asked on a connection that cannot write, with an authorizer that allows no other file, pragma or
    extension. On a server the statement is a cursor in a read-only transaction, which takes nothing but a SELECT; a
    superuser asks in a role that may read the evidence alone (`catalog.evidence.user_sql`).
    """
    if not database.readonly:
        raise ValueError("open the database read-only to run statements that people type")
    chosen = limits or QueryLimits()
    with database.translated(), database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        is_file = connection.dialect.name == "sqlite"
        deadline = time.monotonic() + chosen.seconds
        try:
            limited = _sqlite(driver, chosen, deadline) if is_file else _server(driver, chosen)
            with limited, _sqlite_rows(driver, statement) if is_file else _server_rows(driver, statement) as cursor:
                if cursor.description is None:
                    raise QueryError(f"this statement gives no rows; allowed: {_ALLOWED}")
                columns = tuple(column[0] for column in cursor.description)
                return QueryResult(columns, tuple(_fetched(cursor, chosen, deadline)))
        except (connection.dialect.loaded_dbapi.Error, sqlite3.Warning) as error:
            if time.monotonic() > deadline:
                raise QueryError(_too_slow(chosen)) from error
            raise QueryError(_explained(database, error, statement, chosen)) from error
        finally:
            # Ends the snapshot, which would keep SQLite's write-ahead log from being shortened.
            driver.rollback()


def printable(value: Any) -> Any:
    r"""Return a cell as JSON, CSV and tables write it.

    Bytes are written as PostgreSQL writes them, numbers that JSON does not have as its `to_json` does.

    Examples
    --------
    >>> printable(b"\x0aG"), printable(float("inf")), printable([1.5, float("nan")])
    ('\\x0a47', 'Infinity', [1.5, 'NaN'])
    """
    match value:
        case float() if not isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return f"\\x{bytes(value).hex()}"
        case list() | tuple():
            return [printable(member) for member in value]
        case dict():
            return {str(name): printable(member) for name, member in value.items()}
        case date() | time_of_day():  # moments are dates
            return value.isoformat()
        case _:
            return str(value)


@contextmanager
def _sqlite(driver: sqlite3.Connection, limits: QueryLimits, deadline: float) -> Iterator[None]:
    """Let SQLite stop at the deadline, and before it builds a value of any size in memory."""
    length = driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(limits.size_bytes, _LONGEST))
    text_factory = driver.text_factory
    # Bytes that are no text are shown and do not end the query.
    driver.text_factory = lambda value: value.decode(errors="backslashreplace")
    driver.set_progress_handler(lambda: int(time.monotonic() > deadline), _INSTRUCTIONS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
        driver.text_factory = text_factory
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)


@contextmanager
def _sqlite_rows(driver: sqlite3.Connection, statement: str) -> Iterator[Any]:
    """Run SQL with an authorizer: even opened read-only, SQLite attaches other files and takes pragmas."""
    driver.set_authorizer(lambda action, *rest: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)
    try:
        cursor = driver.execute(statement)
    finally:
        # SQLite asks it while it compiles a statement; fetching the rows needs it no more.
        driver.set_authorizer(None)
    with closing(cursor):
        yield cursor


@contextmanager
def _server(driver: Any, limits: QueryLimits) -> Iterator[None]:
    with as_reader(driver), cancelled_after(driver, limits.seconds):
        yield


@contextmanager
def _server_rows(driver: Any, statement: str) -> Iterator[Any]:
    """Declare a cursor: it takes one SELECT, and gives its rows in batches. A plan has no cursor and few rows."""
    bare = _COMMENTS.sub(" ", statement).strip("; \t\r\n")
    if not bare:
        raise QueryError(f"this statement gives no rows; allowed: {_ALLOWED}")
    is_plan = bare.split(maxsplit=1)[0].lower() == "explain"
    with closing(driver.cursor() if is_plan else driver.cursor(name="user_sql")) as cursor:
        # Without parameters, psycopg leaves a `%` alone. Prepared, it is one statement; a cursor always is.
        cursor.execute(statement.encode(), **({"prepare": True} if is_plan else {}))
        yield cursor


def _fetched(cursor: Any, limits: QueryLimits, deadline: float) -> Iterator[tuple[Any, ...]]:
    count = size_bytes = 0
    while rows := cursor.fetchmany(min(_BATCH, limits.rows + 1)):
        # Between two batches a server has nothing to cancel.
        if time.monotonic() > deadline:
            raise QueryError(_too_slow(limits))
        for row in rows:
            count += 1
            size_bytes += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if count > limits.rows:
                raise QueryError(
                    f"the result has more than {counted(limits.rows, 'row')}; add a LIMIT or a WHERE, or allow more "
                    "with --max-rows"
                )
            if size_bytes > limits.size_bytes:
                raise QueryError(_too_large(limits))
            yield tuple(row)


def _too_large(limits: QueryLimits) -> str:
    return (
        f"the result is larger than {size(limits.size_bytes)}; select fewer columns or rows, or allow more with "
        "--max-size"
    )


def _too_slow(limits: QueryLimits) -> str:
    return (
        f"the statement took longer than {duration(limits.seconds)}; add a WHERE, or allow more with --max-time (views "
        "over samples read all of them)"
    )


def _explained(database: Database, error: Exception, statement: str, limits: QueryLimits) -> str:
    # A server's own text repeats the statement as the cursor has it.
    said = str(getattr(getattr(error, "diag", None), "message_primary", None) or error).strip()
    if "too big" in said:
        return _too_large(limits)
    if any(part in said for part in _REFUSALS) or _is_write(said, statement):
        because = f"{said}; " if "permission" in said else ""
        return f"{because}only reading is allowed: {_ALLOWED}"
    if "lock timeout" in said:
        return (
            "other statements are running as a superuser; wait for them, or connect as a role that is not a superuser"
        )
    if "one statement" in said or "multiple commands" in said:
        return f"these are several statements; allowed: {_ALLOWED}"
    if "no such table" in said or "does not exist" in said:
        inspector = inspect(database.engine)
        return f"{said}; there are {', '.join(sorted((*inspector.get_view_names(), *inspector.get_table_names())))}"
    return f"{said}; docs/sql.md describes views and tables"


def _is_write(said: str, statement: str) -> bool:
    """Return whether a cursor refused a statement for its verb, or for that after its WITH."""
    if not said.startswith("syntax error at or near"):
        return False
    near = said.partition('"')[2].rpartition('"')[0].lower()
    verb, *_ = _COMMENTS.sub(" ", statement).split(maxsplit=1)
    return _WRITES.fullmatch(near) is not None and verb.lower() in (near, "with")


# Their members reach files and programs without being superusers.
_POWERS = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
_READER = (
    "connect as a role that may only read: CREATE ROLE reader LOGIN PASSWORD '…'; GRANT pg_read_all_data TO reader (or "
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader)"
)
_LOCK_TIMEOUT = "10s"


@contextmanager
def as_reader(driver: Any) -> Iterator[None]:
    """Begin a transaction that reads alone; the caller rolls it back.

    Raises
    ------
    QueryError
        For a role that may use files or programs of the server and cannot be left.
    """
    # The transaction that a check of the connection may have begun.
    driver.rollback()
    driver.read_only = True
    is_superuser, in_recovery, powers = driver.execute(
        "SELECT s.rolsuper OR c.rolsuper, pg_is_in_recovery(), ARRAY(SELECT rolname::text FROM pg_roles "
        "WHERE rolname = ANY(%s) AND pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1) "
        "FROM pg_roles s, pg_roles c WHERE s.rolname = session_user AND c.rolname = current_user",
        [list(_POWERS)],
    ).fetchone()
    if is_superuser and not in_recovery:
        driver.rollback()
        driver.read_only = False
        _become_reader(driver)
    elif is_superuser or powers:
        kind = "is a superuser on a standby server" if is_superuser else f"has the role {', '.join(powers)}"
        raise QueryError(f"the user of this connection {kind}, which reaches the server's files; {_READER}")
    yield


def _become_reader(driver: Any) -> None:
    # Never a name that exists, nor one that a statement could have prepared for.
    name = f"tierwise_sql_{os.urandom(8).hex()}"
    for statement in (
        # Two at once wait for each other: each changes the rights to the same tables.
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
        f"CREATE ROLE {name} NOLOGIN",
        # It would make a statement a superuser's again in its middle.
        "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC",
    ):
        driver.execute(statement)
    (schema,) = driver.execute("SELECT quote_ident(current_schema())").fetchone()
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}",
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL ROLE {name}",
    ):
        driver.execute(statement)


@contextmanager
def cancelled_after(driver: Any, seconds: float) -> Iterator[None]:
    """Cancel what runs on the connection once the time is over.

    A setting of the server's (`statement_timeout`) counts for one batch of rows, and a statement can change it.
    """
    timer = Timer(seconds, driver.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
