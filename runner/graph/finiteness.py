"""Which tensors of a graph may hold infinities or NaN although the model's inputs are ordinary numbers."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

# What gives finite numbers for finite numbers, short of an overflow. Excluded: Log, Exp, Pow, Reciprocal, Div.
_FINITE = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"GroupNormalization", "Add", "Sub", "Mul", "Sum", "Mean", "Max", "Min", "Neg", "Abs", "Where"}
    | {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"}
    | {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softmax"}
    | {"Erf", "Gelu", "Mish", "Softsign", "ThresholdedRelu"}
    | {"Concat", "Split", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity"}
    | {"Resize", "Upsample", "Pad", "Dropout", "DepthToSpace", "SpaceToDepth", "Expand", "Tile"}
    | {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul"}
    | {"QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"}
    | {"QLinearConcat", "FusedConv", "FusedMatMul"}
)
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization", "FusedConv", "FusedMatMul"})
# A constant divisor below this makes infinities of ordinary numbers.
_LEAST_DIVISOR = 1e-9
# What is multiplied by more than this overflows where it is an ordinary number.
_GREATEST_FACTOR = 1e30
_SCALING = frozenset({"Mul", "PRelu"})

Constants = Callable[[str], NDArray[np.generic] | None]


def infinite_tensors(nodes: Iterable[onnx.NodeProto], constants: Constants) -> frozenset[str]:
    """Return the tensors that may not be finite, overflow aside: all behind an operator not known to be harmless.

    Parameters
    ----------
    nodes
        In the order they run.
    constants
        The value of a constant; None for other tensors.
    """
    infinite: set[str] = set()
    for node in nodes:
        if not infinite.isdisjoint(node.input) or not _is_harmless(node, constants):
            infinite.update(node.output)
    return frozenset(infinite)


def _is_harmless(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether a node gives finite numbers for finite numbers."""
    if node.op_type in ("Shape", "Size", "Constant"):  # a constant counts where it is read
        return True
    if node.op_type == "Div":
        divisor = constants(node.input[1])
        return divisor is not None and _is_finite(divisor) and bool((np.abs(divisor) > _LEAST_DIVISOR).all())
    if node.op_type not in _FINITE or not all(math.isfinite(attribute.f) for attribute in node.attribute):
        return False
    # The weights are many bytes, and a model whose weights are not finite computes nothing anyway; a bias is read.
    summands = node.input[2:] if node.op_type in _WEIGHTED else node.input
    limit = _GREATEST_FACTOR if node.op_type in _SCALING else np.inf
    return all(_is_finite(value, limit) for name in summands if (value := constants(name)) is not None)


def _is_finite(value: NDArray[np.generic], limit: float = np.inf) -> bool:
    """Return whether every number is finite, and not beyond the limit."""
    return value.dtype.kind != "f" or bool((np.isfinite(value) & (np.abs(value) <= limit)).all())
