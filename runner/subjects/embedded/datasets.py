"""The embedded subjects by name, and their datasets: Fashion-MNIST garments, and canvases composed of them.

It is the one place that says what `builtin:...` means.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runner.errors import SubjectError
from runner.subjects.dataset import Dataset, Subject, Task, png, write_encoded
from runner.subjects.embedded.images import (
    CLASSES,
    POOL,
    SIZE,
    Bytes,
    Canvas,
    canvas_pictures,
    compose_canvases,
    fashion_pictures,
    generator,
)
from runner.workdir import scratch, seal, settle, unseal

if TYPE_CHECKING:
    from catalog.statistics.input_draw import Pool


VALIDATION_CANVASES = 2_000


# Other seeds than those of training and of the pool, so that no canvas occurs in two parts.
VALIDATION_SEED, CALIBRATION_SEED = 20261127, 20261128


@dataclass(frozen=True)
class Garments:
    """Fashion-MNIST images uint8 [n, 28, 28] and labels int64 [n]."""

    images: Bytes
    labels: NDArray[np.int64]


class _Embedded:
    """What the embedded datasets share: shipped garments, and a pool generated once per process.

    `kept` is a folder that keeps the sizes of the pictures, which take seconds to generate.
    """

    def __init__(self, directory: Path, *, kept: Path | None = None) -> None:
        self._kept = kept
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
        # Kept, because the choice of the largest needs the bytes of all.
        return tuple(self.pictures(range(POOL)))

    def pictures(self, indices: range) -> Iterable[bytes]:
        raise NotImplementedError

    def inputs_fingerprint(self) -> str:
        parts = (type(self).__name__, _sha256_of(self._validation_file), generator())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def calibration_fingerprint(self) -> str:
        return self.fingerprint()

    def fingerprint(self) -> str:
        raise NotImplementedError

    def input_pool(self) -> "Pool":
        from catalog.statistics.input_draw import Pool, PoolInput

        rows = zip(self.input_ids(), self._sizes(), strict=True)
        return Pool([PoolInput(name, size, "image/jpeg") for name, size in rows])

    def _sizes(self) -> list[int]:
        """Return the size of each picture in bytes, generated once per workdir."""
        if self._kept is None:
            return list(map(len, self._pool))
        # What determines the pictures' bytes, the encoder's version included.
        key = self.inputs_fingerprint()
        place = self._kept / "sizes" / key
        sealed = unseal(place, key, names=())
        if sealed is not None:
            return [int(size) for size in sealed.content["bytes"]]
        sizes = list(map(len, self._pool))
        # Sealed in a directory of its own and then renamed, so that a killed run leaves no half list.
        with scratch(self._kept) as staging:
            (staging / key).mkdir()
            seal(staging / key, key, (), {"bytes": sizes})
            settle(staging / key, place)
        return sizes

    def input_ids(self) -> list[str]:
        return [f"{index:04d}.jpg" for index in range(POOL)]

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        for name in ids:
            index = self._index(name)
            # The same bytes as within the pool: every picture has a random state of its own.
            (picture,) = self.pictures(range(index, index + 1))
            (directory / name).write_bytes(picture)

    def largest(self, count: int) -> list[str]:
        self._check(count, POOL, "inputs")
        ids = self.input_ids()
        # Equal sizes in the order of the pool, so that the choice is the same everywhere.
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

    def item_count(self) -> int:
        return len(self.validation_garments.labels)

    def calibration(self, count: int) -> list[bytes]:
        images = self.calibration_garments.images
        self._check(count, len(images), "calibration images")
        return [png(image) for image in images[:count]]


class CanvasDataset(_Embedded):
    """`builtin:canvas`: scenes composed at run time from the shipped garments; `pinned` is their SHA-256."""

    def __init__(self, directory: Path, pinned: str, *, kept: Path | None = None) -> None:
        super().__init__(directory, kept=kept)
        self._pinned = pinned

    def pictures(self, indices: range) -> Iterable[bytes]:
        garments = self.validation_garments
        return canvas_pictures(garments.images, garments.labels, indices)

    def fingerprint(self) -> str:
        return self._pinned

    def write_items(self, path: Path) -> int:
        canvases = validation_canvases(self.validation_garments)
        digest = canvases_sha256(canvases)
        if digest != self._pinned:
            raise SubjectError(
                f"the composed validation canvases hash to {digest}, pinned is {self._pinned}: this NumPy composes "
                "other canvases than the model card's; use the versions of requirements.lock"
            )
        masks = np.stack([canvas.mask for canvas in canvases])
        write_encoded(path, (png(canvas.image) for canvas in canvases), {"mask": masks})
        return len(canvases)

    def item_count(self) -> int:
        return VALIDATION_CANVASES

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


def _read_garments(path: Path) -> Garments:
    with np.load(path, allow_pickle=False) as content:
        return Garments(content["images"], content["labels"].astype(np.int64))


# Needed for every plan; shipped files do not change while a process runs.
@cache
def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


BUILTIN = Path(__file__).parents[1] / "builtin"


@dataclass(frozen=True)
class SubjectFamily:
    """The settings that subjects of one task and dataset share."""

    task: Task
    dataset: str
    classes: int
    size: int
    mean: float
    std: float
    resize: str
    postprocess: Mapping[str, object]

    @property
    def preprocess(self) -> dict[str, object]:
        """The tier server's `Preprocess`."""
        return {
            "color": "gray",
            "height": self.size,
            "width": self.size,
            "resize": self.resize,
            "scale": 1 / 255,
            "mean": [self.mean],
            "std": [self.std],
            "layout": "nchw",
            "dtype": "float32",
        }


FASHION = SubjectFamily(
    task="classification",
    dataset="builtin:fashion",
    classes=10,
    size=28,
    mean=0.2860,  # of the training images
    std=0.3530,
    resize="shorter_side_crop",
    postprocess={"kind": "top_k", "k": 5, "softmax": True},
)
CANVAS = SubjectFamily(
    task="segmentation",
    dataset="builtin:canvas",
    classes=CLASSES,
    size=SIZE,
    mean=0.35,
    std=0.25,
    resize="stretch",
    postprocess={"kind": "label_map"},
)
SUBJECTS: Mapping[str, SubjectFamily] = {
    "builtin:fashion-resnet": FASHION,
    "builtin:fashion-resnext": FASHION,
    "builtin:canvas-fcn": CANVAS,
    "builtin:canvas-duc": CANVAS,
}


def resolve_subject(name: str, model: str, dataset: str, task: str, *, kept: Path | None = None) -> Subject:
    """Resolve an embedded subject; `kept` is a folder that keeps the sizes of its pictures."""
    family = SUBJECTS.get(model)
    if family is None:
        raise SubjectError(f"subject {name}: unknown model {model!r}; allowed: {', '.join(SUBJECTS)}")
    for what, got, allowed in (("dataset", dataset, family.dataset), ("task", task, family.task)):
        if got != allowed:
            raise SubjectError(f"subject {name}: {what} {got!r} does not go with {model}; allowed: {allowed}")
    path = BUILTIN / f"{model.removeprefix('builtin:')}.onnx"
    if not path.is_file():
        raise SubjectError(f"subject {name}: {path.name} is not in this installation; reinstall the package")
    data = _dataset(family, kept)
    return Subject(name, family.task, path, family.classes, family.preprocess, family.postprocess, data)


def builtin_dataset(name: str, *, kept: Path | None = None) -> Dataset | None:
    """Return the embedded dataset with this name, for its pictures alone; None if there is none."""
    # Subjects share families, so any of those with this dataset will do.
    family = next((member for member in SUBJECTS.values() if member.dataset == name), None)
    return None if family is None else _dataset(family, kept)


def manifest(name: str) -> dict[str, object]:
    """Read an embedded subject's manifest."""
    content: dict[str, object] = json.loads((BUILTIN / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _dataset(family: SubjectFamily, kept: Path | None) -> Dataset:
    if family is FASHION:
        return FashionDataset(BUILTIN, kept=kept)
    # Both subjects of canvases are judged on the same ones; either manifest pins them.
    pinned = manifest("canvas-fcn")["validation_canvases_sha256"]
    return CanvasDataset(BUILTIN, str(pinned), kept=kept)
