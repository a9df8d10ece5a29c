"""Calibration inputs: ready tensors as the model takes them, from a subject's dataset or from files."""

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.foreign import require_regular
from runner.artifacts.model_runs import ModelInputs
from runner.errors import SubjectError
from runner.graph.model_file import read_model
from runner.graph.tensor_trial import counts_samples
from runner.operators.base import in_order
from runner.subjects.dataset import CalibrationFiles, Subject
from runner.subjects.model_interface import ModelInput, guess_count, read_inputs
from runner.subjects.tensors import (
    SampleAxis,
    array_shape,
    default_axis,
    fits,
    one_sample,
    sample_count,
    settled_axes,
    token_count,
)
from tierserver.encoding import read_tensors
from tierserver.errors import TierError
from tierserver.imaging import preprocess
from tierserver.messages import Preprocess

Array = NDArray[np.generic]
# From a count to as many inputs, so that a dataset is read only where a pass or a proof needs it.
CalibrationSource = Callable[[int], Sequence[ModelInputs]]


@dataclass(frozen=True)
class Calibration:
    """What a model takes at once, many times, and the name of the source."""

    arrays: Sequence[ModelInputs] = ()
    source: str = "none"

    @property
    def sha256(self) -> str:
        """The SHA-256 of shapes, types and values, in order."""
        digest = hashlib.sha256()
        for array in (array for arrays in self.arrays for array in in_order(arrays)):
            # The same bytes in another type or shape are other numbers.
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class _ModelInput:
    """The input of a model that has one; None for a free dimension."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def subject_calibration(subject: Subject) -> CalibrationSource:
    """Return the source of a subject's calibration inputs, pre-processed as a tier does it."""
    settings = Preprocess.from_json(subject.preprocess)

    def read(count: int) -> Sequence[ModelInputs]:
        encoded = subject.dataset.calibration(count)
        if settings.kind == "tensors":
            samples = [read_tensors(sample) for sample in encoded]
            return [sample[0] if len(sample) == 1 else tuple(sample) for sample in samples]
        return [_preprocessed(subject, index, image, settings) for index, image in enumerate(encoded)]

    return read


def _preprocessed(subject: Subject, index: int, encoded: bytes, settings: Preprocess) -> Array:
    """Pre-process one calibration picture; raise SubjectError with its file where it cannot be decoded."""
    try:
        return preprocess(encoded, settings)
    except TierError as error:
        dataset = subject.dataset
        place = dataset.calibration_file(index) if isinstance(dataset, CalibrationFiles) else f"number {index + 1}"
        raise SubjectError(f"calibration picture {place}: {error}. Repair the file, or take it out") from error


def read_calibration(path: Path, model: Path) -> Calibration:
    """Read a `.npz` or `.npy` file, or a directory of them in the order of their names.

    Parameters
    ----------
    path
        Arrays of the input's shape, or many inputs along the first axis; names do not matter. For a model with several
        inputs, an array for each in every `.npz` file, named like it, with samples as `dataset: {tensors}` has them.
    model
        The model that they are for.

    Returns
    -------
    Calibration

    Raises
    ------
    SubjectError
        When there is nothing to read, or an array does not fit the model's input.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy")) if path.is_dir() else [path]
    if not guess_count(model):
        return _calibration(path, files, model, read_inputs(model, measured=False))
    *likely, last = _likely_inputs(model, files)
    for inputs in likely:
        with contextlib.suppress(SubjectError):
            return _calibration(path, files, model, inputs)
    return _calibration(path, files, model, last)


def _likely_inputs(model: Path, files: Sequence[Path]) -> list[tuple[ModelInput, ...]]:
    """Return the guesses at inputs of open shape, those first that have as many axes as the arrays of the files."""
    axes = {array.ndim for file in files for array in _arrays(file).values()}
    guesses = [read_inputs(model, measured=False, guess=guess) for guess in range(guess_count(model))]
    return sorted(guesses, key=lambda inputs: any(len(value.shape) not in axes for value in inputs))


def _calibration(path: Path, files: Sequence[Path], model: Path, by_name: Sequence[ModelInput]) -> Calibration:
    """Read files as inputs of a model; see `read_calibration`."""
    if len(by_name) > 1:
        return Calibration([sample for file in files for sample in _samples(file, by_name)], path.name)
    model_input = _ModelInput(by_name[0].name, by_name[0].dtype, by_name[0].shape)
    reader = _ArrayReader(model, model_input)
    inputs: list[Array] = []
    for file in files:
        for name, array in _arrays(file).items():
            inputs += reader.inputs(array, f"{file.name}, array {name!r}")
    if not inputs:
        raise SubjectError(f"{path} holds no calibration inputs; give .npz or .npy files with arrays {model_input}")
    return Calibration(inputs, path.name)


def _samples(file: Path, inputs: Sequence[ModelInput]) -> Iterator[tuple[Array, ...]]:
    """Yield the samples of a file with an array for each input of a model."""
    arrays = dict(_arrays(file))
    made_up = {value.name for value in inputs if value.can_be_left_out and value.name not in arrays}
    shapes = "; ".join(array_shape(model_input) for model_input in inputs if not model_input.can_be_left_out)
    axes: dict[str, SampleAxis] = {}
    for model_input in (value for value in inputs if value.name not in made_up):
        name, array = model_input.name, arrays.get(model_input.name)
        if array is None:
            raise SubjectError(f"{file.name} has no array {name!r}; give one for each input: {shapes}")
        axes[name] = default_axis(model_input, array)
        if array.dtype != model_input.dtype or not fits(model_input, array, axes[name]):
            raise SubjectError(f"{file.name}, array {name!r} is {array.dtype} {list(array.shape)}; give {shapes}")
    axes = settled_axes(axes, arrays)
    counts = {count for name, axis in axes.items() if (count := sample_count(arrays[name], axis)) is not None}
    if len(counts) > 1:
        raise SubjectError(f"{file.name} has arrays of {sorted(counts)} samples; give equally many for each input")
    tokens = token_count(inputs, arrays, axes)
    arrays |= {value.name: value.first_value(tokens) for value in inputs if value.name in made_up}
    for index in range(min(counts, default=1)):
        yield tuple(one_sample(arrays[value.name], axes.get(value.name, "none"), index) for value in inputs)


def _arrays(file: Path) -> Mapping[str, Array]:
    try:
        require_regular(file)
        # A pickle may run code while it is read.
        content = np.load(file, allow_pickle=False)
        return {"": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise SubjectError(
            f"{file} is not a readable .npz or .npy file: {error}. Images need the model's own pre-processing first: "
            "save the tensors it makes with numpy.savez"
        ) from error


@dataclass(frozen=True)
class _ArrayReader:
    """Reads arrays as inputs of a model that takes one."""

    model: Path
    model_input: _ModelInput

    @cached_property
    def _stacks(self) -> bool:
        """Whether the input's first axis counts samples; the first axis of a waveform is its length."""
        free = self.model_input.shape[:1] == (None,)
        # With four axes, the first of which is free, they are pictures.
        if not free or len(self.model_input.shape) == 4:
            return True
        counts = counts_samples(read_model(self.model))
        # A single axis is a length, unless runs show that it is none.
        return counts is True or (counts is None and len(self.model_input.shape) > 1)

    def inputs(self, array: Array, where: str) -> Iterator[Array]:
        """Return an array as inputs of the model: one, one without its batch axis, or many along the first axis."""
        model_input = self.model_input
        # The width is converted below, the kind is not: integers for floats would be pixels without pre-processing.
        if array.dtype.kind != model_input.dtype.kind:
            raise SubjectError(
                f"{where} is {array.dtype}, and the model's input {model_input.name!r} takes {model_input}"
            )
        values, rank = array.astype(model_input.dtype, copy=False), len(model_input.shape)
        single = rank > 0 and model_input.shape[0] in (None, 1)
        batch = single and array.ndim == rank and _fits((1, *array.shape[1:]), model_input.shape)
        if batch and (len(values) == 1 or self._stacks):
            return (values[index : index + 1] for index in range(len(values)))
        if array.ndim == rank and _fits(array.shape, model_input.shape):
            return iter([values])
        if array.ndim == rank + 1 and _fits(array.shape[1:], model_input.shape):
            # An element of an array of numbers is no array.
            return (np.asarray(values[index]) for index in range(len(values)))
        if single and array.ndim == rank - 1 and _fits((1, *array.shape), model_input.shape):
            return iter([values[None]])
        raise SubjectError(
            f"{where} has the shape {list(array.shape)}, and the model's input {model_input.name!r} takes "
            f"{model_input}; give arrays of that shape, or many of them along the first axis"
        )


def _fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(shape) == len(declared) and all(
        expected is None or size == expected for size, expected in zip(shape, declared, strict=True)
    )
