"""What a quantizing tool gets: a copy of the model that it can work on, settings and calibration inputs.

The copy is in a new enough format, with one input and float weights.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from runner.errors import OperatorError
from runner.graph.model_file import ModelFile, complete_model, read_model
from runner.graph.rewriting import whole
from runner.graph.structure import is_weight_node, read_structure
from runner.graph.writing import write_part
from runner.operators.base import PassRefusal

Format = Literal["qdq", "qoperator"]
Feed = Mapping[str, NDArray[np.generic]]
Feeds = Iterable[Feed]


@dataclass(frozen=True)
class Settings:
    """How to quantize, every option resolved.

    Parameters
    ----------
    format
        `qdq` keeps the float operators between pairs of QuantizeLinear and DequantizeLinear, `qoperator` replaces
        them by integer operators.
    per_channel
        One scale per output channel of a weight instead of one per weight.
    reduce_range
        Weights of seven bits instead of eight.
    """

    format: Format
    per_channel: bool
    reduce_range: bool


@dataclass(frozen=True)
class FirstPart:
    """Calibration inputs of a whole model, or of its first part; can be iterated again."""

    input_name: str
    arrays: Sequence[NDArray[np.generic]]

    def __iter__(self) -> Iterator[Feed]:
        return ({self.input_name: array} for array in self.arrays)


@dataclass(frozen=True)
class NextPart:
    """Calibration inputs of a later part: the outputs of the float part before it, one at a time."""

    before: Path
    feeds: Feeds

    def __iter__(self) -> Iterator[Feed]:
        # Opened for each iteration and gone with it, so that the part before need not stay in memory.
        session = onnxruntime.InferenceSession(str(self.before), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return (dict(zip(names, session.run(names, feed), strict=True)) for feed in self.feeds)


# Per-channel QuantizeLinear needs the axis attribute of opset 13; older models are silently written invalid.
_MINIMUM_OPSET = 13
# The IR version of opset 13. Before 4 every initializer is an input too, which those that a tool adds are not.
_MINIMUM_IR = 7
# A protobuf message, which the opset converter works on, holds no more.
_PROTOBUF_BYTES = 2**31 - 1

# A factor at input 1 and, except for MatMul, a bias at input 2.
_FACTORED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class PreparedModel:
    """A copy that a tool may work on.

    Parameters
    ----------
    path
        The model file, in a directory that may be written to; its external data lie beside it.
    inputs
        Names of the inputs, initializers left out.
    size_bytes
        Of the model with its external data.
    """

    path: Path
    inputs: Sequence[str]
    size_bytes: int


def prepare(model: Path, directory: Path, settings: Settings) -> PreparedModel:
    """Copy a model into a directory, at opset 13 and IR version 7 or newer, with its weights as initializers.

    A weight whose readers need it quantized in different ways is there once for each way: the tools quantize a tensor
    once, as the first node that they visit needs it, and the other nodes then compute nonsense, fail, or never end.

    Parameters
    ----------
    model
        An ONNX file, with or without external data.
    directory
        Where the copy goes; made if needed.
    settings
        How the copy is to be quantized.

    Returns
    -------
    PreparedModel

    Raises
    ------
    PassRefusal
        When the model holds quantized operators already.
    OperatorError
        When the model is too old and cannot be converted.
    """
    directory.mkdir(exist_ok=True)
    file = read_model(model)
    refuse_quantized(file.graph)
    target = directory / "model.onnx"
    changed = any(is_weight_node(node) or _is_unshielded(node, settings) for node in file.graph.node)
    changed = changed or bool(_tied(file.graph, settings))
    if _is_old(file.model) or (changed and file.size_bytes <= _PROTOBUF_BYTES):
        _rewrite(file, target, settings)
    elif file.external_data:
        write_part(whole(read_structure(file)), target)
    else:
        shutil.copyfile(model, target)
    return PreparedModel(target, input_names(file.graph), file.size_bytes)


def quantized_nodes(graph: onnx.GraphProto) -> Counter[str]:
    """Count the nodes that only quantized models have, by op_type."""
    return Counter(
        node.op_type for node in graph.node if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")
    )


def refuse_quantized(graph: onnx.GraphProto) -> None:
    """Raise PassRefusal for a graph that is quantized already."""
    counts = quantized_nodes(graph)
    if counts:
        kinds = ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common(3))
        raise PassRefusal(f"static_ptq quantizes float models; this one is quantized already ({kinds})")


def refuse_several_inputs(inputs: Sequence[str]) -> None:
    """Raise Refusal unless there is one input: calibration data are for one."""
    if len(inputs) != 1:
        names = ", ".join(inputs)
        raise PassRefusal(f"static_ptq calibrates models with one input, this one has {len(inputs)}: {names}")


def input_names(graph: onnx.GraphProto) -> list[str]:
    """Return the inputs that are not initializers."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in initializers]


def _rewrite(file: ModelFile, target: Path, settings: Settings) -> None:
    """Write the model in a new enough format, its weights as initializers: the tools see no others."""
    name = file.path.name
    if file.size_bytes > _PROTOBUF_BYTES:
        raise OperatorError(
            f"{name} has opset {_opset(file.model)}, IR version {file.model.ir_version} and "
            f"{file.size_bytes / 2**30:.2f} GiB: static_ptq needs opset {_MINIMUM_OPSET} and IR version {_MINIMUM_IR}, "
            "and the converter holds no more than 2 GiB; export the model again at a newer opset"
        )
    model = complete_model(file)
    if _opset(model) < _MINIMUM_OPSET:
        model = _converted(model, name)
    model.ir_version = max(model.ir_version, _MINIMUM_IR)
    # First of the four: `_separate` copies initializers, so weights in nodes must have become some.
    _lift(model.graph)
    _close(model.graph)
    _separate(model.graph, settings)
    _shield(model.graph, settings)
    onnx.save(model, target)


def _lift(graph: onnx.GraphProto) -> None:
    """Turn weights in nodes into initializers."""
    kept = [node for node in graph.node if not is_weight_node(node)]
    for node in graph.node:
        if is_weight_node(node):
            weight = graph.initializer.add()
            weight.CopyFrom(node.attribute[0].t)
            weight.name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _close(graph: onnx.GraphProto) -> None:
    """Keep only fed inputs: an initializer among the inputs is a default, which nothing may fold."""
    fed = set(input_names(graph))
    kept = [value for value in graph.input if value.name in fed]
    del graph.input[:]
    graph.input.extend(kept)


def _separate(graph: onnx.GraphProto, settings: Settings) -> None:
    """Copy a weight for every further way in which it is quantized."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for name, places in _tied(graph, settings).items():
        # The first way keeps the original.
        _, *others = dict.fromkeys(places.values())
        for way in others:
            copy = graph.initializer.add()
            copy.CopyFrom(initializers[name])
            copy.name = f"{name}/{way}"
            while copy.name in initializers:
                copy.name += "_"
            initializers[copy.name] = copy
            for index, place in (key for key, value in places.items() if value == way):
                graph.node[index].input[place] = copy.name


def _shield(graph: onnx.GraphProto, settings: Settings) -> None:
    """Let every Where read copies of computed tensors.

    In the format of integer operators ONNX Runtime's quantizer forgets to turn what a Where reads back into floats, and
    then refuses its own result; for an Identity it does not, and runtimes remove that.
    """
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    computed: set[str] = set()
    copies: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        # Input 0 of a Where is its condition, which is never quantized.
        for place in (1, 2) if _is_unshielded(node, settings) else ():
            name = node.input[place]
            if name in computed and name not in copies:
                copies[name] = f"{name}/float"
                while copies[name] in taken:
                    copies[name] += "_"
                taken.add(copies[name])
                nodes.append(onnx.helper.make_node("Identity", [name], [copies[name]], name=copies[name]))
            node.input[place] = copies.get(name, name)
        nodes.append(node)
        computed.update(node.output)
    if copies:
        shielded = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(shielded)


def _is_unshielded(node: onnx.NodeProto, settings: Settings) -> bool:
    return node.op_type == "Where" and settings.format == "qoperator"


def _tied(graph: onnx.GraphProto, settings: Settings) -> dict[str, dict[tuple[int, int], str]]:
    """Return the weights that are quantized in several ways, with the way for every place (node, input)."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    weights |= {node.output[0] for node in graph.node if is_weight_node(node)}
    places: dict[str, dict[tuple[int, int], str]] = {}
    for index, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name in weights:
                places.setdefault(name, {})[index, place] = _way(node, place, settings)
    return {name: ways for name, ways in places.items() if len(set(ways.values())) > 1}


def _way(node: onnx.NodeProto, place: int, settings: Settings) -> str:
    """Return how the tools quantize this input if it is a weight.

    A bias has the scale of the sums it is added to; a factor has a scale per channel along one of its axes, or, without
    `per_channel`, as anything else has, one scale. QOperator nodes that only add or multiply take other integers.
    """
    if place == 2 and node.op_type in _FACTORED:
        return "bias"
    if place == 1 and node.op_type in _FACTORED and settings.per_channel:
        transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
        # The axis of the output channels: the first of a Conv's kernel and a transposed matrix, else the second.
        return "rows" if node.op_type == "Conv" or transposed else "columns"
    return "activation" if settings.format == "qoperator" and node.op_type in ("Add", "Mul") else "one scale"


def _is_old(model: onnx.ModelProto) -> bool:
    return _opset(model) < _MINIMUM_OPSET or model.ir_version < _MINIMUM_IR


def _converted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(model, _MINIMUM_OPSET)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OperatorError(
            f"{name} has opset {_opset(model)}, static_ptq needs {_MINIMUM_OPSET}, and the conversion failed: "
            f"{reason[0]}; export the model again at a newer opset"
        ) from error


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
