"""A tier server's files by digest: received once, checked, kept within a size, and linked into launches.

What is on disk is named by digests that were checked to be some; no other text from the network becomes a name there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from tierserver.errors import NotFound, RequestError, TierError, TooLarge

_DIGEST = re.compile(r"[0-9a-f]{64}")
# A model finds its external data beside it under the name that it was written with.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MIB = 2**20


class FileCache:
    """The files below one directory, which belongs to one server at a time."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._expected_bytes = 0  # of uploads under way, which are not among the files yet
        self._files, self._incoming, self._launches = root / "files", root / "incoming", root / "launches"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (root / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise TierError(f"another tier server uses {root}; name another directory with --cache") from error
        # What a killed server left of launches and of uploads is of no use to anybody.
        for leftover in (self._incoming, self._launches):
            shutil.rmtree(leftover, ignore_errors=True)
        for directory in (self._files, self._incoming, self._launches):
            directory.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Let another server use the directory."""
        self._lock.close()

    def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Return the digests whose files are not here."""
        return tuple(digest for digest in dict.fromkeys(digests) if not self._path(digest).is_file())

    @contextlib.contextmanager
    def receiving(self, digest: str, size_bytes: int) -> Iterator[Upload]:
        """Make room for a file and yield its upload, which must be `complete` by the end of the block to be kept."""
        target = self._path(digest)
        self._make_room(size_bytes)
        path = self._incoming / uuid.uuid4().hex
        self._expected_bytes += size_bytes
        try:
            with path.open("xb") as stream:
                upload = Upload(stream, digest, size_bytes)
                yield upload
            if upload.is_complete:
                path.rename(target)
        finally:
            self._expected_bytes -= size_bytes
            path.unlink(missing_ok=True)

    def discard(self, digest: str) -> None:
        """Remove a file whose bytes are no longer what they were."""
        self._path(digest).unlink(missing_ok=True)

    @contextlib.contextmanager
    def linked(self, files: Mapping[str, str]) -> Iterator[Mapping[str, Path]]:
        """Link files (name -> digest) into a fresh directory for the block; yield their paths by name."""
        if absent := self.missing(files.values()):
            raise NotFound(
                f"{len(absent)} of {len(files)} files are not in the cache, which takes {self.max_bytes // _MIB} MiB; "
                "send them first, or start the tier server with a larger --cache-bytes"
            )
        directory = self._launches / uuid.uuid4().hex
        directory.mkdir(mode=0o700)
        try:
            yield {name: self._link(directory, name, digest) for name, digest in files.items()}
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _link(self, directory: Path, name: str, digest: str) -> Path:
        source = self._path(digest)
        # Files of one mount lie side by side; a directory is named by a digest too, and a strange name by its file's.
        mount, _, inside = name.partition("/")
        place = directory / hashlib.sha256(mount.encode()).hexdigest()[:16]
        place.mkdir(mode=0o700, exist_ok=True)
        target = place / (inside if _PLAIN_NAME.fullmatch(inside) else f"~{hashlib.sha256(name.encode()).hexdigest()}")
        try:
            target.hardlink_to(source)
        except FileExistsError:
            raise RequestError(f"two files of one name: {name[:80]!r}") from None
        except OSError:
            shutil.copyfile(source, target)  # a file system without links, such as that of a memory card
        # The time of the last use, by which the oldest files give way to new ones.
        os.utime(source)
        return target

    def _make_room(self, size_bytes: int) -> None:
        size_bytes += self._expected_bytes
        if size_bytes > self.max_bytes:
            raise TooLarge(
                f"files of {size_bytes // _MIB} MiB at once; this tier server keeps {self.max_bytes // _MIB} MiB, "
                "start it with a larger --cache-bytes"
            )
        stored = sorted(((path.stat(), path) for path in self._files.iterdir()), key=lambda entry: entry[0].st_mtime)
        excess = sum(stat.st_size for stat, _ in stored) + size_bytes - self.max_bytes
        for stat, path in stored:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise RequestError(f"{digest[:80]!r} is not a SHA-256; expected: 64 hexadecimal digits in lower case")
        return self._files / digest


class Upload:
    """One file on its way in."""

    def __init__(self, stream: BinaryIO, digest: str, size_bytes: int) -> None:
        self._stream = stream
        self._digest = digest
        self._hash = hashlib.sha256()
        self._left = size_bytes
        self.is_complete = False

    def write(self, data: bytes) -> None:
        """Take the next bytes; raise TooLarge beyond the declared size."""
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge("more bytes than the Content-Length declares")
        self._hash.update(data)
        self._stream.write(data)

    def finish(self) -> None:
        """Check size and digest; raise RequestError where the bytes are others."""
        if self._left or self._hash.hexdigest() != self._digest:
            got = self._hash.hexdigest()
            raise RequestError(f"the bytes have the SHA-256 {got[:12]}…, the address says {self._digest[:12]}…")
        self._stream.flush()
        self.is_complete = True
