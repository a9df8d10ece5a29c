"""What others may have written: files that are read only where they are files, texts of which a terminal gets a part.

Of files that a user names or that others may have written, regular ones only are read, of bounded size where not
trusted. A device may never end and a named pipe waits for its writer, so neither is opened to be read. The errors are
OSErrors, which callers translate as they translate a missing file.

Names and reasons come from files that others wrote. A terminal obeys escape sequences wherever they come from: they
move the cursor, rename the window, fill the clipboard. Bidirectional controls show a text in another order than it is.
Bytes of a file name that are no UTF-8 are read as lone surrogates, which no output can encode.
"""

import errno
import json
import os
import re
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


def lack_of(kind: str, path: Path) -> str:
    """Say that there is no file or folder of this kind at a path, and what is there instead.

    Examples
    --------
    >>> lack_of("folder of masks", Path("nowhere")), lack_of("model file", Path("/dev/null"))
    ('there is no folder of masks nowhere', '/dev/null is a device, not a model file')
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return f"there is no {kind} {path}"
    kinds = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), *_KINDS)
    return f"{path} is {next((name for is_kind, name in kinds if is_kind(mode)), 'something else')}, not a {kind}"


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


_SEQUENCES = (
    # ECMA-48: two characters after ESC, or one of C1. First those that begin strings, whose content is no text either.
    r"(?:\x1b[PX\]^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)",
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]",
    r"\x1b[ -/]*[0-~]",
)
_CHARACTERS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Marks, embeddings, overrides and isolates of direction; separators of lines; annotations and tags.
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_SURROGATES = r"\ud800-\udfff"
UNPRINTABLE = re.compile("|".join((*_SEQUENCES, f"[{_CHARACTERS}{_SURROGATES}]")))
_IN_JSON = re.compile(f"[{_CHARACTERS}{_SURROGATES}]")


def printable(text: str) -> str:
    r"""Return a text without what a terminal would obey; line breaks and tabs stay.

    Examples
    --------
    >>> printable("a\x1b[31mb\x1b]0;title\x07c\u202ed")
    'abcd'
    >>> printable("caf\udce9.png")
    'caf\\xe9.png'
    """
    return UNPRINTABLE.sub(substitute, text)


def substitute(unprintable: re.Match[str]) -> str:
    """Return what is printed for a match of `UNPRINTABLE`: a surrogate as it is escaped, nothing for the rest."""
    first = unprintable[0][0]
    if not "\ud800" <= first <= "\udfff":
        return ""
    # As `surrogateescape` reads a byte of a file name (PEP 383).
    return f"\\x{ord(first) - 0xDC00:02x}" if "\udc80" <= first <= "\udcff" else f"\\u{ord(first):04x}"


def printable_json(document: str) -> str:
    r"""Return a JSON document of the same value whose strings escape what a terminal would obey.

    Examples
    --------
    >>> print(printable_json('"é\x9b\u202e"'))
    "é\u009b\u202e"
    """
    return _IN_JSON.sub(lambda character: json.dumps(character[0])[1:-1], document)
