"""Subjects, the datasets they are judged on (two are embedded), and items files.

Items files are written piece by piece: a validation set may be larger than memory.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from catalog.foreign import lack_of, read_regular
from runner.errors import SubjectError
from runner.subjects.embedded.images import Bytes

if TYPE_CHECKING:
    # Imported where a pool is made: the package of statistics takes longer to import than a catalog to check.
    from catalog.statistics.input_draw import Pool


Task = Literal["classification", "segmentation", "any"]
Metric = Literal["accuracy", "agreement"] | None


class Dataset(Protocol):
    """The data that a subject is judged on (items), calibrated with, and timed on (inputs)."""

    def absent(self) -> str | None:
        """Return what is missing on this machine, or None."""

    def fingerprint(self) -> str:
        """Return the SHA-256 that determines the validation items."""

    def inputs_fingerprint(self) -> str:
        """Return the SHA-256 that determines the pool of latency inputs, without generating it."""

    def calibration_fingerprint(self) -> str:
        """Return the SHA-256 that determines the calibration data."""

    def write_items(self, path: Path) -> int:
        """Write the items file (uncompressed npz: item_id, image, offset, label or mask); return the count."""

    def item_count(self) -> int:
        """Return how many items `write_items` would write, without reading them; 0 where nothing is judged."""

    def calibration(self, count: int) -> list[bytes]:
        """Return encoded images from the training part."""

    def input_ids(self) -> list[str]:
        """Return every id of the pool."""

    def input_pool(self) -> "Pool":
        """Return the pool with the size of each input, in the unit that its latency grows with.

        Bytes where an input is encoded and sent so (the media type goes with it), tokens where an attention mask counts
        them, else elements.
        """

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        """Write one file per id, named as the id."""

    def largest(self, count: int) -> list[str]:
        """Return the ids of the largest encoded files, largest first."""


OnItem = Callable[[int, int], None]
"""Takes how many items are written, and how many there will be."""


def unwatched(written: int, total: int) -> None:
    """Report nothing."""


@runtime_checkable
class WatchedDataset(Protocol):
    """A dataset whose items may take minutes to write, because a model answers for their labels."""

    def write_watched_items(self, path: Path, on_item: OnItem) -> int:
        """Write the items file as `write_items` does, and report each item."""

    def judged_in_words(self) -> str | None:
        """Return which share of the data is judged; None where all are that do not calibrate."""


@runtime_checkable
class LabelledDataset(Protocol):
    """A dataset of the user's whose labels can be counted before anything is measured."""

    def label_counts(self) -> Mapping[str, int]:
        """Return how often each label occurs; raise SubjectError where labels are missing or do not fit."""

    def check_truth(self) -> None:
        """Raise SubjectError where labels or masks are missing or do not fit, as far as names tell."""


@runtime_checkable
class CalibrationFiles(Protocol):
    """A dataset whose calibration pictures are files of the user's, which may be damaged."""

    def calibration_file(self, index: int) -> Path:
        """Return the file that the calibration picture of this index was read from."""


class ModelSource(Protocol):
    """The origin of a model file that has to be made or checked first."""

    def absent(self) -> str | None:
        """Return why the model cannot be read yet, or None."""

    def prepare(self) -> None:
        """Make the file; raise SubjectError if that is not possible."""


@dataclass(frozen=True)
class MissingFile:
    """The source of a user's model whose file is missing."""

    path: Path

    def absent(self) -> str | None:
        return f"{lack_of('model file', self.path)}; a relative path starts at the catalog file"

    def prepare(self) -> None:
        """Do nothing: only the user can add the file, as `absent` explains."""


@dataclass(frozen=True)
class Subject:
    """A model under study with its data; the two mappings are the tier server's.

    `metric` is what the model is judged by: its accuracy, its agreement with identity (which is not an accuracy), or
    None if it is only timed. `assumption` says what was assumed of its output, in words; empty where it is declared.
    """

    name: str
    task: Task
    model: Path
    classes: int
    preprocess: Mapping[str, object]
    postprocess: Mapping[str, object]
    dataset: Dataset
    source: ModelSource | None = None
    metric: Metric = "accuracy"
    assumption: str = ""

    def absent(self) -> tuple[str, ...]:
        """Return what this subject still needs before it can be measured."""
        reasons = (self.source.absent() if self.source else None, self.dataset.absent())
        return tuple(reason for reason in reasons if reason is not None)

    def model_sha256(self) -> str:
        """Return what identifies the model in content keys; raise OSError where its file cannot be read."""
        # Imported where a model is read: a catalog is checked without onnx.
        from runner.graph.model_digest import model_sha256

        return model_sha256(self.model)

    def prepare(self) -> None:
        """Build the model if necessary; raise SubjectError if anything is still missing then."""
        # The data first, because without them building a model for minutes would be wasted work.
        missing = self.dataset.absent()
        if missing is not None:
            raise SubjectError(f"subject {self.name}: {missing}")
        if self.source is not None:
            self.source.prepare()
            missing = self.source.absent()
        if missing is not None:
            raise SubjectError(f"subject {self.name}: {missing}")


def png(image: Bytes) -> bytes:
    """Encode an image losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_encoded(path: Path, encoded: Iterable[bytes], truth: Mapping[str, NDArray[np.generic]]) -> None:
    """Write an items file from encoded items in memory."""
    images = list(encoded)
    arrays = {
        # Five digits, so that ids in the order of their text are in the order of their numbers.
        "item_id": np.array([f"{index:05d}" for index in range(len(images))]),
        "image": np.frombuffer(b"".join(images), np.uint8),
        # One more than there are items: item i is image[offset[i]:offset[i + 1]].
        "offset": np.cumsum([0, *map(len, images)], dtype=np.int64),
        **truth,
    }
    with path.open("wb") as stream:  # a stream, because savez appends .npz to a name
        np.savez(stream, allow_pickle=False, **arrays)


def judged_in_words(subject: Subject) -> str | None:
    """Return which share of a subject's data is judged; None where all are, or where they are not here."""
    if subject.metric is None or not isinstance(subject.dataset, WatchedDataset) or subject.absent():
        return None
    return subject.dataset.judged_in_words()


def truth_problem(subject: Subject) -> str | None:
    """Return what is wrong with the labels or masks of a subject whose data are here; None where they can be used."""
    if subject.metric != "accuracy" or not isinstance(subject.dataset, LabelledDataset) or subject.absent():
        return None
    try:
        subject.dataset.check_truth()
    except SubjectError as error:
        return str(error)
    return None


def one_class_remark(subject: Subject) -> str | None:
    """Return the remark that all judged items have one label; None where they do not, or where there are no labels.

    Identity's answers, which stand for labels where there are none, are not known before a fill, which remarks them.
    """
    dataset = subject.dataset
    if subject.metric != "accuracy" or not isinstance(dataset, LabelledDataset) or subject.absent():
        return None
    try:
        counts = dataset.label_counts()
    except SubjectError:  # `truth_problem` says it
        return None
    if len(counts) != 1:
        return None
    # Imported where it is needed: the statistics take longer to import than a catalog to check.
    from catalog.statistics.description import chance_remark

    return chance_remark("top1", 100.0, sum(counts.values()), counts)


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
