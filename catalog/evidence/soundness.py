"""Unusable rows, written by another program: each is named and left out, and nothing else is lost.

Every row is checked (`row_checks.py`). Where one does not hold, the database is read through temporary views that have
the names of its tables and lack that row and what belongs to it; every query, and every view of the schema, then sees
only sound rows. A database in order is read as it is, and an SQLite file in order is checked once (`sound_files.py`):
what checks rows is imported where rows are checked.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from catalog.evidence import sound_files
from catalog.evidence.changes import CheckedRows, row_digests
from catalog.evidence.database import Database
from catalog.evidence.queries import ConnectionReader

if TYPE_CHECKING:
    from sqlmodel import Session

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
    if mark is not None and sound_files.is_remembered(mark):
        if checked is not None:
            with database.reading() as reader:
                digests = row_digests(reader)
            # What was written meanwhile is not what was remembered.
            checked.digests = digests if mark == _mark(database) else None
        return database
    if checked is not None and checked.digests is not None and _is_still_sound(database, checked):
        return database
    from catalog.evidence.engines import odd_text_allowed
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
        if mark is not None and sound_files.settled(Path(database.location)) and mark == _mark(database):
            sound_files.remember(mark)
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
    from catalog.evidence.engines import odd_text_allowed
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
    return sound_files.fingerprint(database.file, rules)


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
    from catalog.evidence.engines import odd_text_allowed
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
