"""Subjects and the datasets they are judged on; the two embedded datasets."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.embedded.images import (
    POOL,
    Bytes,
    Canvas,
    canvas_pictures,
    compose_canvases,
    fashion_pictures,
    generator,
)

Task = Literal["classification", "segmentation", "any"]
Metric = Literal["accuracy", "agreement"] | None

VALIDATION_CANVASES = 2_000
VALIDATION_SEED, CALIBRATION_SEED = 20261127, 20261128


class Dataset(Protocol):
    """What a subject is judged on (items), calibrated with, and timed on (inputs)."""

    def absent(self) -> str | None:
        """What is missing on this machine, or None."""

    def fingerprint(self) -> str:
        """SHA-256 that determines the validation items."""

    def inputs_fingerprint(self) -> str:
        """SHA-256 that determines the pool of latency inputs, without generating it."""

    def write_items(self, path: Path) -> int:
        """Write the items file (uncompressed npz: item_id, image, offset, label or mask); return the count."""

    def calibration(self, count: int) -> list[bytes]:
        """Encoded images from the training part."""

    def input_ids(self) -> list[str]:
        """Every id of the pool."""

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        """Write one file per id, named as the id."""

    def largest(self, count: int) -> list[str]:
        """Ids of the largest encoded files, largest first."""


class Source(Protocol):
    """Where a model file comes from, if it is not just there."""

    def absent(self) -> str | None:
        """Why the model cannot be read yet, or None."""

    def prepare(self) -> None:
        """Make the file; raises SubjectError where that cannot be done."""


@dataclass(frozen=True)
class Subject:
    """A model under study with what it is fed and judged on; the two mappings are the tier server's.

    `metric` is what it is judged by: its accuracy, its agreement with identity (never to be taken for an accuracy),
    or, where that makes no sense, nothing: it is timed only.
    """

    name: str
    task: Task
    model: Path
    classes: int
    preprocess: Mapping[str, object]
    postprocess: Mapping[str, object]
    dataset: Dataset
    source: Source | None = None
    metric: Metric = "accuracy"

    def absent(self) -> tuple[str, ...]:
        """What has to be there before this subject can be measured, and is not."""
        reasons = (self.source.absent() if self.source else None, self.dataset.absent())
        return tuple(reason for reason in reasons if reason is not None)

    def prepare(self) -> None:
        """Build the model if need be; raises SubjectError if anything is still missing then."""
        missing = self.dataset.absent()
        if missing is not None:
            raise SubjectError(f"subject {self.name}: {missing}")
        if self.source is not None:
            self.source.prepare()
            missing = self.source.absent()
        if missing is not None:
            raise SubjectError(f"subject {self.name}: {missing}")


@dataclass(frozen=True)
class Garments:
    """Fashion-MNIST images uint8 [n, 28, 28] and labels int64 [n]."""

    images: Bytes
    labels: NDArray[np.int64]


class _Embedded:
    """What the embedded datasets share: shipped garments, and a pool generated once per process."""

    def __init__(self, directory: Path) -> None:
        self._validation_file = directory / "fashion_validation.npz"
        self._calibration_file = directory / "fashion_calibration.npz"

    def absent(self) -> str | None:
        return None

    @cached_property
    def validation_garments(self) -> Garments:
        return _read_garments(self._validation_file)

    @cached_property
    def calibration_garments(self) -> Garments:
        return _read_garments(self._calibration_file)

    @cached_property
    def _pool(self) -> tuple[bytes, ...]:
        return tuple(self.pictures(range(POOL)))

    def pictures(self, indices: range) -> Iterable[bytes]:
        raise NotImplementedError

    def inputs_fingerprint(self) -> str:
        parts = (type(self).__name__, _sha256_of(self._validation_file), generator())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def input_ids(self) -> list[str]:
        return [f"{index:04d}.jpg" for index in range(POOL)]

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        for name in ids:
            index = self._index(name)
            (picture,) = self.pictures(range(index, index + 1))
            (directory / name).write_bytes(picture)

    def largest(self, count: int) -> list[str]:
        self._check(count, POOL, "inputs")
        ids = self.input_ids()
        order = sorted(range(POOL), key=lambda index: (-len(self._pool[index]), index))
        return [ids[index] for index in order[:count]]

    def _index(self, name: str) -> int:
        try:
            return self.input_ids().index(name)
        except ValueError:
            raise SubjectError(f"no latency input {name!r}; allowed: 0000.jpg to {POOL - 1:04d}.jpg") from None

    def _check(self, count: int, available: int, what: str) -> None:
        if not 0 < count <= available:
            raise SubjectError(f"asked for {count} {what} of an embedded dataset; allowed: 1 to {available}")


class FashionDataset(_Embedded):
    """`builtin:fashion`: the first 2 000 test images of Fashion-MNIST."""

    def pictures(self, indices: range) -> Iterable[bytes]:
        return fashion_pictures(self.validation_garments.images, indices)

    def fingerprint(self) -> str:
        return _sha256_of(self._validation_file)

    def write_items(self, path: Path) -> int:
        garments = self.validation_garments
        write_encoded(path, map(png, garments.images), {"label": garments.labels})
        return len(garments.labels)

    def calibration(self, count: int) -> list[bytes]:
        images = self.calibration_garments.images
        self._check(count, len(images), "calibration images")
        return [png(image) for image in images[:count]]


class CanvasDataset(_Embedded):
    """`builtin:canvas`: scenes composed at run time from the shipped garments; `pinned` is their SHA-256."""

    def __init__(self, directory: Path, pinned: str) -> None:
        super().__init__(directory)
        self._pinned = pinned

    def pictures(self, indices: range) -> Iterable[bytes]:
        garments = self.validation_garments
        return canvas_pictures(garments.images, garments.labels, indices)

    def fingerprint(self) -> str:
        return self._pinned

    def write_items(self, path: Path) -> int:
        canvases = validation_canvases(self.validation_garments)
        found = canvases_sha256(canvases)
        if found != self._pinned:
            raise SubjectError(
                f"the composed validation canvases hash to {found}, pinned is {self._pinned}: this NumPy composes "
                "other canvases than the model card's; use the versions of requirements.lock"
            )
        masks = np.stack([canvas.mask for canvas in canvases])
        write_encoded(path, (png(canvas.image) for canvas in canvases), {"mask": masks})
        return len(canvases)

    def calibration(self, count: int) -> list[bytes]:
        self._check(count, VALIDATION_CANVASES, "calibration canvases")
        garments = self.calibration_garments
        canvases = compose_canvases(garments.images, garments.labels, count=count, seed=CALIBRATION_SEED)
        return [png(canvas.image) for canvas in canvases]


def validation_canvases(garments: Garments) -> list[Canvas]:
    """Compose the validation items of `builtin:canvas`."""
    return list(compose_canvases(garments.images, garments.labels, count=VALIDATION_CANVASES, seed=VALIDATION_SEED))


def canvases_sha256(canvases: Iterable[Canvas]) -> str:
    """Hash pixels and labels, not their PNG bytes, which change with the zlib in use."""
    digest = hashlib.sha256()
    for canvas in canvases:
        digest.update(canvas.image.tobytes())
        digest.update(canvas.mask.tobytes())
    return digest.hexdigest()


def png(image: Bytes) -> bytes:
    """Encode losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_encoded(path: Path, encoded: Iterable[bytes], truth: Mapping[str, NDArray[np.generic]]) -> None:
    """Write an items file from encoded items in memory."""
    images = list(encoded)
    arrays = {
        "item_id": np.array([f"{index:05d}" for index in range(len(images))]),
        "image": np.frombuffer(b"".join(images), np.uint8),
        "offset": np.cumsum([0, *map(len, images)], dtype=np.int64),
        **truth,
    }
    with path.open("wb") as stream:  # a stream, because savez appends .npz to a name
        np.savez(stream, allow_pickle=False, **arrays)


def _read_garments(path: Path) -> Garments:
    with np.load(path, allow_pickle=False) as content:
        return Garments(content["images"], content["labels"].astype(np.int64))


@cache
def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
