"""Directories of cached files that are used only while their bytes are those they were made with.

`manifest.json` holds the key, the SHA-256 of every file and a hash of itself, so a file that changed, a manifest that
was edited and a directory that was moved to another key are noticed. Such a directory is removed and logged.
"""

import functools
import hashlib
import json
import logging
import shutil
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalog.regular_files import open_regular

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_SEAL = 1
# A file that changed less than this ago may change again without a new time stamp.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class SealedFile:
    """A file of a sealed directory."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SealedContent:
    """The content of a sealed directory whose files are unchanged."""

    files: tuple[SealedFile, ...]
    content: Mapping[str, Any]


class _BrokenSeal(ValueError):
    """A directory is not what its key promises; the message says why."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def current_sha256(path: Path) -> str:
    """Return a file's SHA-256, hashed once as long as the file does not change."""
    status = path.stat()
    if time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) < _SETTLED_NS:
        return file_sha256(path)
    # The time of the last change cannot be set back, as that of the last modification can.
    return _remembered(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _remembered(path: Path, *identity: int) -> str:
    return file_sha256(path)


def seal(directory: Path, key: str, files: Sequence[str], content: Mapping[str, Any]) -> None:
    """Write the manifest of a directory whose files are complete."""
    sealed = [SealedFile(file, file_sha256(directory / file), (directory / file).stat().st_size) for file in files]
    manifest = {"seal": _SEAL, "key": key, "files": [asdict(file) for file in sealed], "content": content}
    text = json.dumps({**manifest, "sha256": _digest(manifest)}, indent=2)
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def unseal(directory: Path, key: str, *, names: Collection[str] | None = None) -> SealedContent | None:
    """Return the content of a key's directory; None where it is absent, or where it was changed and is removed.

    `names` are the files that it must have, where they are known beforehand.
    """
    try:
        manifest = _manifest(directory, key)
        if manifest is None:
            return None
        if manifest.get("seal") != _SEAL:
            logger.info("cached files in %s are of another version; they are made again", directory)
            remove(directory)
            return None
        return _checked(directory, key, manifest, names)
    # A damaged manifest may raise any of these; one that nests too deeply raises RecursionError.
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, OSError | _BrokenSeal) else "its manifest cannot be read"
        logger.warning("cached files in %s are not used: %s; they are removed and made again", directory, reason)
        remove(directory)
        return None


def remove(directory: Path) -> None:
    """Remove a cached directory, or whatever stands in its place."""
    # A link is removed and not followed: what it leads to is not ours.
    if directory.is_symlink() or directory.is_file():
        directory.unlink(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _manifest(directory: Path, key: str) -> Mapping[str, Any] | None:
    if directory.is_symlink():
        raise _BrokenSeal("it is a link to another place")
    if not directory.exists():
        return None
    if not _is_plain(directory / MANIFEST):
        raise _BrokenSeal(f"it has no {MANIFEST}")
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise _BrokenSeal("its manifest is not a mapping")
    return manifest


def _checked(directory: Path, key: str, manifest: Mapping[str, Any], names: Collection[str] | None) -> SealedContent:
    if manifest["key"] != key:
        raise _BrokenSeal(f"it was made for the key {str(manifest['key'])[:12]}…")
    if manifest["sha256"] != _digest({name: value for name, value in manifest.items() if name != "sha256"}):
        raise _BrokenSeal("its manifest was changed")
    files = tuple(SealedFile(**entry) for entry in manifest["files"])
    if names is not None and {file.file for file in files} != set(names):
        raise _BrokenSeal("its manifest does not list the files that belong to this key")
    for file in files:
        # A manifest is data, and a name such as ../x must not lead out of the directory.
        if file.file in ("", ".", "..") or Path(file.file).name != file.file:
            raise _BrokenSeal(f"its manifest names a file elsewhere: {file.file!r}")
        path = directory / file.file
        if not _is_plain(path):
            raise _BrokenSeal(f"{file.file} is not there as a file")
        # The size first, which costs no reading.
        if path.stat().st_size != file.size_bytes or current_sha256(path) != file.sha256:
            raise _BrokenSeal(f"{file.file} was changed since it was made")
    if not isinstance(manifest["content"], dict):
        raise _BrokenSeal("its manifest cannot be read")
    return SealedContent(files, manifest["content"])


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _is_plain(path: Path) -> bool:
    """Return whether a path is a regular file itself, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
