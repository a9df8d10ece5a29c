"""Files of the working directory that are there whole or not at all: made beside their place, then moved into it.

Two runners may make the same content at once, so the first one stays. What a killed runner was making carries that
runner's name, by which `sweep` removes it and spares what a live one is making.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
