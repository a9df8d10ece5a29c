"""A directory that appears only when everything in it is complete."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import RunnerError


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
        beside = next(each for each in target.absolute().parents if each.is_dir())
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
