"""Immutable snapshots of the database in memory, replaced when another process has written."""

import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import CatalogError, DatabaseMissingError, DatabaseTooNewError, DatabaseTooOldError
from catalog.evidence.changes import ChangeFeed, CheckedRows, changed_below
from catalog.evidence.database import (
    Database,
    data_version,
    database_file,
    driver_errors,
    open_database,
    shown_location,
)
from catalog.evidence.soundness import sound_database
from catalog.statistics.drops import AccuracyDrop
from recommender.errors import DatabaseMissing, DatabaseVersionMismatch, EvidenceUnavailable, NoEvidence
from recommender.evidence.loading import AccuracyBounds, SubjectChanges, load
from recommender.evidence.model import Evidence

# Where there is no sign of a change (a server whose announcements are not heard), evidence is read again after so long.
_BLIND_REFRESH_S = 2.0
# The first question waits so long for the server's announcements to be heard, before which a change may go unheard.
_LISTENING_S = 1.0
# A question waits this long for new evidence before it is answered from the previous snapshot.
_PATIENCE_S = 2.0
# Longer than the steps in which file systems of Linux count time: after it, a file that is still written shows it.
_SETTLE_S = 0.02
# A file that is being copied cannot be read; this often it is tried again while it changes, after so long.
_ATTEMPTS = 5
_RETRY_S = 0.2


class Snapshots:
    """The newest evidence on demand; safe to share between threads.

    SQLite reports other processes' commits through `PRAGMA data_version` on a connection that stays open: some
    microseconds, against reading everything. A file that was replaced or overwritten, which SQLite does not notice,
    has another identity, size or time, and is opened again. A PostgreSQL server announces changes, which a thread hears
    when `follow` is set; else, and while it is not heard, the evidence is read again every two seconds at most. With a
    `subject`, the evidence of that one alone is read. `prepare` is called with new evidence once it answers questions,
    in the thread that read it, with a function that says whether it still does.
    """

    def __init__(
        self,
        database: str,
        *,
        subject: str | None = None,
        follow: bool = False,
        prepare: Callable[[Evidence, Callable[[], bool]], None] = lambda evidence, is_wanted: None,
    ) -> None:
        self.database = database
        self._subject = subject
        self._follow = follow
        self._feed: ChangeFeed | None = None
        self._prepare = prepare
        self._lock = threading.Lock()
        self._opened: Database | None = None
        self._watch: sqlite3.Connection | None = None
        # By the name as it is, because a link may lead to another file later; a URL's is looked up every time.
        self._file = None if "://" in database or database.startswith("file:") else Path(database).expanduser()
        self._state: FileState | None = None
        self._seen: Hashable = None
        self._below: Hashable = None
        self._bounds = AccuracyBounds()
        # A process that reads once looks for no changes.
        self._checked = CheckedRows() if subject is None else None
        self._changes = SubjectChanges()
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
                    return evidence if self._is_up_to_date() else None
            except EvidenceUnavailable:
                return None

    def refresh(self) -> str:
        """Return in words how changes are noticed now."""
        feed = self._feed
        if feed is None and self._file_or_none() is not None:
            return "the file is looked at for each question"
        if feed is not None and feed.lack is None:
            return "the database server announces changes"
        return f"polling every {_BLIND_REFRESH_S:g} s: {'no database is open' if feed is None else feed.lack}"

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
            if self._is_up_to_date():
                return None
        reading: Future[None] = Future()
        self._reading = reading
        # A daemon thread: stopping the program does not wait for it.
        reader = threading.Thread(target=self._read, args=(reading,), name="evidence", daemon=True)
        reader.start()
        return reading

    def _read(self, reading: Future[None]) -> None:
        failure: BaseException | None = None
        try:
            evidence = self._load()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failure = error
        # Before the waiting callers wake: one of them may start the next reading.
        self._reading = None
        if failure is None:
            reading.set_result(None)
            self._prepare(evidence, lambda: self._evidence is evidence)
        else:
            reading.set_exception(failure)

    def _load(self) -> Evidence:
        """Read the evidence; again where that fails while the file is being written."""
        for _ in range(_ATTEMPTS - 1):
            state = self._file_state()
            try:
                return self._load_once()
            except EvidenceUnavailable:
                time.sleep(_RETRY_S)
                if self._file_state() == state:
                    raise
        return self._load_once()

    def _load_once(self) -> Evidence:
        with _translated(self.database):
            with self._lock:
                opened = self._open()
                change = self._change(opened)
                self._forget_what_changed_below(opened)
            evidence = load(
                sound_database(opened, self._checked),
                self._bounds,
                self._evidence,
                subject=self._subject,
                changes=self._changes,
            )
            new = self._bounds.take_new()
            if self._evidence is not None:
                _compute_bounds(new)
            self._evidence = evidence
        # Last, so that after a failure the change stays unseen and the next question reads again.
        self._seen = change
        return evidence

    def _is_up_to_date(self) -> bool:
        """Return whether nothing changed since the evidence was read; raise `DatabaseMissing` for a missing file."""
        state = self._file_state()
        if self._evidence is None or self._opened is None or state != self._state:
            return False
        return self._change(self._opened) == self._seen

    def _open(self) -> Database:
        state = self._file_state()
        if self._opened is not None and state == self._state:
            return self._opened
        if self._opened is not None:
            time.sleep(_SETTLE_S)
            state = self._file_state()
            # A writer that closes this very file changes its time and size too; what changed in it is looked for. Rows
            # of another file may have the numbers of those that were read.
            if state is None or self._state is None or state.identity != self._state.identity:
                self._forget()
        self._disconnect()
        self._opened = open_database(self.database, readonly=True)
        if self._follow and self._opened.file is None:
            self._feed = ChangeFeed(self.database)
            self._feed.start(wait_s=_LISTENING_S)
        self._state = state
        return self._opened

    def _forget(self) -> None:
        """Forget what tells unchanged rows from others, so that everything is read again."""
        self._bounds.read = {}
        self._checked = None if self._checked is None else CheckedRows()
        self._changes = SubjectChanges()

    def _forget_what_changed_below(self, opened: Database) -> None:
        """Forget everything where a server says that rows were changed by hand that no other row shows."""
        # A process that reads once compares nothing.
        if opened.file is not None or self._subject is not None:
            return
        with opened.reading() as reader:
            below = (self._feed and self._feed.below, changed_below(reader))
        if below != self._below:
            self._forget()
        self._below = below

    def _file_or_none(self) -> Path | None:
        return self._file or database_file(self.database)

    def _file_state(self) -> "FileState | None":
        """Return what changes when the file is replaced; None for a database that is not a file.

        The file is not opened: closing it would end the locks that SQLite holds on it in this process.
        """
        file = self._file_or_none()
        return None if file is None else FileState.of(file, self.database)

    def _change(self, opened: Database) -> Hashable:
        if opened.file is None:
            feed = self._feed
            count = 0 if feed is None else feed.count
            heard = feed is not None and feed.lack is None
            return count if heard else (count, time.monotonic() // _BLIND_REFRESH_S)
        if self._watch is None:
            self._watch = opened.file_connection()
        return data_version(self._watch)

    def _close(self) -> None:
        self._disconnect()
        self._evidence = None

    def _disconnect(self) -> None:
        """Give back all connections: one that stays open keeps pages and the index of the log of the former file."""
        if self._watch is not None:
            self._watch.close()
        if self._opened is not None:
            self._opened.close()
        if self._feed is not None:
            self._feed.close()
        self._watch = self._opened = self._feed = None


@dataclass(frozen=True)
class FileState:
    """What a file's directory entry says; no program can set the time of the last status change."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @property
    def identity(self) -> tuple[int, int]:
        """What another file in its place does not share."""
        return self.device, self.inode

    @classmethod
    def of(cls, file: Path, database: str) -> "FileState":
        """Look at a file; raise `DatabaseMissing` where there is none."""
        try:
            status = file.stat()
        except OSError as error:
            raise DatabaseMissing(shown_location(database)) from error
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _compute_bounds(drops: Iterable[AccuracyDrop]) -> None:
    """Compute bounds before their snapshot replaces another one, so that it makes no question wait.

    A bound of the former snapshot that no question has used is left to the first question that needs it.
    """
    for drop in drops:
        # Both are computed at their first use.
        _ = drop.low_pp, drop.high_pp


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
    except driver_errors() as error:
        # The driver's message is not repeated: it may contain the password, and the client may be unknown.
        shown = shown_location(database)
        raise EvidenceUnavailable(f"the evidence database {shown!r} cannot be read: {type(error).__name__}") from None
