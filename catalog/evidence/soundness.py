"""Unusable rows, written by another program: each is named and left out, and nothing else is lost.

Every row is checked (`row_checks.py`). Where one does not hold, the database is read through temporary views that have
the names of its tables and lack that row and what belongs to it; every query, and every view of the schema, then sees
only sound rows. A database in order is read as it is, and an SQLite file in order is checked once: what checks rows is
imported where rows are checked.

Files whose rows were all sound are remembered from one process to the next in the user's cache directory: to check
every row takes longer than to answer a question. A file that no program has written to since needs no second check; a
file that cannot be told from a changed one is not remembered, and whatever is wrong with the cache itself only makes
the next process check again.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from catalog.evidence.changes import CheckedRows, row_digests
from catalog.evidence.database import Database, odd_text_allowed
from catalog.evidence.queries import ConnectionReader
from catalog.foreign import read_own

if TYPE_CHECKING:
    from sqlmodel import Session


# Of as many files, the last ones that were checked.
_MOST_FILES = 64
_MARK = re.compile(rb"[0-9a-f]{64}")
_LINE_BYTES = 65
# A file system may store times in steps of two seconds (FAT); within one step a second change leaves no trace.
_SETTLED_S = 2.0


def fingerprint(database: Path, rules: bytes) -> str | None:
    """Return what changes whenever the content of a database or the rules for it change.

    Parameters
    ----------
    database : Path
        An SQLite file.
    rules : bytes
        Identifies the rules by which its rows are judged.

    Returns
    -------
    str or None
        None where a change could go unseen: while a journal or a write-ahead log holds part of the content, and on
        systems that keep no time of the last change to a file's status.

    Notes
    -----
    The file is not opened: to close it again would end the locks that SQLite holds on it in this process
    (sqlite.org/howtocorrupt.html, section 2.2). No program can set the time of the last status change, which sees
    through a copied or restored time of modification.
    """
    if os.name != "posix":
        return None
    try:
        status = database.stat()
        if any(_has_content(Path(f"{database}{suffix}")) for suffix in ("-wal", "-journal")):
            return None
    except OSError:
        return None
    identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return sha256(repr((rules, identity)).encode()).hexdigest()


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def settled(database: Path) -> bool:
    """Tell whether a change to the file from now on shows in its times."""
    try:
        status = database.stat()
    except OSError:
        return False
    # A time in the future, after the clock was set back, is not settled either.
    return time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S


def is_remembered(mark: str) -> bool:
    """Tell whether the file with this fingerprint was sound."""
    return mark in _marks()


def remember(mark: str) -> None:
    """Add the fingerprint of a sound file; without effect where nothing can be written."""
    path = _path()
    if path is None:
        return
    marks = [*(other for other in _marks() if other != mark), mark][-_MOST_FILES:]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, "".join(f"{line}\n" for line in marks))
    except OSError as error:
        logger.debug("not remembered in %s: %s", path, error)


def _replace(path: Path, content: str) -> None:
    """Write a file whole or not at all, so that another process never reads half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _marks() -> Sequence[str]:
    """Return the remembered fingerprints, the oldest first; none from a file that others could have written."""
    path = _path()
    if path is None:
        return ()
    content = read_own(path, at_most=_MOST_FILES * _LINE_BYTES) or b""
    # Whatever else is in the file is dropped when it is written next.
    return [line.decode() for line in content.splitlines() if _MARK.fullmatch(line)]


def _path() -> Path | None:
    """Return where the fingerprints are kept (XDG Base Directory Specification); None without a home directory."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # The specification has relative paths ignored.
        folder = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "tierwise" / "sound-databases"


logger = logging.getLogger(__name__)
_LOGGED = 20
# The modules that say what a row may be.
_RULES = ("allowed.py", "records.py", "tables.py", "row_checks.py")


def sound_database(database: Database, checked: CheckedRows | None = None) -> Database:
    """Return the database itself, or a reading of it that leaves out the unusable rows.

    Parameters
    ----------
    database : Database
        It closes what is returned.
    checked : CheckedRows, optional
        What an earlier call with it found sound, and is not checked again; this call's rows are then in it.

    Returns
    -------
    Database
        `left_out` names what is left out.
    """
    mark = _mark(database)
    if mark is not None and is_remembered(mark):
        if checked is not None:
            with database.reading() as reader:
                digests = row_digests(reader)
            # What was written meanwhile is not what was remembered.
            checked.digests = digests if mark == _mark(database) else None
        return database
    if checked is not None and checked.digests is not None and _is_still_sound(database, checked):
        return database
    from catalog.evidence.row_checks import shadows, unsound_rows

    with database.translated(), database.engine.connect() as connection:
        with odd_text_allowed(connection):
            unsound = unsound_rows(connection)
            is_sound = not any(unsound.values())
            if checked is not None:
                checked.digests = row_digests(ConnectionReader(connection)) if is_sound else None
        statements = tuple(shadows(connection, unsound))
    if is_sound:
        # The mark is taken again: what was written during the check may not have been read by it.
        if mark is not None and settled(Path(database.location)) and mark == _mark(database):
            remember(mark)
        return database
    left_out = tuple(
        f"{table} {_shown(row)}: {reason}" for table, rows in unsound.items() for row, reason in rows.items()
    )
    for text in left_out[:_LOGGED]:
        logger.warning("left out: %s", text)
    if len(left_out) > _LOGGED:
        logger.warning("left out: and %d more", len(left_out) - _LOGGED)
    sound = replace(database, shadows=statements, readonly=True, left_out=left_out)
    database.replace_sound(sound)
    return sound


def _is_still_sound(database: Database, checked: CheckedRows) -> bool:
    """Check the rows that are not those of an earlier check, with all that is below them."""
    from catalog.evidence.row_checks import new_rows_are_sound

    with database.translated(), database.engine.connect() as connection, odd_text_allowed(connection):
        digests = row_digests(ConnectionReader(connection))
        is_sound = new_rows_are_sound(connection, digests, checked.digests or {})
    checked.digests = digests if is_sound else None
    return is_sound


def _mark(database: Database) -> str | None:
    """Return the fingerprint of an SQLite file under the present rules; None where it cannot be remembered."""
    rules = _rules()
    if rules is None or database.file is None:
        return None
    return fingerprint(database.file, rules)


@cache
def _rules() -> bytes | None:
    """Identify the rules by the text of their modules, so that a changed one applies at once; None without it."""
    digest = sha256(pydantic.VERSION.encode())
    try:
        for name in _RULES:
            digest.update(Path(__file__).with_name(name).read_bytes())
    except OSError:
        return None
    return digest.digest()


@contextmanager
def sound_rows(session: "Session") -> Iterator[None]:
    """Let the queries of the block see sound rows only, within the session's own transaction.

    Another connection would not see what this transaction has written so far. Nothing can be stored within the block.
    """
    from catalog.evidence.row_checks import PARENTS, shadowed_tables, unsound_rows

    connection = session.connection()
    with odd_text_allowed(connection):
        unsound = unsound_rows(connection)
    if not any(unsound.values()):
        yield
        return
    # The driver's own cursor: a name with a percent sign is no parameter to it.
    cursor = connection.connection.cursor()
    for statement in shadowed_tables(connection, unsound):
        cursor.execute(statement)
    yield
    schema = "temp" if connection.dialect.name == "sqlite" else "pg_temp"
    for table in reversed(list(PARENTS)):
        cursor.execute(f"DROP VIEW {schema}.{table}")
    cursor.close()


def _shown(name: Any) -> str:
    return str(name).encode(errors="backslashreplace").decode()
