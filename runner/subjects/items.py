"""Items files, written piece by piece: a validation set may be larger than memory."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from catalog.regular_files import read_regular
from runner.errors import SubjectError
from runner.subjects.dataset import OnItem

# A whole number of values of any kind at a time: masks may be larger than memory.
_COUNTED_BYTES = 2**24
# Pixels of this value in a mask do not count.
_IGNORED = 255


@dataclass(frozen=True)
class Picture:
    """An encoded image on disk; `id` is unique within its dataset and a valid file name."""

    id: str
    path: Path
    size_bytes: int

    @property
    def suffix(self) -> str:
        """Return the ending of its name, in small letters."""
        return self.path.suffix.lower()


@dataclass(frozen=True)
class Truth:
    """What each picture is judged by, in their order: a label, or a mask of one shape."""

    name: Literal["label", "mask"]
    shape: tuple[int, ...]
    dtype: type[np.generic]
    values: Iterable[NDArray[np.generic]]


def write_items(path: Path, pictures: Sequence[Picture], truth: Truth, on_item: OnItem) -> None:
    """Write an uncompressed npz of item_id, image, offset and label or mask, one picture at a time."""
    sizes = [picture.size_bytes for picture in pictures]
    # Stored, because encoded pictures cannot be compressed further.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _array(archive, "item_id", np.array([picture.id for picture in pictures]))
        _array(archive, "offset", np.cumsum([0, *sizes], dtype=np.int64))
        # The header, with the sum of all sizes, comes before the data; `_copy` checks that it is true.
        with _member(archive, "image", (sum(sizes),), np.dtype(np.uint8)) as stream:
            for picture in pictures:
                _copy(picture, stream)
        shape = (len(pictures), *truth.shape)
        with _member(archive, truth.name, shape, np.dtype(truth.dtype)) as stream:
            for written, value in enumerate(truth.values):
                on_item(written, len(pictures))
                stream.write(np.ascontiguousarray(value, truth.dtype).tobytes())


@cache
def class_counts(path: Path) -> dict[str, int] | None:
    """Count the items of each class, or for masks the pixels; None where nothing is judged.

    An items file never changes, and all operators of a subject are judged on the same.
    """
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in ("label.npy", "mask.npy") if name in archive.namelist()), None)
        if member is None:
            return None
        counts: Counter[int] = Counter()
        with archive.open(member) as stream:
            # Of version 1.0, as `_member` writes it.
            npy.read_magic(stream)
            _, _, dtype = npy.read_array_header_1_0(stream)
            while content := stream.read(_COUNTED_BYTES):
                classes, numbers = np.unique(np.frombuffer(content, dtype), return_counts=True)
                counts.update(dict(zip(classes.tolist(), numbers.tolist(), strict=True)))
    uncounted = {_IGNORED} if member == "mask.npy" else set()
    return {str(label): counts[label] for label in sorted(set(counts) - uncounted)}


def _array(archive: zipfile.ZipFile, name: str, values: NDArray[np.generic]) -> None:
    with _member(archive, name, values.shape, values.dtype) as stream:
        stream.write(np.ascontiguousarray(values).tobytes())


@contextmanager
def _member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> Iterator[IO[bytes]]:
    """Open one array of the archive after its header; without a date, so that equal data give equal files."""
    # Whether a member will pass 2 GiB must be said before it is written.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        yield stream


def _copy(picture: Picture, stream: IO[bytes]) -> None:
    encoded = read_regular(picture.path)
    if len(encoded) != picture.size_bytes:
        raise SubjectError(f"{picture.path} changed while it was read; leave the data set alone and try again")
    stream.write(encoded)
