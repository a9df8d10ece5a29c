"""Immutable snapshots of the database in memory, replaced when another process has written."""

import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import CatalogError, DatabaseMissingError, DatabaseTooNewError, DatabaseTooOldError
from catalog.evidence.database import Database, data_version, open_database, shown_location
from catalog.evidence.soundness import sound_database
from recommender.errors import DatabaseMissing, DatabaseVersionMismatch, EvidenceUnavailable, NoEvidence
from recommender.evidence.loading import AccuracyBounds, load
from recommender.evidence.model import Evidence

# Where the engine has no cheap sign of a change (anything but SQLite), evidence is read again after this long.
_BLIND_REFRESH_S = 2.0
# A question waits this long for new evidence before it is answered from the previous snapshot.
_PATIENCE_S = 2.0


class Snapshots:
    """The newest evidence on demand; safe to share between threads.

    SQLite reports other processes' commits through `PRAGMA data_version` on a connection that stays open: some
    microseconds, against reading everything. The file's inode catches a database that was replaced. With a `subject`,
    the evidence of that one alone is read. `prepare` is called with new evidence once it answers questions, in the
    thread that read it, with a function that says whether it still does.
    """

    def __init__(
        self,
        database: str,
        *,
        subject: str | None = None,
        prepare: Callable[[Evidence, Callable[[], bool]], None] = lambda evidence, is_wanted: None,
    ) -> None:
        self.database = database
        self._subject = subject
        self._prepare = prepare
        self._lock = threading.Lock()
        self._opened: Database | None = None
        self._watch: Any = None
        self._inode: tuple[int, int] | None = None
        self._seen: Hashable = None
        self._bounds = AccuracyBounds()
        self._evidence: Evidence | None = None
        self._reading: Future[None] | None = None

    def current(self) -> Evidence:
        """Return the newest evidence; raise `EvidenceUnavailable` when it cannot be read or nothing was measured.

        The first caller after a change triggers a reload and waits for it, though not for long: new accuracies of many
        images take seconds. Until the reload finishes, callers get the previous snapshot.
        """
        with self._lock:
            under_way = self._reading
            begun = self._begin_reading() if under_way is None else None
            evidence = self._readable()
        if evidence is not None and begun is None:
            return evidence
        if (reading := begun or under_way) is not None:
            with suppress(TimeoutError):
                reading.result(timeout=None if evidence is None else _PATIENCE_S)
        # No lock: the reading thread replaces the evidence in one assignment.
        evidence = self._readable()
        if evidence is None:
            raise NoEvidence(shown_location(self.database))
        return evidence

    def unchanged(self) -> Evidence | None:
        """Return what `current` would return without waiting; None where it would have to read, or fail."""
        with self._lock:
            evidence = self._readable()
            if evidence is None or self._reading is not None:
                return evidence
            try:
                with _translated(self.database):
                    opened = self._opened if _inode(self.database) == self._inode else None
                    return evidence if opened is not None and self._change(opened) == self._seen else None
            except EvidenceUnavailable:
                return None

    def close(self) -> None:
        """Close the database; the next question opens it again."""
        # The reading thread still uses the database.
        if (reading := self._reading) is not None:
            wait([reading])
        with self._lock:
            self._close()

    def _readable(self) -> Evidence | None:
        """Return the evidence that was read last, if any answer can rest on it."""
        evidence = self._evidence
        return evidence if evidence is not None and evidence.measured else None

    def _begin_reading(self) -> Future[None] | None:
        """Start a thread that reads the evidence, unless the evidence in memory is up to date."""
        with _translated(self.database):
            opened = self._open()
            change = self._change(opened)
        if self._evidence is not None and change == self._seen:
            return None
        reading: Future[None] = Future()
        self._reading = reading
        # A daemon thread: stopping the program does not wait for it.
        reader = threading.Thread(target=self._read, args=(opened, change, reading), name="evidence", daemon=True)
        reader.start()
        return reading

    def _read(self, opened: Database, change: Hashable, reading: Future[None]) -> None:
        failure: BaseException | None = None
        try:
            with _translated(self.database):
                evidence = load(sound_database(opened), self._bounds, self._evidence, subject=self._subject)
                if self._evidence is not None:
                    self._bounds.compute_all()
                self._evidence = evidence
            # Last, so that after a failure the change stays unseen and the next question reads again.
            self._seen = change
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failure = error
        # Before the waiting callers wake: one of them may start the next reading.
        self._reading = None
        if failure is None:
            reading.set_result(None)
            self._prepare(evidence, lambda: self._evidence is evidence)
        else:
            reading.set_exception(failure)

    def _open(self) -> Database:
        inode = _inode(self.database)
        if self._opened is not None and inode == self._inode:
            return self._opened
        self._close()
        self._opened = open_database(self.database, readonly=True)
        self._inode = inode
        return self._opened

    def _change(self, opened: Database) -> Hashable:
        if opened.engine.dialect.name != "sqlite":
            return time.monotonic() // _BLIND_REFRESH_S
        if self._watch is None:
            self._watch = opened.engine.raw_connection()
        return data_version(self._watch)

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._opened is not None:
            self._opened.close()
        self._watch = self._opened = self._evidence = None


@contextmanager
def _translated(database: str) -> Iterator[None]:
    try:
        yield
    except DatabaseMissingError as error:
        raise DatabaseMissing(shown_location(database), "it holds no tables of this version") from error
    except (DatabaseTooNewError, DatabaseTooOldError) as error:
        raise DatabaseVersionMismatch(str(error)) from error
    except CatalogError as error:
        raise EvidenceUnavailable(str(error)) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        # The driver's message is not repeated: it may contain the password, and the client may be unknown.
        shown = shown_location(database)
        raise EvidenceUnavailable(f"the evidence database {shown!r} cannot be read: {type(error).__name__}") from None


def _inode(database: str) -> tuple[int, int] | None:
    """Return the identity of the database file; None for a database that is not a file."""
    if "://" in database and not database.startswith("sqlite:///"):
        return None
    try:
        stat = Path(database.removeprefix("sqlite:///")).expanduser().stat()
    except OSError as error:
        raise DatabaseMissing(shown_location(database)) from error
    return stat.st_dev, stat.st_ino
