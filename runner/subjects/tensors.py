"""`dataset: {tensors: FILE.npz}`: one array per input of the model, samples along the first axis, and `labels`."""

import hashlib
import random
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runner.errors import SubjectError
from runner.subjects.dataset import write_encoded
from runner.subjects.model_interface import ModelInput
from tierserver.encoding import write_tensors

if TYPE_CHECKING:
    from catalog.statistics.input_draw import Pool

LABELS = "labels"
# Where an input of the model has this name, it marks the tokens of a text; the rest of a sample is padding.
_TOKEN_MARKS = "attention_mask"
# Fixed, because the choice decides which samples are judged.
_SEED = 20261129
_RESERVED_SHARE, _MOST_RESERVED = 10, 512


class TensorDataset:
    """A `Dataset` over a file of tensors; a tenth (at most 512 samples) calibrates and is not judged on.

    With `labels_apart`, neither the inputs nor what is calibrated with them depends on the array of labels.
    """

    def __init__(self, file: Path, inputs: Sequence[ModelInput], *, labels_apart: bool = False) -> None:
        self.file = file
        self.inputs = inputs
        self.labels_apart = labels_apart

    def absent(self) -> str | None:
        return None if self.file.is_file() else f"there is no file {self.file}; expected {self._expected}"

    def fingerprint(self) -> str:
        return self._sha256

    def inputs_fingerprint(self) -> str:
        return self._inputs_sha256 if self.labels_apart else self._sha256

    def calibration_fingerprint(self) -> str:
        # Which samples calibrate follows from their number, so that the inputs determine them.
        return self._inputs_sha256 if self.labels_apart else self.fingerprint()

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Return the class numbers if the file has them and no input of the model is called `labels`."""
        labels = None if LABELS in self._names else self._arrays.get(LABELS)
        if labels is None:
            return None
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != self._count:
            raise SubjectError(
                f"{self.file}: labels are {labels.dtype} {list(labels.shape)}; allowed: one class number (an integer) "
                f"for each of the {self._count} samples"
            )
        return labels.astype(np.int64)

    @property
    def items(self) -> list[int]:
        """Return the samples that are judged."""
        reserved = set(self._calibration)
        return [index for index in range(self._count) if index not in reserved]

    def sample(self, index: int) -> bytes:
        """Return one sample as a tier takes it."""
        samples = ((model_input, self._arrays[model_input.name][index]) for model_input in self.inputs)
        return write_tensors([array[None] if _by_batch(model_input) else array for model_input, array in samples])

    def write_items(self, path: Path) -> int:
        labels = self.labels
        if labels is None:
            raise SubjectError(f"{self.file} has no array `labels`, so there is nothing to judge by; add it")
        self.write_judged(path, labels[self.items])
        return len(self.items)

    def item_count(self) -> int:
        return 0 if self.labels is None else len(self.items)

    def write_judged(self, path: Path, labels: NDArray[np.int64]) -> None:
        """Write the items with these labels."""
        write_encoded(path, map(self.sample, self.items), {"label": labels})

    def label_counts(self) -> Mapping[str, int]:
        """Return of how many judged items each class is the declared label; empty where they have no labels."""
        labels = self.labels
        return {} if labels is None else Counter(map(str, labels[self.items].tolist()))

    def check_truth(self) -> None:
        self.label_counts()

    def calibration(self, count: int) -> list[bytes]:
        return [self.sample(index) for index in self._calibration[:count]]

    def input_ids(self) -> list[str]:
        return [f"{index:06d}" for index in range(self._count)]

    def input_pool(self) -> "Pool":
        from catalog.statistics.input_draw import Pool, PoolInput

        marks = self._arrays.get(_TOKEN_MARKS) if _TOKEN_MARKS in self._names else None
        if marks is not None:
            tokens = np.count_nonzero(marks.reshape(self._count, -1), axis=1).tolist()
            return Pool([PoolInput(*row) for row in zip(self.input_ids(), tokens, strict=True)], unit="tokens")
        elements = sum(self._arrays[name][0].size for name in self._names)
        return Pool([PoolInput(name, elements) for name in self.input_ids()], unit="elements")

    def write_inputs(self, directory: Path, ids: Sequence[str]) -> None:
        for name in ids:
            (directory / name).write_bytes(self.sample(int(name)))

    def largest(self, count: int) -> list[str]:
        if not 0 < count <= self._count:
            raise SubjectError(f"{self.file}: asked for {count} inputs; allowed: 1 to {self._count}")
        return self.input_ids()[:count]  # all are equally large

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(model_input.name for model_input in self.inputs)

    @cached_property
    def _sha256(self) -> str:
        # With the kind, so that the same bytes declared as something else have another fingerprint.
        return hashlib.sha256(b"tensors" + hashlib.sha256(self.file.read_bytes()).digest()).hexdigest()

    @cached_property
    def _inputs_sha256(self) -> str:
        digest = hashlib.sha256(b"inputs")
        for name in self._names:
            array = self._arrays[name]
            digest.update(f"{name} {array.dtype} {list(array.shape)} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def _count(self) -> int:
        return len(self._arrays[self._names[0]])

    @cached_property
    def _calibration(self) -> list[int]:
        reserved = min(_MOST_RESERVED, max(1, self._count // _RESERVED_SHARE))
        return random.Random(_SEED).sample(range(self._count), reserved)

    @property
    def _expected(self) -> str:
        shown = "; ".join(map(str, self.inputs))
        return f"a .npz with one array for each input, samples along its first axis ({shown}), and optionally `labels`"

    @cached_property
    def _arrays(self) -> Mapping[str, NDArray[np.generic]]:
        try:
            if not zipfile.is_zipfile(self.file):  # numpy would take it for pickled data and advise to trust it
                raise ValueError("it is not an archive of arrays, as numpy.savez writes")
            with np.load(self.file, allow_pickle=False) as content:
                # Other arrays may be large, or objects that only pickle could read.
                arrays = {name: content[name] for name in content.files if name in (*self._names, LABELS)}
        # What numpy and zipfile raise depends on where a file is damaged.
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError, AttributeError) as error:
            raise SubjectError(
                f"{self.file} is not a readable file of tensors: {error}; expected {self._expected}"
            ) from error
        problems = [problem for model_input in self.inputs for problem in _problems(model_input, arrays)]
        if problems:
            raise SubjectError(f"{self.file}: {problems[0]}; expected {self._expected}")
        # At least one sample calibrates, and one must be left to judge.
        counts = {name: len(arrays[name]) for name in self._names}
        if len(set(counts.values())) > 1 or min(counts.values()) < 2:
            raise SubjectError(f"{self.file} holds {counts} samples; allowed: equally many for each input, at least 2")
        return arrays


def _problems(model_input: ModelInput, arrays: Mapping[str, NDArray[np.generic]]) -> Iterator[str]:
    """Yield what keeps an array from being fed to an input, one sample at a time."""
    if model_input.name not in arrays:
        yield f"there is no array {model_input.name!r} (present: {', '.join(arrays) or 'none that is used'})"
        return
    array = arrays[model_input.name]
    if array.dtype != model_input.dtype:
        yield f"{model_input.name} is {array.dtype}, the model takes {model_input.dtype}; convert it with .astype"
    sample = array.shape[1:]
    expected = model_input.shape[1:] if _by_batch(model_input) else model_input.shape
    if (
        array.ndim == 0
        or len(sample) != len(expected)
        or any(fixed not in (None, size) for fixed, size in zip(expected, sample, strict=True))
    ):
        yield f"{model_input.name} has the shape {list(array.shape)}, and one sample of the model is {model_input}"


def _by_batch(model_input: ModelInput) -> bool:
    """Return whether the first axis of the input counts samples; otherwise the samples have an additional axis."""
    return len(model_input.shape) > 0 and model_input.shape[0] in (None, 1)
