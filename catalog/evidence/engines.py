"""Engines of SQLAlchemy over the evidence, for what writes and for servers."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from catalog.errors import DatabaseError
from catalog.evidence.database import BUSY_TIMEOUT_S, file_connection, hidden
from catalog.evidence.queries import json_or_text

_RETRY_EVERY_S = 0.02
# A host that swallows packets would hold a question for minutes; in whole seconds, as libpq takes it.
_CONNECT_TIMEOUT_S = 10


def sqlite_engine(path: Path, mode: str, shadows: Sequence[str] = ()) -> Engine:
    """Create an engine over a file, whose connections begin with the statements of `shadows`."""
    # The URL names no file, and SQLAlchemy's default for that is the pool of databases in memory.
    engine = create_engine(
        "sqlite://", creator=lambda: file_connection(path, mode), poolclass=QueuePool, json_deserializer=json_or_text
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, record: object) -> None:
        # Off by default, and set for each connection.
        connection.execute("PRAGMA foreign_keys = ON")
        if mode != "ro":
            _use_write_ahead_log(connection)
            # With WAL, a power failure may then lose the last commit and cannot damage the file.
            connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: one that has read first may be refused it without waiting.
        immediate = connection.get_execution_options().get("tierwise_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    _shadow(engine, shadows)
    return engine


def _shadow(engine: Engine, statements: Sequence[str]) -> None:
    """Have each connection of an engine begin with some statements."""
    if not statements:
        return

    @event.listens_for(engine, "connect")
    def shadow(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()


@contextmanager
def odd_text_allowed(connection: Connection) -> Iterator[None]:
    """Read bytes that are no UTF-8 as lone surrogates within the block, so that one such cell ends no query."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):  # a server refuses such text itself
        yield
        return
    former = driver.text_factory
    driver.text_factory = lambda value: value.decode(errors="surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = former


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for its busy timeout here, so that two who create a file at once must."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_EVERY_S)


def server_engine(url: URL, location: str, *, readonly: bool, shadows: Sequence[str] = ()) -> Engine:
    """Create an engine over a server's database, whose connections begin with the statements of `shadows`."""
    options: dict[str, Any] = {"execution_options": {"postgresql_readonly": True}} if readonly else {}
    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        options["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT_S}
    try:
        # A server may have been restarted since the connection was last used.
        engine = create_engine(url, pool_pre_ping=True, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        message = f"no driver for it ({error}); for PostgreSQL: pip install 'tierwise[postgres]'"
        raise DatabaseError(location, message) from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise DatabaseError(location, f"an option of its URL is wrong: {hidden(str(error), url)}") from None
    if url.drivername == "postgresql+psycopg":
        event.listen(engine, "connect", _read_decimals_as_floats)
    _shadow(engine, shadows)
    return engine


def _read_decimals_as_floats(connection: Any, record: object) -> None:
    """Convert decimals: PostgreSQL returns sums and averages of integers as decimals, which do not mix with floats."""
    from psycopg.types.numeric import FloatLoader

    connection.adapters.register_loader("numeric", FloatLoader)
