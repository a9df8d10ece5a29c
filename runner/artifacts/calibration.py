"""Calibration inputs: ready tensors as the model takes them, from a subject's dataset or from files."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from runner.artifacts.model_runs import ModelInputs
from runner.errors import SubjectError
from runner.graph.model_file import read_model
from runner.graph.shapes import declared_size
from runner.subjects.dataset import CalibrationFiles, Subject
from tierserver.encoding import read_tensors
from tierserver.errors import TierError
from tierserver.imaging import preprocess
from tierserver.messages import Preprocess

Array = NDArray[np.generic]
# From a count to as many inputs, so that a dataset is read only where a pass or a proof needs it.
CalibrationSource = Callable[[int], Sequence[ModelInputs]]


@dataclass(frozen=True)
class Calibration:
    """Inputs of a model, each of its input shape, and the name of their source."""

    arrays: Sequence[Array] = ()
    source: str = "none"

    @property
    def sha256(self) -> str:
        """The SHA-256 of shapes, types and values, in order."""
        digest = hashlib.sha256()
        for array in self.arrays:
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


def first_inputs(inputs: Sequence[ModelInputs]) -> Sequence[Array]:
    """Return the first array of each input, for passes: those that calibrate refuse models of several inputs."""
    return [arrays[0] if isinstance(arrays, tuple) else arrays for arrays in inputs]


def read_calibration(path: Path, model: Path) -> Calibration:
    """Read a `.npz` or `.npy` file, or a directory of them in the order of their names.

    Parameters
    ----------
    path
        Arrays of the input's shape, or many inputs along the first axis. Names do not matter.
    model
        A model with one input.

    Returns
    -------
    Calibration

    Raises
    ------
    SubjectError
        When there is nothing to read, or an array does not fit the model's input.
    """
    model_input = _model_input(model)
    files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy")) if path.is_dir() else [path]
    inputs: list[Array] = []
    for file in files:
        for name, array in _arrays(file).items():
            inputs += _inputs(array, model_input, f"{file.name}, array {name!r}")
    if not inputs:
        raise SubjectError(f"{path} holds no calibration inputs; give .npz or .npy files with arrays {model_input}")
    return Calibration(inputs, path.name)


def _arrays(file: Path) -> Mapping[str, Array]:
    try:
        # A pickle may run code while it is read.
        content = np.load(file, allow_pickle=False)
        return {"": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise SubjectError(
            f"{file} is not a readable .npz or .npy file: {error}. Images need the model's own pre-processing first: "
            "save the tensors it makes with numpy.savez"
        ) from error


def _inputs(array: Array, model_input: _ModelInput, where: str) -> Iterator[Array]:
    """Return an array as inputs of the model: one, one without its batch axis, or many along the first axis."""
    # The width is converted below, the kind is not: integers for floats would be pixels without pre-processing.
    if array.dtype.kind != model_input.dtype.kind:
        raise SubjectError(f"{where} is {array.dtype}, and the model's input {model_input.name!r} takes {model_input}")
    values, rank = array.astype(model_input.dtype, copy=False), len(model_input.shape)
    single = rank > 0 and model_input.shape[0] in (None, 1)
    if single and array.ndim == rank and _fits((1, *array.shape[1:]), model_input.shape):
        return (values[index : index + 1] for index in range(len(values)))
    if array.ndim == rank and _fits(array.shape, model_input.shape):
        return iter([values])
    if array.ndim == rank + 1 and _fits(array.shape[1:], model_input.shape):
        return iter(values)
    if single and array.ndim == rank - 1 and _fits((1, *array.shape), model_input.shape):
        return iter([values[None]])
    raise SubjectError(
        f"{where} has the shape {list(array.shape)}, and the model's input {model_input.name!r} takes {model_input}; "
        "give arrays of that shape, or many of them along the first axis"
    )


def _fits(shape: Sequence[int], declared: Sequence[int | None]) -> bool:
    return len(shape) == len(declared) and all(
        expected is None or size == expected for size, expected in zip(shape, declared, strict=True)
    )


def _model_input(model: Path) -> _ModelInput:
    graph = read_model(model).graph
    # Before IR version 4 every initializer had to be listed among the inputs too.
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise SubjectError(f"calibration inputs are for models with one input; {model.name} has {len(inputs)}: {names}")
    tensor = inputs[0].type.tensor_type
    shape = tuple(map(declared_size, tensor.shape.dim))
    return _ModelInput(inputs[0].name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
