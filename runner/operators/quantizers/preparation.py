"""What a quantizing tool gets: a copy of the model that it can work on, settings and calibration inputs.

The copy is in a new enough format, with one input and float weights. Its names stay unique when a
tool adds its own: onnxruntime.quantization calls what it adds after the tensor that it belongs to (`w_scale`,
`x_QuantizeLinear_Output`) and does not look whether the model has a tensor of that name already. Where it does, one of
the two is renamed.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import inliner

from runner.graph.model_file import ModelFile, complete_model, read_model, tensors_in
from runner.graph.rewriting import whole
from runner.graph.runtime import brief, sort_nodes
from runner.graph.shapes import TensorType
from runner.graph.structure import Structure, read_structure
from runner.graph.writing import write_part
from runner.operators.base import CalibrationInput, PassRefusal, QuantizationSettings, in_order
from runner.operators.quantizers.normal_form import (
    READERS_OF_BIAS,
    bias_of,
    input_names,
    is_normal,
    normalize,
    refuse_unquantizable,
)

Feed = Mapping[str, NDArray[np.generic]]
Feeds = Iterable[Feed]


@dataclass(frozen=True)
class FirstPart:
    """Calibration inputs of a whole model, or of its first part; can be iterated again."""

    names: Sequence[str]
    inputs: Sequence[CalibrationInput]

    def __iter__(self) -> Iterator[Feed]:
        return (dict(zip(self.names, in_order(arrays), strict=True)) for arrays in self.inputs)


@dataclass(frozen=True)
class NextPart:
    """Calibration inputs of a later part: the outputs of the float part before it, one at a time."""

    before: Path
    feeds: Feeds

    def __iter__(self) -> Iterator[Feed]:
        # Opened for each iteration and gone with it, so that the part before need not stay in memory.
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors, and no warnings about the user's model
        session = onnxruntime.InferenceSession(str(self.before), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        return (dict(zip(names, session.run(names, feed), strict=True)) for feed in self.feeds)


# Per-channel QuantizeLinear needs the axis attribute of opset 13; older models are silently written invalid.
_MINIMUM_OPSET = 13
# The first opset whose QuantizeLinear takes halves.
_MINIMUM_OPSET_OF_HALVES = 19
# The IR version of opset 13. Before 4 every initializer is an input too, which those that a tool adds are not.
_MINIMUM_IR = 7
# A protobuf message, which the opset converter works on, holds no more.
_PROTOBUF_BYTES = 2**31 - 1


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


def prepare(model: Path, directory: Path, settings: QuantizationSettings) -> PreparedModel:
    """Copy a model into a directory in the form that the tools need: opset, IR version, weights, biases and names.

    A weight whose readers need it quantized in different ways is there once for each way: the tools quantize a tensor
    once, as the first node that they visit needs it, and the other nodes then compute nonsense, fail, or never end.
    Functions are inlined, because the tools look into none and the converter of opsets forgets them.

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
        When the model is quantized already, holds nothing that a tool quantizes, or is too old and cannot be converted.
    """
    directory.mkdir(exist_ok=True)
    file = read_model(model)
    refuse_unquantizable(file.model)
    if settings.format == "qoperator" and _has_halves(file.model):
        raise PassRefusal(
            f"{model.name} computes in float16, for which there are no integer operators; declare `format: qdq`"
        )
    target = directory / "model.onnx"
    structure = read_structure(file)
    if _is_old(file.model) or (not _is_ready(structure, settings) and file.size_bytes <= _PROTOBUF_BYTES):
        _rewrite(file, target, settings, structure)
    elif file.external_data:
        write_part(whole(structure), target)
    else:
        shutil.copyfile(model, target)
    return PreparedModel(target, input_names(file.graph), file.size_bytes)


def _is_ready(structure: Structure, settings: QuantizationSettings) -> bool:
    """Return whether the tools can work on a model as it is."""
    model = structure.file.model
    graph = model.graph
    # With runs, types are known that the tools cannot infer; what passes on or is sparse they take for a circle.
    peculiar = structure.early_runs or graph.sparse_initializer or passed_on(graph)
    return not (
        peculiar
        or model.functions
        or clashing_names(graph)
        or has_nameless_readers(graph)
        or not is_normal(graph, settings)
    )


def passed_on(graph: onnx.GraphProto) -> list[str]:
    """Return the outputs that are inputs."""
    inputs = {value.name for value in graph.input}
    return [value.name for value in graph.output if value.name in inputs]


def restore_outputs(quantized: Path, model: Path) -> None:
    """Give a quantized file back the outputs that are inputs, which `prepare` left out, in their places."""
    before = read_model(model).graph
    if not passed_on(before):
        return
    made = onnx.load(quantized, load_external_data=False)
    values = {value.name: value for value in (*before.output, *made.graph.output)}
    order = [values[value.name] for value in before.output]
    del made.graph.output[:]
    made.graph.output.extend(order)
    onnx.save(made, quantized)


def restore_order(quantized: Path) -> None:
    """Sort the nodes of a quantized file with bodies: the tools sort them without looking at what bodies capture."""
    nodes = read_model(quantized).graph.node
    if not any(attribute.type == onnx.AttributeProto.GRAPH for node in nodes for attribute in node.attribute):
        return
    made = onnx.load(quantized, load_external_data=False)
    if sort_nodes(made.graph) is not None:
        onnx.save(made, quantized)


def _without_peculiarities(graph: onnx.GraphProto) -> None:
    """Rewrite what the tools do not know: outputs that are inputs, and sparse initializers."""
    left_out = set(passed_on(graph))
    kept = [value for value in graph.output if value.name not in left_out]
    del graph.output[:]
    graph.output.extend(kept)
    graph.initializer.extend(map(_dense, graph.sparse_initializer))
    del graph.sparse_initializer[:]


def _declare_types(graph: onnx.GraphProto, types: Mapping[str, TensorType]) -> None:
    """Declare the types of inner tensors, where the graph does not."""
    declared = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    declared |= {tensor.name for tensor in graph.initializer}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, types[name].elem_type, types[name].dims)
        for node in graph.node
        for name in node.output
        if name not in declared and name in types and types[name].is_known and not types[name].container
    )


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return a sparse tensor with its zeros."""
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    # Places are given as numbers in the flat tensor, or as a row of indices each.
    places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
    dense.reshape(-1)[places] = values
    return onnx.numpy_helper.from_array(dense, sparse.values.name)


def _rewrite(file: ModelFile, target: Path, settings: QuantizationSettings, structure: Structure) -> None:
    """Write the model in the form that the tools need."""
    name, needed = file.path.name, _needed_opset(file.model)
    if file.size_bytes > _PROTOBUF_BYTES:
        raise PassRefusal(
            f"{name} has opset {_opset(file.model)}, IR version {file.model.ir_version} and "
            f"{file.size_bytes / 2**30:.2f} GiB: static_ptq needs opset {needed} and IR version {_MINIMUM_IR}, "
            "and the converter holds no more than 2 GiB; export the model again at a newer opset"
        )
    model = complete_model(file)
    _without_peculiarities(model.graph)
    model = _inlined(model, name)
    # After functions are inlined: what they compute in may need a newer opset too.
    needed = max(needed, _needed_opset(model))
    if _opset(model) < needed:
        model = _converted(model, needed, name)
    # Conversion may change types: the mask that an old Dropout gives was a float.
    elif structure.early_runs:
        _declare_types(model.graph, structure.types)
    model.ir_version = max(model.ir_version, _MINIMUM_IR)
    normalize(model.graph, settings)
    rename_clashes(model.graph)
    name_nodes(model.graph)
    onnx.save(model, target)


def _is_old(model: onnx.ModelProto) -> bool:
    return _opset(model) < _needed_opset(model) or model.ir_version < _MINIMUM_IR


def _inlined(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    if not model.functions:
        return model
    try:
        # A function of another opset is converted, for which the inliner needs the type of every value.
        inferred = onnx.shape_inference.infer_shapes(model)
        inferred.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
        inlined: onnx.ModelProto = inliner.inline_local_functions(inferred, convert_version=True)
    except Exception as error:
        raise PassRefusal(
            f"{name} has functions, which static_ptq needs inlined, and that failed: {brief(error)}; export the "
            "model without functions"
        ) from error
    # What was inferred is not needed any more, and initializers need not be declared.
    del inlined.graph.value_info[:]
    return inlined


def _converted(model: onnx.ModelProto, opset: int, name: str) -> onnx.ModelProto:
    # Before IR version 4, the converter looks for every initializer among the inputs, where some files lack them.
    if {tensor.name for tensor in model.graph.initializer} - {value.name for value in model.graph.input}:
        model.ir_version = max(model.ir_version, _MINIMUM_IR)
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:
        raise PassRefusal(
            f"{name} has opset {_opset(model)}, static_ptq needs {opset}, and the conversion failed: "
            f"{brief(error)}; export the model again at a newer opset"
        ) from error


def _needed_opset(model: onnx.ModelProto) -> int:
    return _MINIMUM_OPSET_OF_HALVES if _has_halves(model) else _MINIMUM_OPSET


def _has_halves(model: onnx.ModelProto) -> bool:
    """Return whether a model reads, gives or keeps numbers of 16 bits."""
    graph = model.graph
    values = (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info))
    kept = (tensor.data_type for tensor in tensors_in(graph))
    return onnx.TensorProto.FLOAT16 in {*values, *kept}


def _opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators; a model that names none has those that the runtime knows."""
    newest = int(onnx.defs.onnx_opset_version())
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), newest)


_ADDED = re.compile(
    r"(?:_quantized|_scale|_zero_point|_(?:Quantize|Dequantize)Linear(?:_Input|_Output)?|_Reduce(?:Min|Max)(?:_Reshape)?"
    r"|_convert|_Cast|quant_scaled_output|_bias_reshape_(?:shape|output))$"
)


def clashing_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the names that a tool might give to what it adds, each with the tensor that it would name it after."""
    names = {name for name in _names(graph) if name}
    clashes: dict[str, str] = {}
    for name in sorted(names):
        base, count = _ADDED.subn("", name)
        while count:
            if base in names:
                clashes[name] = base
                break
            base, count = _ADDED.subn("", base)
    initializers = {tensor.name for tensor in graph.initializer}
    # A bias of several nodes is copied, and the copies are numbered past those of initializers alone.
    for bias in sorted({bias_of(node) for node in graph.node} & initializers):
        numbered = re.compile(re.escape(bias) + r"\d+")
        clashes |= {name: bias for name in sorted(names - initializers) if numbered.fullmatch(name)}
    return clashes


def rename_clashes(graph: onnx.GraphProto) -> None:
    """Rename one tensor of each clash: the longer name, or the other where callers know the longer one."""
    public = {value.name for value in (*graph.input, *graph.output)}
    taken = set(_names(graph))
    new_names: dict[str, str] = {}
    for name, base in clashing_names(graph).items():
        chosen = name if name not in public else base
        if chosen not in new_names:
            new_names[chosen] = _free(chosen, taken)
    _rename(graph, new_names)
    for node in graph.node:
        # The tool finds the nodes that it added by their names.
        if _ADDED.search(node.name):
            node.name += "/node"


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node that has no name of its own: a shared bias is handed out to its readers by their names."""
    taken = {""}
    for node in graph.node:
        if node.name in taken:
            node.name = _free(f"{node.name or node.op_type}/{next(iter(node.output), '')}", taken)
        taken.add(node.name)


def has_nameless_readers(graph: onnx.GraphProto) -> bool:
    """Return whether two nodes of one name share a bias."""
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in READERS_OF_BIAS and bias_of(node):
            readers.setdefault(bias_of(node), []).append(node.name)
    return any(len(set(names)) < len(names) for names in readers.values())


def _free(name: str, taken: set[str]) -> str:
    """Return the name with a number that makes it new; it is taken then."""
    number = 1
    while f"{name}/{number}" in taken:
        number += 1
    taken.add(f"{name}/{number}")
    return f"{name}/{number}"


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (name for node in graph.node for name in (*node.input, *node.output))


def _rename(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    """Rename tensors; an input or output keeps its name, and an Identity hands it on."""
    inputs = {value.name for value in graph.input} & new_names.keys()
    outputs = {value.name for value in graph.output} & new_names.keys()
    nodes = [onnx.helper.make_node("Identity", [name], [new_names[name]]) for name in sorted(inputs)]
    for node in graph.node:
        _rename_in(node, new_names)
        for place, name in enumerate(node.output):
            node.output[place] = new_names.get(name, name)
        nodes.append(node)
    nodes += [onnx.helper.make_node("Identity", [new_names[name]], [name]) for name in sorted(outputs - inputs)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    for tensor in graph.initializer:
        tensor.name = new_names.get(tensor.name, tensor.name)
    kept = [value for value in graph.value_info if value.name not in new_names]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _rename_in(node: onnx.NodeProto, new_names: Mapping[str, str]) -> None:
    """Rename what a node reads, and what graphs inside it capture."""
    for place, name in enumerate(node.input):
        node.input[place] = new_names.get(name, name)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs]:
            own = _defined(body)
            inner = {name: new for name, new in new_names.items() if name not in own}
            for inner_node in body.node:
                _rename_in(inner_node, inner)
            for value in body.output:
                value.name = inner.get(value.name, value.name)


def _defined(graph: onnx.GraphProto) -> set[str]:
    values: Iterable[str] = (value.name for value in graph.input)
    return {*values, *(tensor.name for tensor in graph.initializer), *(n for node in graph.node for n in node.output)}
