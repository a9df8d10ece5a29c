"""Opening the evidence: created, upgraded, or refused with what to do."""

import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError as SqlDatabaseError
from sqlmodel import Session

from catalog.errors import DatabaseError, DatabaseMissingError, DatabaseTooNewError

_BUSY_MS = 30_000


class Database:
    """An engine whose schema is the one this version knows."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine, self.url = engine, url

    def session(self) -> Session:
        """A session; use it as a context manager."""
        return Session(self.engine)

    def close(self) -> None:
        self.engine.dispose()


def open_database(target: str | Path, *, create: bool = False, readonly: bool = False) -> Database:
    """Open the evidence at a path or URL, upgrading an older schema.

    Raises
    ------
    DatabaseError
        When it is missing, not a database, from a newer version, locked, or cannot be written.
    """
    text = str(target)
    url = text if "://" in text else f"sqlite:///{text}"
    path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
    if path is not None and not path.exists() and not create:
        raise DatabaseMissingError(text, f"there is no such database; make one with `runner fill-catalog`, or name another with --database")
    if path is not None and not path.parent.exists():
        raise DatabaseMissingError(text, f"no directory {path.parent} for the database {path.name}; create it first")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _readonly_pragmas if readonly else _pragmas)
    try:
        _bring_up_to_date(engine, text, readonly=readonly)
    except (SqlDatabaseError, sqlite3.DatabaseError) as error:
        engine.dispose()
        raise DatabaseError(text, f"cannot be used: {_reason(error)}") from error
    except DatabaseError:
        engine.dispose()
        raise
    return Database(engine, url)


def _pragmas(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _readonly_pragmas(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("query_only=ON", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _reason(error: Exception) -> str:
    """The driver's sentence, with what to do."""
    text = str(getattr(error, "orig", None) or error)
    advice = {
        "not a database": "it is another kind of file; name the right one with --database",
        "malformed": "it is damaged; restore a copy, or move it away and measure again",
        "locked": "another process holds it; wait, or stop that process",
        "readonly": "it cannot be written; check the file's permissions",
        "unable to open": "check the path and its permissions",
        "full": "the disk is full; free some space and run the command again",
    }
    hint = next((what for word, what in advice.items() if word in text), "")
    return f"{text}: {hint}" if hint else text


def _config(engine: Engine) -> Config:
    import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent))
    config.attributes["engine"] = engine
    return config


def _bring_up_to_date(engine: Engine, name: str, *, readonly: bool) -> None:
    config = _config(engine)
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    if current is not None:
        try:
            script.get_revision(current)
        except CommandError as error:
            raise DatabaseTooNewError(
                name,
                f"was written by a newer version (schema {current}, this one knows up to {head}); "
                "upgrade Tierwise, or name another database with --database",
            ) from error
    if readonly:
        state = "holds no evidence yet" if current is None else f"has the older schema {current}"
        raise DatabaseMissingError(name, f"{state}; run `runner fill-catalog` once, which brings it up to date")
    command.upgrade(config, "head")
