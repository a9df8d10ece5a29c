"""`dataset: {tensors: FILE.npz}`: one array per input of the model, samples along one axis, and `labels`.

Most models count samples along the first axis of an input (the batch), and are fed one at a time. The first axis of a
waveform or of a sequence that begins with time is part of one sample; the array then has an axis more than the input.
"""

import hashlib
import json
import random
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from catalog.foreign import lack_of, read_regular, require_regular
from runner.errors import SubjectError
from runner.graph.states import token_input
from runner.operators.base import listed
from runner.subjects.dataset import write_encoded
from runner.subjects.model_interface import ModelInput
from tierserver.encoding import write_tensors

if TYPE_CHECKING:
    from catalog.statistics.input_draw import Pool

# An axis of the model's input; `new`: one more, in front; `none`: the array is the same for all samples.
SampleAxis = int | Literal["new", "none"]
Array = NDArray[np.generic]


def default_axis(model_input: ModelInput, array: Array) -> SampleAxis:
    """Return the axis that the number of axes shows.

    Examples
    --------
    >>> waveform = ModelInput("audio", np.dtype(np.float32), (None,))
    >>> default_axis(waveform, np.zeros(20)), default_axis(waveform, np.zeros((20, 400)))
    (0, 'new')
    """
    if array.ndim != len(model_input.shape):
        return "new"
    return 0 if has_batch(model_input) else "none"


def usual_axis(model_input: ModelInput) -> SampleAxis:
    """Return the axis that most models have: the first, if it may count samples, else a new one."""
    return 0 if has_batch(model_input) else "new"


def has_batch(model_input: ModelInput) -> bool:
    """Return whether the first axis of an input may count samples, which are then fed one by one."""
    return bool(model_input.shape) and model_input.shape[0] in (None, 1)


def check_axes(axes: Mapping[str, SampleAxis], inputs: Mapping[str, ModelInput]) -> None:
    """Check declared axes against the model; raise SubjectError for the first that does not fit."""
    for name, axis in axes.items():
        if name not in inputs:
            raise SubjectError(f"sample_axis names {name!r}; allowed: the model's inputs {', '.join(inputs)}")
        shape = inputs[name].shape
        if isinstance(axis, int) and (axis >= len(shape) or shape[axis] not in (None, 1)):
            fitting = [str(index) for index, size in enumerate(shape) if size in (None, 1)]
            raise SubjectError(
                f"sample_axis of {name} is {axis}, and the model takes {inputs[name]}; allowed: "
                f"{', '.join([*fitting, 'new', 'none'])} (docs/own-model.md)"
            )


def fits(model_input: ModelInput, array: Array, axis: SampleAxis) -> bool:
    """Return whether the model can be fed with one sample of the array."""
    sample = array.shape[1:] if axis == "new" else array.shape
    return len(sample) == len(model_input.shape) and all(
        size in (None, length) or index == axis
        for index, (size, length) in enumerate(zip(model_input.shape, sample, strict=True))
    )


def sample_count(array: Array, axis: SampleAxis) -> int | None:
    """Return how many samples an array holds; None where it is the same for all."""
    return None if axis == "none" else array.shape[0 if axis == "new" else axis]


def settled_axes(axes: Mapping[str, SampleAxis], arrays: Mapping[str, Array]) -> dict[str, SampleAxis]:
    """Return the axes of samples; an array of one sample beside arrays of more is the same for all."""
    counts = {name: sample_count(arrays[name], axis) for name, axis in axes.items()}
    several = any(count is not None and count > 1 for count in counts.values())
    return {name: "none" if several and axis == 0 and counts[name] == 1 else axis for name, axis in axes.items()}


def one_sample(array: Array, axis: SampleAxis, index: int) -> Array:
    """Return what the model takes for one sample: an axis of the input that counts samples stays, with length 1."""
    if axis == "none":
        return array
    chosen: int | slice = index if axis == "new" else slice(index, index + 1)
    return np.asarray(array[(slice(None),) * (0 if axis == "new" else axis) + (chosen,)])


def token_count(inputs: Sequence[ModelInput], arrays: Mapping[str, Array], axes: Mapping[str, SampleAxis]) -> int:
    """Return how many tokens a sample has, which a mask and positions count that no array gives."""
    name = token_input(axes, [value.state for value in inputs if value.state is not None])
    sample = None if name is None else one_sample(arrays[name], axes[name], 0)
    return 1 if sample is None or not sample.ndim else sample.shape[min(1, sample.ndim - 1)]


def array_shape(model_input: ModelInput, axis: SampleAxis | None = None) -> str:
    """Return the shape that an array must have, as `audio: float32 [N, ?]` for N samples.

    Examples
    --------
    >>> array_shape(ModelInput("state", np.dtype(np.float32), (2, None, 128)), 1)
    'state: float32 [2, N, 128]'
    """
    if axis is None:
        axis = usual_axis(model_input)
    sizes = ["?" if size is None else str(size) for size in model_input.shape]
    if axis == "new":
        sizes.insert(0, "N")
    elif axis != "none":
        sizes[axis] = "N"
    return f"{model_input.name}: {model_input.dtype} [{', '.join(sizes)}]"


LABELS = "labels"
# Where an input of the model has this name, it marks the tokens of a text; the rest of a sample is padding.
_TOKEN_MARKS = "attention_mask"
# Fixed, because the choice decides which samples are judged.
_SEED = 20261129
_RESERVED_SHARE, _MOST_RESERVED = 10, 512


class TensorDataset:
    """A `Dataset` over a file of tensors; a tenth (at most 512 samples) calibrates and is not judged on.

    With `labels_apart`, neither the inputs nor what is calibrated with them depends on the array of labels. `declared`
    says of inputs along which axis their samples lie; of others the number of axes shows it.
    """

    def __init__(
        self,
        file: Path,
        inputs: Sequence[ModelInput],
        *,
        labels_apart: bool = False,
        declared: Mapping[str, SampleAxis] | None = None,
    ) -> None:
        self.file = file
        self.inputs = inputs
        self.labels_apart = labels_apart
        self.declared = declared or {}
        check_axes(self.declared, {model_input.name: model_input for model_input in inputs})

    def absent(self) -> str | None:
        return None if self.file.is_file() else f"{lack_of('file', self.file)}; expected {self._expected}"

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
        return write_tensors([one_sample(self._arrays[name], self.axes[name], index) for name in self._names])

    @cached_property
    def axes(self) -> Mapping[str, SampleAxis]:
        """The axis of each array along which its samples lie."""
        axes = {value.name: self._axis(value, self._arrays[value.name]) for value in self.inputs}
        return settled_axes(axes, self._arrays)

    def batch_remark(self) -> str | None:
        """Return how the first axis of arrays was read, where the model leaves another reading open."""
        read = [
            (model_input, self._arrays[model_input.name])
            for model_input in self.inputs
            if self.axes[model_input.name] == 0
            and model_input.shape[0] is None
            and model_input.name not in self.declared
        ]
        if not read:
            return None
        arrays = ", ".join(f"{model_input.name} {list(array.shape)}" for model_input, array in read)
        shapes = "; ".join(array_shape(model_input, "new") for model_input, _ in read)
        return (
            f"The first axis of {arrays} is read as {self._count} samples; if it belongs to one sample, give arrays of "
            f"one axis more ({shapes})"
        )

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
            samples = (one_sample(marks, self.axes[_TOKEN_MARKS], index) for index in range(self._count))
            tokens = [int(np.count_nonzero(sample)) for sample in samples]
            return Pool([PoolInput(*row) for row in zip(self.input_ids(), tokens, strict=True)], unit="tokens")
        elements = sum(one_sample(self._arrays[name], self.axes[name], 0).size for name in self._names)
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
        digest = b"tensors" + hashlib.sha256(read_regular(self.file)).digest()
        return hashlib.sha256(digest + self._unusual_axes).hexdigest()

    @cached_property
    def _inputs_sha256(self) -> str:
        digest = hashlib.sha256(b"inputs" + self._unusual_axes)
        for name in self._names:
            array = self._arrays[name]
            digest.update(f"{name} {array.dtype} {list(array.shape)} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def _unusual_axes(self) -> bytes:
        """Return the declared axes that the arrays do not show by themselves; they decide what is fed."""
        by_name = {model_input.name: model_input for model_input in self.inputs}
        unusual = {
            name: axis
            for name, axis in self.declared.items()
            if name not in self._made_up and axis != default_axis(by_name[name], self._arrays[name])
        }
        # A shape that was declared decides as well whether the first axis of an array counts samples.
        chosen = {value.name: value.shape for value in self.inputs if value.chosen}
        # Nothing where there are none, so that keys of data sets without declarations stay as they are.
        shown: object = [unusual, chosen] if chosen else unusual
        if self._made_up:
            shown = [unusual, chosen, {name: list(self._arrays[name].shape) for name in sorted(self._made_up)}]
        return json.dumps(shown, sort_keys=True).encode() if unusual or chosen or self._made_up else b""

    def _axis(self, model_input: ModelInput, array: NDArray[np.generic]) -> SampleAxis:
        if model_input.name in self._made_up:
            return "none"
        declared = self.declared.get(model_input.name)
        return default_axis(model_input, array) if declared is None else declared

    @cached_property
    def _count(self) -> int:
        counts = (sample_count(self._arrays[name], self.axes[name]) for name in self._names)
        return next(count for count in counts if count is not None)

    @cached_property
    def _calibration(self) -> list[int]:
        reserved = min(_MOST_RESERVED, max(1, self._count // _RESERVED_SHARE))
        return random.Random(_SEED).sample(range(self._count), reserved)

    @property
    def _expected(self) -> str:
        needed = [value for value in self.inputs if not value.can_be_left_out]
        shown = "; ".join(array_shape(value, self.declared.get(value.name)) for value in needed)
        expected = f"a .npz with one array for each input, N samples along one axis ({shown}), and optionally `labels`"
        others = [value.name for value in self.inputs if value.can_be_left_out]
        return f"{expected} and first states ({listed(others)}: zeros without)" if others else expected

    @cached_property
    def _made_up(self) -> frozenset[str]:
        """The inputs that the file has no arrays for, and that are fed with the same for all samples."""
        return frozenset(
            value.name for value in self.inputs if value.can_be_left_out and value.name not in self._stored
        )

    @cached_property
    def _stored(self) -> Mapping[str, Array]:
        """The arrays of the file that are used."""
        try:
            require_regular(self.file)
            if not zipfile.is_zipfile(self.file):  # numpy would take it for pickled data and advise to trust it
                raise ValueError("it is not an archive of arrays, as numpy.savez writes")
            with np.load(self.file, allow_pickle=False) as content:
                # Other arrays may be large, or objects that only pickle could read.
                return {name: content[name] for name in content.files if name in (*self._names, LABELS)}
        # What numpy and zipfile raise depends on where a file is damaged.
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError, AttributeError) as error:
            raise SubjectError(
                f"{self.file} is not a readable file of tensors: {error}; expected {self._expected}"
            ) from error

    @cached_property
    def _arrays(self) -> Mapping[str, Array]:
        """The arrays of the file, checked, and those that it may leave out."""
        arrays = dict(self._stored)
        axes: dict[str, SampleAxis] = {}
        for model_input in (value for value in self.inputs if value.name not in self._made_up):
            problem = _problem(model_input, arrays, self.declared.get(model_input.name))
            if problem is not None:
                raise SubjectError(f"{self.file}: {problem}; expected {self._expected}")
            axes[model_input.name] = self._axis(model_input, arrays[model_input.name])
        axes = settled_axes(axes, arrays)
        tokens = token_count(self.inputs, arrays, axes)
        arrays |= {value.name: value.first_value(tokens) for value in self.inputs if value.name in self._made_up}
        counts = {name: sample_count(arrays[name], axis) for name, axis in axes.items()}
        # At least one sample calibrates, and one must be left to judge.
        numbers = {count for count in counts.values() if count is not None}
        if len(numbers) != 1 or min(numbers) < 2:
            raise SubjectError(f"{self.file} holds {counts} samples; allowed: equally many for each input, at least 2")
        return arrays


def _problem(
    model_input: ModelInput, arrays: Mapping[str, NDArray[np.generic]], declared: SampleAxis | None
) -> str | None:
    """Return what keeps an array from being fed to an input, one sample at a time; None where nothing does."""
    if model_input.name not in arrays:
        following = next(iter(model_input.next_values), None)
        declaration = f"input: {{states: {{{model_input.name}: {following}}}}}"
        hint = (
            f"; if it is a state that an output gives the next value of, declare it: {declaration}" if following else ""
        )
        return f"there is no array {model_input.name!r} (present: {', '.join(arrays) or 'none that is used'}){hint}"
    array = arrays[model_input.name]
    if array.dtype != model_input.dtype:
        return f"{model_input.name} is {array.dtype}, the model takes {model_input.dtype}; convert it with .astype"
    if fits(model_input, array, default_axis(model_input, array) if declared is None else declared):
        return None
    also = ""
    if declared is None and model_input.shape[:1] == (None,):
        also = f"; also allowed, where its first axis belongs to one sample: {array_shape(model_input, 'new')}"
    return f"{model_input.name} has the shape {list(array.shape)}, and one sample of the model is {model_input}{also}"
