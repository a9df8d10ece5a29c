"""Opening the evidence: SQLite by path, anything else by URL; created, upgraded or refused with what to do.

SQLAlchemy is imported where something is written or a server is spoken to, and not to read a file.
"""

import importlib.resources
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, quote_plus, unquote, urlsplit

from catalog.errors import (
    CatalogError,
    DatabaseError,
    DatabaseLockedError,
    DatabaseMissingError,
    DatabaseReadOnlyError,
    DatabaseTooNewError,
    DatabaseTooOldError,
    NotADatabaseError,
)
from catalog.evidence.queries import FileReader, Reader, json_or_text
from catalog.foreign import require_regular

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlmodel import Session


_NUMBERED = re.compile(r"(\d{4})_\w+\.py")
BUSY_TIMEOUT_S = 10.0
_FILL = "`runner fill-catalog` creates and fills one, --database names another"

_NOT_OPENED = (
    "cannot be opened; check the permissions of the file and of its directory, and copy it first from a disk that may "
    "only be read"
)

# Options of a URL whose values are secrets: password, sslpassword, and what other drivers call theirs.
_SECRET_OPTION = re.compile("^(.*?(?:pass(?:word|wd|phrase)|pwd|secret|token)[^=]*=?).*$", re.IGNORECASE | re.DOTALL)

_SERVER_FULL = (
    "the server's disk is full; nothing of the last transaction was stored. Free space there, then give the same "
    "command again"
)
_DAMAGED = "the file is damaged; restore a copy, or move it away and fill a new one"
_CUT = (
    "the connection to the server was cut; nothing of the last transaction was stored. Give the same command again: "
    "what is stored is kept"
)

# What SQLite and PostgreSQL say, by a part of the message.
_TRANSLATIONS: Mapping[str, tuple[type[DatabaseError], str]] = {
    "lock timeout": (DatabaseLockedError, "another process is writing to it; wait for it to finish, then try again"),
    "locked": (DatabaseLockedError, "another process is writing to it; wait for it to finish, then try again"),
    "busy": (DatabaseLockedError, "another process is writing to it; wait for it to finish, then try again"),
    "readonly": (DatabaseReadOnlyError, "it may only be read; open it for writing or change its permissions"),
    "read-only": (DatabaseReadOnlyError, "it may only be read; open it for writing or change its permissions"),
    "not a database": (NotADatabaseError, f"this is not a Tierwise database; {_FILL}"),
    "malformed": (NotADatabaseError, _DAMAGED),
    # A header that no version of SQLite has written.
    "unsupported file format": (NotADatabaseError, _DAMAGED),
    "server closed the connection": (DatabaseError, _CUT),
    "terminating connection": (DatabaseError, _CUT),
    "connection is lost": (DatabaseError, _CUT),
    "connection is closed": (DatabaseError, _CUT),
    "unable to open": (DatabaseError, _NOT_OPENED),
    "No space left on device": (DatabaseError, _SERVER_FULL),
    "could not extend file": (DatabaseError, _SERVER_FULL),
    "is full": (DatabaseError, "the disk is full; nothing of the last transaction was stored. Free space, try again"),
}


@dataclass(frozen=True)
class Database:
    """An opened database of evidence, at the schema this version knows: an SQLite file, or a server by its URL.

    `shadows` are statements that each connection begins with; `left_out` says what they hide.
    """

    location: str
    readonly: bool
    file: Path | None = None
    url: "URL | None" = None
    create: bool = False
    left_out: tuple[str, ...] = ()
    shadows: tuple[str, ...] = ()
    _sound: list["Database"] = field(default_factory=list, repr=False, compare=False)

    @cached_property
    def engine(self) -> "Engine":
        """The engine of SQLAlchemy, made at its first use: what reads a file does without it."""

        if self.file is not None:
            return sqlite_engine(self.file, self._mode, self.shadows)
        assert self.url is not None
        return server_engine(self.url, self.location, readonly=self.readonly, shadows=self.shadows)

    @property
    def _mode(self) -> str:
        return "ro" if self.readonly else "rwc" if self.create else "rw"

    def replace_sound(self, sound: "Database") -> None:
        """Keep the database that leaves unsound rows out, to be closed with this one; the former is closed."""
        # One at a time: each holds connections of its own.
        while self._sound:
            self._sound.pop().dispose()
        self._sound.append(sound)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Open one transaction that only reads, and sees the evidence of one moment.

        Raises
        ------
        DatabaseError
            As `session` does.
        """
        if self.file is None:
            with self.session() as session:
                # READ COMMITTED, PostgreSQL's default, would let every statement see a moment of its own.
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                yield session
            return
        with self.translated(), closing(self.file_connection()) as connection:
            connection.execute("BEGIN")
            yield FileReader(connection)

    def file_connection(self) -> sqlite3.Connection:
        """Return a connection of the driver to the file, which the caller closes."""
        assert self.file is not None
        connection = file_connection(self.file, "ro" if self.readonly else "rw")
        for statement in self.shadows:
            connection.execute(statement)
        return connection

    @contextmanager
    def session(self) -> Iterator["Session"]:
        """Open one unit of work: the caller commits it; what is not committed is rolled back at the end.

        Raises
        ------
        DatabaseError
            When the database is locked for longer than the busy timeout, read-only, damaged or full.
        """
        from sqlmodel import Session

        with self.translated(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing_session(self) -> Iterator["Session"]:
        """Open a unit of work as `session` does, which survives cells that another program wrote and are no text.

        Writers go one after another, on a server as SQLite has it: what one looks up, none adds before it has written.
        """

        # IMMEDIATE: several runners store in one file, and one that has read first would be refused without waiting.
        with (
            self.session() as session,
            odd_text_allowed(session.connection(execution_options={"tierwise_immediate": True})),
        ):
            _wait_for_others(session.connection(), "write")
            yield session

    def translated(self) -> AbstractContextManager[None]:
        """Turn what the driver says within the block into DatabaseError."""
        return _translated(self.location, self.url)

    def close(self) -> None:
        """Give back all connections; what was written is then in the file itself."""
        for sound in self._sound:
            sound.dispose()
        if not self.readonly and self.file is not None:
            self._empty_log(self.file)
        self.dispose()

    def dispose(self) -> None:
        """Give back the connections of the engine, where one was made."""
        if "engine" in vars(self):
            self.engine.dispose()

    def _empty_log(self, file: Path) -> None:
        """Move the write-ahead log into the file; where others read it just now, the log stays for the next writer.

        SQLite does so when the last connection closes. A service keeps one open: beside it, a file that is copied over
        this one would get the pages of the former log.
        """
        with suppress(sqlite3.Error), closing(file_connection(file, "rw")) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_database(url_or_path: str | Path, *, create: bool = False, readonly: bool = False) -> Database:
    """Open the evidence.

    Parameters
    ----------
    url_or_path : str or Path
        A path (SQLite), or a URL such as `sqlite:///tierwise.db` or `postgresql://host/tierwise`.
    create : bool
        Whether a missing one is created by migration.
    readonly : bool
        Whether writing is refused; an older schema is then refused too.

    Returns
    -------
    Database
        At the newest schema: an older one was upgraded.

    Raises
    ------
    DatabaseError
        Missing, too new, too old to be read only, not a database, locked.

    Notes
    -----
    SQLite runs in WAL mode, with foreign keys, `synchronous=NORMAL` and a busy timeout of 10 s. Transactions begin
    explicitly, so that schema changes and savepoints are transactional too. Nothing is written into a file that turns
    out to be something else.
    """
    path = database_file(url_or_path)
    if path is not None:
        fresh = _check_file(path, create=create and not readonly)
        database = Database(str(path), readonly, file=path, create=create)
        # Looked at read-only first: switching to WAL would already write into a file that is something else.
        revision = None if fresh else _check(_file_schema(path), str(path), create=create, readonly=readonly)
    else:
        location = shown_location(url_or_path)
        database = Database(location, readonly, url=_parse_url(url_or_path))
    try:
        if path is None:
            revision = _check(_server_schema(database), database.location, create=create, readonly=readonly)
        # Mostly nothing is to do, and opening must not wait for a fill.
        if not readonly and revision != newest_revision():
            _upgrade(database)
    except BaseException:
        # Nobody else knows the connection that the check has opened.
        database.dispose()
        raise
    return database


def database_file(url_or_path: str | Path) -> Path | None:
    """Return the file of a SQLite database, however its location is spelled; None for a database server.

    A path, a URL of SQLAlchemy and a URI of SQLite (`file:`, also within the former) are spellings of one file. Links
    are followed. Options of a URL are not read: how a file is opened is decided here.

    Raises
    ------
    DatabaseError
        For a location that cannot be read.

    Examples
    --------
    >>> database_file("sqlite:////data/e.db?timeout=5") == database_file("file:///data/e.db?mode=ro")
    True
    >>> database_file("postgresql://host/tierwise") is None
    True
    """
    if _is_path(url_or_path):
        name = str(url_or_path)
    else:
        url = _parse_url(url_or_path)
        if url.get_backend_name() != "sqlite":
            return None
        name = url.database or ""
    if name.startswith("file:") and not isinstance(url_or_path, Path):
        uri = urlsplit(name)
        if uri.netloc not in ("", "localhost"):
            raise DatabaseError(shown_location(url_or_path), "a file: URI names a file of this machine; omit its host")
        name = unquote(uri.path, errors="surrogateescape")
    return Path(name).expanduser().resolve()


def _is_path(url_or_path: str | Path) -> bool:
    """Tell whether a location is a path or a URI of SQLite, which need no library to be read."""
    return isinstance(url_or_path, Path) or "://" not in url_or_path or url_or_path.startswith("file:")


def _parse_url(url_or_path: str | Path) -> "URL":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(str(url_or_path))
    except (ArgumentError, ValueError):  # a port that is not a number is a ValueError
        message = "this is neither a path nor a database URL such as sqlite:///tierwise.db or postgresql://host/name"
        # Not chained: the error repeats the URL with its password.
        raise DatabaseError(shown_location(url_or_path), message) from None
    # SQLAlchemy takes plain `postgresql` for psycopg2, and `tierwise[postgres]` installs psycopg 3.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def shown_location(url_or_path: str | Path) -> str:
    """Return a database's path or URL as messages may show it: without a password, wherever the URL has one.

    Examples
    --------
    >>> shown_location("postgresql://me:secret@host/tierwise?sslpassword=other")
    'postgresql://me:***@host/tierwise?sslpassword=***'
    >>> shown_location("tierwise.db")
    'tierwise.db'
    """
    scheme, mark, rest = str(url_or_path).partition("://")
    if not mark:
        return str(url_or_path)
    # By the text, because a URL that cannot be parsed is shown too. The last @ ends a password that holds others.
    user, at, place = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    place, *options = re.split("([?&])", place)
    hidden = (_SECRET_OPTION.sub(r"\1***", option) for option in options)
    return f"{scheme}://{name}{colon and ':***'}{at}{place}{''.join(hidden)}"


def _secrets(url: "URL") -> set[str]:
    """Return what must not appear in a message, as written and as URLs spell it."""
    values = [url.password, *(value for name, value in url.query.items() if _SECRET_OPTION.search(name))]
    plain = {str(value) for value in values if value}
    return plain | {quote(value, safe="") for value in plain} | {quote_plus(value) for value in plain}


def hidden(message: str, url: "URL | None") -> str:
    """Return a message without the secrets of a URL."""
    # The longest first: a secret that is part of another would leave the rest of it readable.
    for secret in sorted(_secrets(url) if url is not None else (), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message.strip()


def _check_file(path: Path, *, create: bool) -> bool:
    """Tell whether the file must be created; raises DatabaseError if it is not a file or must not be created."""
    if refuse_other_files(path):
        return False
    if not create:
        raise DatabaseMissingError(str(path), f"there is no database; {_FILL}")
    with _translated(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    return True


def refuse_other_files(path: Path) -> bool:
    """Tell whether there is a file; raises NotADatabaseError for a directory, a device or a named pipe."""
    try:
        require_regular(path)
    except IsADirectoryError as error:
        message = f"this is a directory; name a file in it, such as {path / 'tierwise.db'}"
        raise NotADatabaseError(str(path), message) from error
    except OSError as error:
        if path.exists():
            raise NotADatabaseError(str(path), f"{error.strerror}; {_FILL}") from error
        return False
    return True


def file_connection(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file with SQLite's own driver; the mode (ro, rw, rwc) can only be given in a URI."""
    # A pool lends a connection to one thread at a time, which need not be the one that opened it.
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False
    )
    # The driver's own transactions would commit before DDL and leave out SELECT; ours begin explicitly.
    connection.isolation_level = None
    connection.create_function("is_utf8", 1, _is_utf8, deterministic=True)
    return connection


def _is_utf8(value: bytes) -> bool:
    """Tell whether a text's bytes are text: SQLite stores any bytes as TEXT, and the driver cannot read such a cell."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def data_version(connection: sqlite3.Connection) -> int:
    """Return SQLite's number that changes when another connection has written; it costs some microseconds."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def unchecked_server(url_or_path: str | Path) -> Database:
    """Return a server's database as it is, for what comes before it is checked and upgraded: its lock."""
    database = Database(shown_location(url_or_path), readonly=False, url=_parse_url(url_or_path))
    # Made here, where a missing driver or a wrong option of the URL is expected.
    _ = database.engine
    return database


@dataclass(frozen=True)
class _Schema:
    """The tables of a database, and the revision of its schema where one is stored."""

    tables: frozenset[str]
    revision: str | None


_REVISION = "SELECT version_num FROM alembic_version"


def _file_schema(path: Path) -> _Schema:
    with _translated(str(path)), closing(file_connection(path, "ro")) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        tables = frozenset(name for (name,) in connection.execute(query))
        row = connection.execute(_REVISION).fetchone() if "alembic_version" in tables else None
    return _Schema(tables, None if row is None or row[0] is None else str(row[0]))


def _server_schema(database: Database) -> _Schema:
    from sqlalchemy import inspect

    engine = database.engine
    with database.translated(), engine.connect() as connection:
        tables = frozenset(inspect(connection).get_table_names())
        return _Schema(tables, _revision(connection) if "alembic_version" in tables else None)


def _check(schema: _Schema, location: str, *, create: bool, readonly: bool) -> str | None:
    """Refuse what cannot be used, before anything is written; return the revision of what can."""
    if not schema.tables:
        if create and not readonly:
            return None
        raise DatabaseMissingError(location, f"there is nothing in it yet; {_FILL}")
    revision = schema.revision
    if revision is None or "measurement" not in schema.tables:
        raise NotADatabaseError(location, f"this database belongs to something else; {_FILL}")
    if revision == newest_revision():
        return revision
    # Imported here, as below: Alembic takes a quarter of the time in which a question is answered.
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic())
    if revision not in {script.revision for script in scripts.walk_revisions()}:
        raise DatabaseTooNewError(
            location,
            f"a later version of Tierwise wrote it (schema {revision}, this version knows up to "
            f"{scripts.get_current_head()}); upgrade Tierwise (git pull, make), or name another database",
        )
    if readonly and revision != scripts.get_current_head():
        raise DatabaseTooOldError(
            location,
            f"an earlier version of Tierwise wrote it (schema {revision}, needed {scripts.get_current_head()}); "
            "`runner plan` upgrades it, evidence is kept",
        )
    return revision


def _upgrade(database: Database) -> None:
    """Bring the schema to the newest revision in one transaction; two processes at once wait for each other."""
    from sqlalchemy import inspect

    head = newest_revision()
    with database.translated():
        with database.engine.connect() as connection:
            # Looked at without the write lock: another process may have done it meanwhile.
            if inspect(connection).has_table("alembic_version") and _revision(connection) == head:
                return
        from alembic import command

        with (
            database.engine.connect().execution_options(tierwise_immediate=True) as connection,
            connection.begin(),
        ):
            _wait_for_others(connection, "upgrade")
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _wait_for_others(connection: "Connection", purpose: Literal["upgrade", "write"]) -> None:
    """Hold a lock of the server until the transaction ends; SQLite's transaction holds one of its own.

    A lock is of the whole database. Who writes is waited for as long as SQLite waits, who upgrades six times as long: a
    new schema is more work than any write.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy import text

        wait_s = BUSY_TIMEOUT_S * (6 if purpose == "upgrade" else 1)
        wait = {"wait": f"{round(wait_s * 1000)}ms"}
        connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), wait)
        connection.execute(text("SELECT pg_advisory_xact_lock(:space, :purpose)"), advisory_lock(purpose))


def advisory_lock(purpose: Literal["upgrade", "write", "fill"]) -> dict[str, int]:
    """Return the numbers of a lock in a PostgreSQL database; the first keeps it apart from locks of other programs."""
    return {"space": int.from_bytes(b"tier"), "purpose": {"upgrade": 1, "fill": 2, "write": 3}[purpose]}


def newest_revision() -> str:
    """Return the newest revision by the names of the migrations: their files are numbered as they follow each other."""
    names = (entry.name for entry in (importlib.resources.files("migrations") / "versions").iterdir())
    return max(match[1] for name in names if (match := _NUMBERED.fullmatch(name)))


def _revision(connection: "Connection") -> str | None:
    version = connection.exec_driver_sql(_REVISION).scalar()
    return None if version is None else str(version)


def _alembic() -> "Config":
    from alembic.config import Config

    config = Config()
    # Alembic's configuration interpolates `%`.
    config.set_main_option("script_location", str(importlib.resources.files("migrations")).replace("%", "%%"))
    return config


def driver_errors() -> tuple[type[Exception], ...]:
    """Return what a database's driver raises, and SQLAlchemy where this process uses it."""
    if "sqlalchemy.exc" not in sys.modules:
        return (sqlite3.Error,)
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, sqlite3.Error)


def reading_errors() -> tuple[type[Exception], ...]:
    """Return what reading the evidence may raise: errors of ours, and those of the driver that no block translated."""
    return (CatalogError, *driver_errors())


@contextmanager
def _translated(location: str, url: "URL | None" = None) -> Iterator[None]:
    """Turn what the driver says into our errors, without the secrets of `url` that it may repeat."""
    try:
        yield
    except driver_errors() as error:
        said = getattr(error, "orig", error)
        # Callers tell a duplicate by it; what is no refusal of the driver is a fault of ours.
        if (said is not error and _is_duplicate(error)) or not _is_refusal(error):
            raise
        raise _explained(error, hidden(str(said), url), location, url) from (
            # Chained, the driver's error would bring its own text back into a log.
            error if url is None or not _secrets(url) else None
        )
    except PermissionError as error:
        raise DatabaseReadOnlyError(location, f"its directory cannot be made: {error.strerror}") from error


def _explained(error: Exception, said: str, location: str, url: "URL | None") -> DatabaseError:
    for part, (kind, message) in _TRANSLATIONS.items():
        if part in said:
            return kind(location, message)
    unreachable = url is not None and type(error).__name__ == "OperationalError"
    return DatabaseError(location, f"{'cannot be reached' if unreachable else 'refuses'}: {said}")


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return True
    from sqlalchemy.exc import DBAPIError

    return isinstance(error, DBAPIError)


def _is_duplicate(error: Exception) -> bool:
    from sqlalchemy.exc import IntegrityError

    return isinstance(error, IntegrityError)


_RETRY_EVERY_S = 0.02
# A host that swallows packets would hold a question for minutes; in whole seconds, as libpq takes it.
_CONNECT_TIMEOUT_S = 10


def sqlite_engine(path: Path, mode: str, shadows: Sequence[str] = ()) -> "Engine":
    """Create an engine over a file, whose connections begin with the statements of `shadows`."""
    from sqlalchemy import QueuePool, create_engine, event

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
    def begin(connection: "Connection") -> None:
        # IMMEDIATE takes the write lock at once: one that has read first may be refused it without waiting.
        immediate = connection.get_execution_options().get("tierwise_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    _shadow(engine, shadows)
    return engine


def _shadow(engine: "Engine", statements: Sequence[str]) -> None:
    """Have each connection of an engine begin with some statements."""
    from sqlalchemy import event

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
def odd_text_allowed(connection: "Connection") -> Iterator[None]:
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


def server_engine(url: "URL", location: str, *, readonly: bool, shadows: Sequence[str] = ()) -> "Engine":
    """Create an engine over a server's database, whose connections begin with the statements of `shadows`."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

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
