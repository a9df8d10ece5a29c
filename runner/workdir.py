"""Files of the working directory that are complete or absent: made next to their place, then moved into it.

Two runners may make the same content at once; the first one stays. What a killed runner left unfinished has that
runner's name, by which `sweep` removes it and spares the files of a live one.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.regular_files import read_own
from runner.errors import RunnerError
from runner.launchers.owner import Owner, is_abandoned, owned_name

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
