"""Files of the working directory that are complete or absent: made next to their place, then moved into it.

Two runners may make the same content at once; the first one stays. What a killed runner left unfinished has that
runner's name, by which `sweep` removes it and spares the files of a live one. The same name (`Owner`) is noted on
everything that a launcher creates.

Cached directories are sealed: used only while their bytes are those they were made with. `manifest.json` holds the key,
the SHA-256 of every file and a hash of itself, so a file that changed, a manifest that was edited and a directory that
was moved to another key are noticed. Such a directory is removed and logged.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalog.foreign import open_regular, read_own
from runner.errors import RunnerError
from runner.host import this_host

_HAS_PROC = Path("/proc/self/stat").exists()
_PID_NAMESPACE = Path("/proc/self/ns/pid")
# Plain digits: `int` reads others as well, and `isdigit` accepts even such as `²`, which `int` does not read.
_PROCESS_ID = re.compile("[1-9][0-9]{0,9}")


@functools.cache
def _here() -> str:
    """Return where process ids are valid: this machine, and in a container the container's own numbering."""
    # The inode number identifies a namespace (namespaces(7)).
    namespace = _PID_NAMESPACE.stat().st_ino if _PID_NAMESPACE.exists() else 0
    return f"{this_host().fingerprint}.{namespace}"


def start_of(pid: int) -> str | None:
    """Return when a process started, in the system's own unit; None if there is no such process."""
    if not _HAS_PROC:
        return "-".join(_ps(pid, "lstart").split()) or None
    try:
        # A process may give itself a name of any bytes.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in brackets may hold blanks and brackets, so the fields are counted from the last bracket (proc(5)).
    state, *rest = text.rpartition(")")[2].split()
    # A zombie has ended. `rest` begins with field 4, so that its 18 is field 22, the start in ticks since boot.
    return None if state in "ZX" else rest[18]


def command_line(pid: int) -> str:
    """Return the arguments of a process, separated by blanks; empty if there is no such process."""
    if not _HAS_PROC:
        return _ps(pid, "args")
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _ps(pid: int, field: str) -> str:
    return subprocess.run(["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


@dataclass(frozen=True)
class Owner:
    """A process of a host or container; a process id alone may have been given to another process since."""

    host: str
    pid: int
    start: str

    @classmethod
    def current(cls) -> "Owner":
        """Return this process as an owner."""
        return cls(_here(), os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Read what `str` wrote; None for anything else."""
        host, _, rest = text.partition(":")
        pid, _, start = rest.partition(":")
        return cls(host, int(pid), start) if host and _PROCESS_ID.fullmatch(pid) and start else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the owner ran on another machine or in a container, where it cannot be checked from here."""
        return self.host != _here()

    @property
    def is_alive(self) -> bool:
        """Return whether exactly this process still runs on this machine."""
        return not self.is_elsewhere and start_of(self.pid) == self.start

    @property
    def is_dead(self) -> bool:
        """Return whether the process is known to have ended."""
        return not self.is_elsewhere and not self.is_alive


def owned_name(prefix: str) -> str:
    """Return a name for a file or directory of this process, which marks its owner from the start."""
    return f"{prefix}{Owner.current()}-{uuid.uuid4().hex[:8]}"


def is_abandoned(name: str, prefix: str) -> bool:
    """Return whether the owner in such a name is known to be dead; a name without an owner is not abandoned."""
    owner = Owner.parse(name.removeprefix(prefix).rpartition("-")[0])
    return owner is not None and owner.is_dead


_PREFIX = "building-"
_TEMPORARY = "tierwise-trial-"
# The directory of a tunnel to an engine, and the file in it that names its owner.
TUNNEL_PREFIX, OWNER_FILE = "tierwise-ssh-", "owner"
_OWNER_BYTES = 200


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Yield an empty directory in `parent`, on its file system so that content can be renamed out of it."""
    directory = parent / owned_name(_PREFIX)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def settle(made: Path, place: Path) -> None:
    """Move a file or directory into its place in one step; a directory that another runner put there first stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(place)
    except OSError as error:
        # These two say that the same content is already there.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield an empty directory of this user's own among the system's temporary ones."""
    directory = Path(tempfile.gettempdir()) / owned_name(_TEMPORARY)
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep(workdir: Path) -> int:
    """Remove what killed runners left unfinished; return how many directories that were."""
    named = [path for path in workdir.glob(f"*/{_PREFIX}*") if is_abandoned(path.name, _PREFIX)]
    temporaries = Path(tempfile.gettempdir())
    left = [path for path in temporaries.glob(f"{_TEMPORARY}*") if is_abandoned(path.name, _TEMPORARY)]
    left += [path for path in temporaries.glob(f"{TUNNEL_PREFIX}*") if _owner_is_dead(path)]
    # Anyone may write there: what another user made is not this user's to remove.
    named += [path for path in left if path.lstat().st_uid == os.geteuid()]
    # A link of such a name was not made here, and what it leads to is not removed.
    directories = [path for path in named if path.is_dir() and not path.is_symlink()]
    for path in directories:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in directories)


def _owner_is_dead(directory: Path) -> bool:
    """Return whether the file in a directory names an owner that has ended."""
    content = read_own(directory / OWNER_FILE, at_most=_OWNER_BYTES)
    owner = None if content is None else Owner.parse(content.decode(errors="replace"))
    return owner is not None and owner.is_dead


@contextmanager
def new_directory(target: Path, *, error: type[RunnerError] = RunnerError) -> Iterator[Path]:
    """Yield an empty directory next to `target` that takes its place when the block succeeds, and is removed otherwise.

    Raises
    ------
    RunnerError
        Of the kind `error`: when `target` is there and not empty, or something cannot be written (the disk is full).
    """
    refuse_existing(target, error=error)
    try:
        # On the target's file system, so that the rename is one step.
        beside = next(parent for parent in target.absolute().parents if parent.is_dir())
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{target.name}-") as scratch:
            staging = Path(scratch) / "files"
            staging.mkdir()
            yield staging
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(target)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise error(f"{target} cannot be written: {reason}; nothing was left there") from failure


def refuse_existing(target: Path, *, error: type[RunnerError] = RunnerError) -> None:
    """Raise `error` when `target` is anything but absent or an empty directory."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise error(f"{target} exists and is not an empty directory; name another one")


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
