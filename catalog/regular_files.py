"""Files that a user names or that others may have written: regular ones only, of bounded size where not trusted.

A device may never end and a named pipe waits for its writer, so neither is opened to be read. The errors are OSErrors,
which callers translate as they translate a missing file.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes.

    Parameters
    ----------
    path : Path
        Links are followed.

    Returns
    -------
    BufferedReader

    Raises
    ------
    OSError
        IsADirectoryError for a directory; EINVAL, with a sentence, for a device, a named pipe or a socket; what the
        system says for a file that is missing or may not be read.
    """
    # Looked at first: to open a device may already do something, and a socket cannot be opened at all.
    _require_regular(path.stat(), path)
    # O_NONBLOCK: to open a named pipe that has just taken the file's place would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, *, at_most: int = -1) -> bytes:
    """Return the bytes of a regular file, or its first `at_most`; raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(at_most)


def require_regular(path: Path) -> os.stat_result:
    """Return the status of a regular file; raise OSError, as `open_regular` does, where the path leads to none."""
    status = path.stat()
    _require_regular(status, path)
    return status


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
    raise OSError(errno.EINVAL, f"this is {kind}, and only regular files are read", str(path))


def own_directory(path: Path) -> Path:
    """Make a directory that only this user can use, and return it.

    Raises
    ------
    OSError
        EPERM, with a sentence, for a directory that is there and belongs to another user or is open to others.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "this is not a directory of this user", str(path))
    if status.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "other users can write or read in this directory", str(path))
    return path


def read_own(path: Path, *, at_most: int) -> bytes | None:
    """Return the content of a small file that this user alone could write; None for anything else.

    A link is not followed, and a file of more than `at_most` bytes is none of ours.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        content = os.read(descriptor, at_most + 1) if own else b""
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content if own and len(content) <= at_most else None
