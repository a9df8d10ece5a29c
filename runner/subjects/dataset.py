"""Subjects and the datasets they are judged on; the two embedded datasets."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.embedded.images import Bytes

Task = Literal["classification", "segmentation", "any"]
Metric = Literal["accuracy", "agreement"] | None


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
