"""Files of the working directory that are there whole or not at all: made beside their place, then moved into it.

Two runners may make the same content at once, so the first one stays. What a killed runner was making carries that
runner's name, by which `sweep` removes it and spares what a live one is making.
"""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import RunnerError
from runner.launchers.owner import is_abandoned, owned_name

_PREFIX = "building-"


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty directory in `parent`, on the same file system as what is moved out of it; gone after the block."""
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
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def sweep(workdir: Path) -> int:
    """Remove what dead runners were making when they were killed; how many things that were."""
    left = [path for path in workdir.glob(f"*/{_PREFIX}*") if is_abandoned(path.name, _PREFIX)]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


@contextmanager
def new_directory(target: Path, *, error: type[RunnerError] = RunnerError) -> Iterator[Path]:
    """Yield an empty directory beside `target` that takes its place when the block ends well, and vanishes otherwise.

    Raises
    ------
    RunnerError
        Of the kind `error`: when `target` is there and not empty, or something cannot be written (the disk is full).
    """
    refuse_existing(target, error=error)
    try:
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
