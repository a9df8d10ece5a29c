"""What a model of one's own takes: read from its file, weights left where they are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from runner.errors import ModelFileError, SubjectError
from runner.graph import read_model


@dataclass(frozen=True)
class Taken:
    """A graph input; None for a dimension that is free."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def read_inputs(path: Path) -> tuple[Taken, ...]:
    """The inputs of a model; raises SubjectError for a file that is no model, or is one that takes no tensors."""
    try:
        graph = read_model(path).graph
    except ModelFileError as error:
        raise SubjectError(
            f"{error}; allowed: an ONNX file that is whole, with external data (if any) in its own folder. "
            "Export the model again, or copy it again with its data files"
        ) from error
    stored = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_taken(value, path) for value in graph.input if value.name not in stored)
    if not inputs:
        raise SubjectError(f"{path.name} has no inputs; allowed: a model with at least one. Export it with its input")
    return inputs


def _taken(value: onnx.ValueInfoProto, path: Path) -> Taken:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise SubjectError(
            f"{path.name}: the input {value.name!r} has no declared tensor shape; allowed: tensors with a known number "
            "of dimensions. Export the model with a declared input"
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise SubjectError(f"{path.name}: the input {value.name!r} has an unknown type; allowed: numbers") from error
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim
    )
    return Taken(value.name, dtype, shape)
