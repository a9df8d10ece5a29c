"""Scales and zero points: which pair gives a quantized tensor its meaning, and who reads it with which.

In QDQ form the meaning sits in the DequantizeLinear that follows; in QOperator form in the inputs of each consumer.
Whoever rewires a quantized tensor must hand its consumers the scale and zero point of the new source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from runner.graph.structure import Structure

QUANTIZED_TYPES = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16})
# op_type: the data inputs, each followed by its scale and zero point; and where those of the output are.
_DATA_INPUTS: Mapping[str, Callable[[int], Sequence[int]]] = {
    "DequantizeLinear": lambda count: (0,),
    "QLinearConv": lambda count: (0, 3),
    "QLinearMatMul": lambda count: (0, 3),
    "QGemm": lambda count: (0, 3),
    "QLinearAdd": lambda count: (0, 3),
    "QLinearMul": lambda count: (0, 3),
    "QLinearGlobalAveragePool": lambda count: (0,),
    "QLinearAveragePool": lambda count: (0,),
    "QLinearLeakyRelu": lambda count: (0,),
    "QLinearSigmoid": lambda count: (0,),
    "QLinearSoftmax": lambda count: (0,),
    "QLinearConcat": lambda count: range(2, count, 3),
}
_OUTPUT_SCALE = {
    "QuantizeLinear": 1,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QGemm": 7,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QLinearGlobalAveragePool": 3,
    "QLinearAveragePool": 3,
    "QLinearLeakyRelu": 3,
    "QLinearSigmoid": 3,
    "QLinearSoftmax": 3,
    "QLinearConcat": 0,
}
_TRANSPARENT = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split", "Gather"}
)


@dataclass(frozen=True)
class Scaling:
    """Names of the scale and the zero point of a quantized tensor."""

    scale: str
    zero_point: str


@dataclass(frozen=True)
class Rescaling:
    """A node whose input at `index` is to be read with another scale and zero point."""

    node: int
    index: int


def scaling_of(structure: Structure, tensor: str) -> Scaling | None:
    """Scale and zero point that a quantized tensor was made with; None where nothing tells."""
    index = structure.producer.get(tensor)
    if index is None:
        return None
    node = structure.nodes[index]
    if node.op_type in _TRANSPARENT:
        return scaling_of(structure, node.input[0])
    place = _OUTPUT_SCALE.get(node.op_type)
    if place is None:
        return None
    return Scaling(node.input[place], node.input[place + 1] if len(node.input) > place + 1 else "")


def is_quantized(structure: Structure, tensor: str) -> bool:
    """Whether a tensor's numbers mean something only together with a scale."""
    found = structure.types.get(tensor)
    return found is not None and found.elem_type in QUANTIZED_TYPES


def readers(structure: Structure, tensor: str) -> tuple[tuple[Rescaling, ...], str | None]:
    """Every place that reads this tensor's numbers with a scale, and the first node that does so in an unknown way."""
    found: list[Rescaling] = []
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in structure.outputs:
            return (), f"the model's output {name!r}"
        for user in structure.consumers.get(name, ()):
            node = structure.nodes[user]
            if node.op_type in _TRANSPARENT:
                waiting += structure.writes[user]
                continue
            if node.op_type == "Shape":
                continue
            places = [i for i in _DATA_INPUTS.get(node.op_type, _none)(len(node.input)) if node.input[i] == name]
            if not places:
                return (), f"{node.op_type} {node.name!r}"
            found += [Rescaling(user, place) for place in places]
    return tuple(found), None


def rescale(node: onnx.NodeProto, index: int, scaling: Scaling) -> None:
    """Let a node read its input at `index` with this scale and zero point."""
    node.input[index + 1] = scaling.scale
    if len(node.input) > index + 2:
        node.input[index + 2] = scaling.zero_point
    elif scaling.zero_point:
        node.input.append(scaling.zero_point)


def _none(count: int) -> Sequence[int]:
    return ()
