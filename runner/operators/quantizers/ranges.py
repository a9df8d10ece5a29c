"""The limits of int8: which nodes stay in floats because of their numbers, and whether every scale is usable.

Two kinds of nodes stay in floats. A Clip whose bounds leave out zero: the quantizer takes the limits of uint8 for the
bounds, and the range of a quantized tensor always holds zero. And masks: one scale for -inf (or -1e9) and for the
numbers beside it leaves no precision. So constants of that size, what is computed with them, and the nodes that read
the results are not quantized, until the numbers are of an ordinary size again (after the Softmax). A smaller constant
is a mask too where it is many times as large as all that it is combined with.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from runner.graph.model_file import ModelFile, is_external

# Masks are -inf, the least float, the least half (-65504), -1e9 or -1e4; weights and activations are far smaller.
_MASKING = 1e4
# A constant below that is a mask from here on if it is so many times as large as the numbers beside it: their range
# would keep three or four bits of eight.
_LEAST_MASK = 100.0
_FAR_BEYOND = 16.0
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
# What puts numbers of a mask's size beside others, or adds one to the other.
_SELECTING = frozenset({"Add", "Sub", "Where", "Min", "Max", "Sum"})
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

    def magnitude(self, name: str) -> float:
        """Return a constant's greatest absolute value: infinity for NaN, and 0 where it is not a constant of floats."""
        value = self.value(name)
        if value is None or not value.size:
            return 0.0
        greatest = float(np.abs(value).max())
        return np.inf if np.isnan(greatest) else greatest


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
        if not masked.keys().isdisjoint((*node.input, *node.output))
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


def name_nodes(source: Path, indices: Sequence[int]) -> list[str]:
    """Return the names of these nodes of a file; name those without a unique name, since tools know nodes by name."""
    if not indices:
        return []
    model = onnx.load(source, load_external_data=False)
    counts = Counter(node.name for node in model.graph.node)
    nodes = [model.graph.node[index] for index in indices]
    nameless = [node for node in nodes if not node.name or counts[node.name] > 1]
    for node in nameless:
        node.name = f"{node.name or node.op_type}/{node.output[0]}"
    if nameless:
        onnx.save(model, source)
    return [node.name for node in nodes]


def _masked_tensors(graph: onnx.GraphProto, constants: _Constants, ranges: Ranges) -> Mapping[str, float]:
    """Return the tensors that hold numbers of a mask's size, and from which size on; constants first."""
    masked = {name: _MASKING for name, bounds in ranges.items() if not _greatest(bounds) < _BEYOND_ACTIVATIONS}
    fixed = {"", *constants.tensors, *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
        if node.op_type in _COMBINING | _MOVING:
            beside = _greatest_beside(node, fixed, ranges)
            for name in node.input:
                computed = name in fixed and name in ranges
                size = _mask_size(_greatest(ranges[name]) if computed else constants.magnitude(name), beside)
                if name not in masked and size is not None:
                    masked[name] = size
        sizes = [masked[name] for name in node.input if name in masked]
        for name in node.output if sizes else ():
            ordinary = (-np.inf, np.inf) if node.op_type in _COMBINING | _MOVING else (0.0, 0.0)
            if not _greatest(ranges.get(name, ordinary)) < min(sizes):
                masked[name] = min(sizes)
    return masked


def _mask_size(magnitude: float, beside: float | None) -> float | None:
    """Return from which size on numbers belong to a mask if a constant of this magnitude is one, None if it is not."""
    if not magnitude < _MASKING:
        return _MASKING
    if beside is not None and magnitude >= max(_LEAST_MASK, _FAR_BEYOND * beside):
        return magnitude / 2
    return None


def _greatest_beside(node: onnx.NodeProto, fixed: Collection[str], ranges: Ranges) -> float | None:
    """Return the greatest value of what a node combines with constants; None where it scales them or none is known."""
    measured = [_greatest(ranges[name]) for name in node.input if name in ranges and name not in fixed]
    return max(measured) if measured and node.op_type in _SELECTING else None


def _greatest(bounds: tuple[float, float]) -> float:
    """Return the greatest absolute value within a range: NaN if a bound is."""
    return float(np.max(np.abs(bounds)))


def _clips_at_zero(node: onnx.NodeProto, constants: _Constants) -> bool:
    """Return whether zero is within the bounds, as in every quantized range; unknown bounds do not count."""
    for name, sign in zip(node.input[1:], (1, -1), strict=False):
        bound = constants.value(name) if name else np.zeros(1)
        if bound is None or bound.size != 1 or sign * float(bound.ravel()[0]) > 0:
            return False
    return True
