"""SQLite files whose rows were all sound, remembered from one process to the next in the user's cache directory.

To check every row takes longer than to answer a question. A file that no program has written to since needs no second
check; a file that cannot be told from a changed one is not remembered, and whatever is wrong with the cache itself
only makes the next process check again.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from catalog.regular_files import read_own

logger = logging.getLogger(__name__)
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
