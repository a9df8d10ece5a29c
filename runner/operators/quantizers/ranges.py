"""The limits of int8: which nodes stay in floats because of their numbers, and whether every scale is usable.

Two kinds of nodes stay in floats. A Clip whose bounds leave out zero: the quantizer takes the limits of uint8 for the
bounds, and the range of a quantized tensor always holds zero. And masks: one scale for -inf (or -1e9) and for the
numbers beside it leaves no precision. So constants of that size, what is computed with them, and the nodes that read
the results are not quantized, until the numbers are of an ordinary size again (after the Softmax).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from runner.graph import ModelFile
from runner.graph.model_file import is_external

# Masks are -inf, the least float, the least half (-65504), -1e9 or -1e4; weights and activations are far smaller.
_MASKING = 1e4
# Without a constant that says so, only what no activation reaches counts as a mask.
_BEYOND_ACTIVATIONS = 1e30
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
# What combines a mask with numbers; a large element in the weights of a convolution or matrix product is no mask.
_COMBINING = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Min", "Max", "Sum"})
# What passes a constant on without changing its magnitude.
_MOVING = frozenset(
    {"Cast", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Slice", "Tile", "Identity", "Trilu", "Neg"}
    | {"Gather", "Concat"}
)
_SCALED = frozenset({"QuantizeLinear", "DequantizeLinear", "QGemm"})

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class _Constants:
    """Values of a graph's constants, read where they are needed."""

    tensors: Mapping[str, TensorProto]
    file: ModelFile

    @classmethod
    def of(cls, file: ModelFile) -> "_Constants":
        """Gather the initializers and the Constant nodes of a graph."""
        tensors = {tensor.name: tensor for tensor in file.graph.initializer}
        for node in file.graph.node:
            value = next((entry.t for entry in node.attribute if entry.name in ("value", "value_float")), None)
            if (
                node.op_type in ("Constant", "ConstantOfShape")
                and value is not None
                and value.data_type
                and not is_external(value)
            ):
                tensors[node.output[0]] = value
        return cls(tensors, file)

    def value(self, name: str) -> NDArray[np.float64] | None:
        """Return a constant's numbers; None if the tensor is not a constant of floats."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.data_type not in _FLOATS:
            return None
        return numpy_helper.to_array(self.file.whole_tensor(tensor)).astype(np.float64)

    def masks(self, name: str) -> bool:
        """Return whether a constant holds numbers of a mask's size."""
        value = self.value(name)
        return value is not None and not bool((np.abs(value) < _MASKING).all())


def float_nodes(file: ModelFile, ranges: Ranges) -> list[int]:
    """Return which nodes of the graph must not be quantized.

    Parameters
    ----------
    file
        The model.
    ranges
        Least and greatest value of every measured activation.

    Returns
    -------
    list of int
        Indices of nodes, in order.
    """
    constants = _Constants.of(file)
    masked = _masked_tensors(file.graph, constants, ranges)
    return [
        index
        for index, node in enumerate(file.graph.node)
        if not masked.isdisjoint((*node.input, *node.output))
        or (node.op_type == "Clip" and not _clips_at_zero(node, constants))
    ]


def unusable_scale(file: ModelFile) -> str | None:
    """Return the first scale of a quantized graph that is not finite or not above zero, as `NAME is VALUE`."""
    constants = _Constants.of(file)
    for node in file.graph.node:
        if node.op_type not in _SCALED and not node.op_type.startswith("QLinear"):
            continue
        # Of float inputs, the first of a QuantizeLinear alone is no scale: it is what is quantized.
        for name in node.input[1:] if node.op_type == "QuantizeLinear" else node.input:
            scale = constants.value(name)
            if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
                return f"{name!r} is {scale.min():g}"
    return None


def _masked_tensors(graph: onnx.GraphProto, constants: _Constants, ranges: Ranges) -> set[str]:
    """Return the tensors that hold numbers of a mask's size, constants first."""
    masked = {name for name, (low, high) in ranges.items() if not max(abs(low), abs(high)) < _BEYOND_ACTIVATIONS}
    for node in graph.node:
        if node.op_type in _COMBINING | _MOVING:
            masked.update(name for name in node.input if name not in masked and constants.masks(name))
        if masked.isdisjoint(node.input):
            continue
        for name in node.output:
            low, high = ranges.get(name, (-np.inf, np.inf) if node.op_type in _COMBINING | _MOVING else (0.0, 0.0))
            if not max(abs(low), abs(high)) < _MASKING:
                masked.add(name)
    return masked


def _clips_at_zero(node: onnx.NodeProto, constants: _Constants) -> bool:
    """Return whether zero is within the bounds, as in every quantized range; unknown bounds do not count."""
    for name, sign in zip(node.input[1:], (1, -1), strict=False):
        bound = constants.value(name) if name else np.zeros(1)
        if bound is None or bound.size != 1 or sign * float(bound.ravel()[0]) > 0:
            return False
    return True
