"""The identity of a model: the bytes of its file and of the files with its external data."""

import hashlib
from functools import lru_cache
from pathlib import Path

from runner.errors import ModelFileError
from runner.graph.model_file import data_files
from runner.workdir import current_sha256


def model_sha256(path: Path) -> str:
    """Return the SHA-256 that stands for a model in content keys; raise OSError where a file cannot be read.

    Of a model in one file it is that of the file. External data count with their names, in the order of the names, so
    that weights that change make another model. Unchanged files are hashed once in a process.
    """
    own = current_sha256(path)
    try:
        data = _data_files(path, own)
    except ModelFileError:  # reported by what reads the model
        return own
    if not data:
        return own
    folder = path.parent.resolve()
    listed = [f"{file.relative_to(folder).as_posix()}:{current_sha256(file)}" for file in data]
    # File names need not be UTF-8 on Linux, and such a name must not end in a UnicodeEncodeError.
    return hashlib.sha256("\n".join([own, *listed]).encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=256)
def _data_files(path: Path, own_sha256: str) -> tuple[Path, ...]:
    """Return the files with external data; equal bytes of a model name the same ones."""
    return data_files(path)
