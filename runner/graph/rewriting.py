"""Rewritten graphs: a stretch skipped, or a graph cut in two, without the nodes and weights that become unnecessary."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto, helper

from runner.errors import OperatorError
from runner.graph.model_file import ByteRange, ModelFile
from runner.graph.runtime import bodies, tensors_read
from runner.graph.shapes import TensorType
from runner.graph.states import State
from runner.graph.structure import RANDOM, Structure
from runner.graph.writing import Part

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
# They move numbers without computing with them, so that the scale of the input is that of the output.
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
    """Return scale and zero point that a quantized tensor was made with; None if no node says so."""
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
    """Return whether a tensor's numbers have a meaning only together with a scale."""
    tensor_type = structure.types.get(tensor)
    return tensor_type is not None and tensor_type.elem_type in QUANTIZED_TYPES


def readers(structure: Structure, tensor: str) -> tuple[tuple[Rescaling, ...], str | None]:
    """Return every place that reads this tensor with a scale, and the first node that does so in an unknown way."""
    rescalings: list[Rescaling] = []
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
            # A shape is the same whatever the numbers' scale is.
            if node.op_type == "Shape":
                continue
            places = [i for i in _DATA_INPUTS.get(node.op_type, _none)(len(node.input)) if node.input[i] == name]
            if not places:
                return (), f"{node.op_type} {node.name!r}"
            rescalings += [Rescaling(user, place) for place in places]
    return tuple(rescalings), None


def rescale(node: onnx.NodeProto, index: int, scaling: Scaling) -> None:
    """Let a node read its input at `index` with this scale and zero point."""
    node.input[index + 1] = scaling.scale
    if len(node.input) > index + 2:
        node.input[index + 2] = scaling.zero_point
    # The zero point is an optional input; without one it is 0.
    elif scaling.zero_point:
        node.input.append(scaling.zero_point)


def _none(count: int) -> Sequence[int]:
    return ()


class NotRewirable(OperatorError):
    """A quantized tensor cannot be handed to its new consumers with the scale they need."""


def skip(structure: Structure, *, entry: str, result: str) -> Part:
    """Return the model in which the consumers of `result` read `entry`.

    Raises
    ------
    NotRewirable
        When the tensors are quantized and a consumer's scale cannot be rewritten, or a state of what is skipped grows.
    """
    rescaled = _rescaled(structure, entry=entry, result=result)
    handed_on = _handed_on(structure, entry=entry, result=result)
    nodes: dict[int, onnx.NodeProto | ByteRange] = {}
    for index, node in enumerate(structure.nodes):
        # A node that nothing changes is copied as bytes from the file, its large tensors included.
        if result not in node.input and index not in rescaled:
            nodes[index] = structure.file.stored_nodes.get(index, node)
            continue
        if index in structure.file.stored_nodes:
            raise NotRewirable(f"node {node.name or node.op_type!r} holds a large tensor of its own")
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name == result:
                copy.input[place] = entry
        for place, scaling in rescaled.get(index, {}).items():
            rescale(copy, place, scaling)
        nodes[index] = copy
    reads = {index: tensors_read(node) for index, node in nodes.items() if isinstance(node, onnx.NodeProto)}
    if result in structure.outputs or result in structure.captured:
        # Outputs keep their names, and bodies of control flow read by name: an Identity replaces the last skipped node.
        last = structure.producer[result]
        nodes[last], reads[last] = helper.make_node("Identity", [entry], [result]), (entry,)
    part = _extract(
        structure, nodes, reads, outputs=structure.outputs, stop=frozenset(state.output for state in handed_on)
    )
    identities = [helper.make_node("Identity", [state.input], [state.output]) for state in handed_on]
    return replace(part, nodes=[*part.nodes, *identities])


def with_identity(structure: Structure, *, entry: str, result: str) -> Part | None:
    """Return the model with an Identity for the nodes between `entry` and `result`, otherwise unchanged.

    The result computes the same as that of `skip` and serves to verify it. None if the tensors are quantized: their
    numbers have another scale on either side, and only rewriting the readers accounts for it.
    """
    sources = {state.output: state.input for state in _handed_on(structure, entry=entry, result=result)}
    sources[result] = entry
    makers = {structure.producer[name] for name in sources}
    if is_quantized(structure, result) or not makers.isdisjoint(structure.file.stored_nodes):
        return None
    part = whole(structure)
    nodes: list[onnx.NodeProto | ByteRange] = []
    for node in part.nodes:
        if isinstance(node, ByteRange):
            nodes.append(node)
            continue
        nodes.append(_apart(node, sources, result))
        nodes += [helper.make_node("Identity", [sources[name]], [name]) for name in node.output if name in sources]
    return Part(part.header, part.graph, nodes, part.weights, part.declarations, part.folder)


def _apart(node: onnx.NodeProto, sources: Collection[str], result: str) -> onnx.NodeProto:
    """Return a node that gives these tensors under other names, and reads them there where it is skipped itself."""
    if not {*node.input, *node.output} & set(sources):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(node.output):
        copy.output[place] = f"{name}/skipped" if name in sources else name
    for place, name in enumerate(node.input):
        # A state is read by the skipped nodes alone, the result by those after them.
        copy.input[place] = f"{name}/skipped" if name in sources and name != result else name
    return copy


def _handed_on(structure: Structure, *, entry: str, result: str) -> tuple[State, ...]:
    """Return the states of what lies between two tensors: the next run gets them as they came.

    Raises
    ------
    NotRewirable
        When such a state has another size after a run, so that it cannot stand for itself.
    """
    if not structure.states:
        return ()
    first, last = structure.producer.get(entry, -1), structure.producer[result]
    reached = {name for index in structure.data if first < index <= last for name in structure.writes[index]} - {result}
    for index in structure.live:
        if index > first and not reached.isdisjoint(structure.reads[index]):
            reached.update(name for name in structure.writes[index] if name != result)
    states = tuple(state for state in structure.states if state.output in reached)
    for state in states:
        dims = [structure.types[name].dims or () for name in (state.input, state.output)]
        grown = [(one, other) for one, other in zip(*dims, strict=False) if isinstance(one, int) and one != other]
        if any(isinstance(other, int) for _, other in grown):
            raise NotRewirable(
                f"their state {state.output!r} {list(dims[1])} is longer than {state.input!r} {list(dims[0])}, which "
                "would have to stand for it"
            )
    return states


def split(structure: Structure, *, tensors: Sequence[str], side: Sequence[str]) -> tuple[Part, Part]:
    """Return head and tail: the head computes `tensors` and `side`, the tail takes them.

    The tail starts with an identity MaxPool on each 4-D float tensor that stays finite (it would turn -inf into the
    least float). Without it ONNX Runtime's blocked layout (NCHWc) leaves residual additions of the tail unfused that it
    fuses in the whole model, and the results differ in the last bits; with it they are the same, bit for bit.
    """
    crossing = (*tensors, *side)
    plain = {index: structure.file.stored_nodes.get(index, node) for index, node in enumerate(structure.nodes)}
    head = _extract(structure, plain, {}, outputs=crossing, stop=frozenset())
    _declare(head.graph, structure, outputs=crossing)
    anchors = {name: _anchor_name(structure, name) for name in tensors if _has_anchor(structure, name)}
    renamed = {index: _renamed(structure, index, anchors) for index in plain}
    reads = {index: tensors_read(node) for index, node in renamed.items() if isinstance(node, onnx.NodeProto)}
    # Anchors count as given: their own nodes are put in front at the end.
    tail = _extract(
        structure, renamed, reads, outputs=structure.outputs, stop=frozenset(crossing) | frozenset(anchors.values())
    )
    _declare(tail.graph, structure, inputs=crossing)
    pools = [
        helper.make_node("MaxPool", [name], [anchor], name=anchor, kernel_shape=[1, 1], strides=[1, 1])
        for name, anchor in anchors.items()
    ]
    return head, replace(tail, nodes=[*pools, *tail.nodes])


def whole(structure: Structure) -> Part:
    """Return the model as it is, without what no output needs."""
    plain = {index: structure.file.stored_nodes.get(index, node) for index, node in enumerate(structure.nodes)}
    return _extract(structure, plain, {}, outputs=structure.outputs, stop=frozenset())


def with_seeds(structure: Structure) -> Part:
    """Return the model with seeds in its random nodes: the same inputs in the same order give the same outputs."""
    part = whole(structure)
    nodes = [node if isinstance(node, ByteRange) else _seeded(node) for node in part.nodes]
    header = onnx.ModelProto()
    header.CopyFrom(part.header)
    for function in header.functions:
        seeded = [_seeded(node) for node in function.node]
        del function.node[:]
        function.node.extend(seeded)
    return replace(part, header=header, nodes=nodes)


def _seeded(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node with a seed where it, or what is inside its bodies, may draw and has none."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type in (*RANDOM, "Dropout") and all(attribute.name != "seed" for attribute in node.attribute):
        # ONNX has it as an integer for a Dropout alone.
        copy.attribute.append(helper.make_attribute("seed", 1 if node.op_type == "Dropout" else 1.0))
    for attribute in copy.attribute:
        for body in bodies(attribute):
            seeded = [_seeded(inner) for inner in body.node]
            del body.node[:]
            body.node.extend(seeded)
    return copy


def _rescaled(structure: Structure, *, entry: str, result: str) -> dict[int, dict[int, Scaling]]:
    """Return, per node, the inputs that need the scale of `entry`."""
    if not is_quantized(structure, result):
        return {}
    places, obstacle = readers(structure, result)
    scaling = scaling_of(structure, entry)
    if obstacle or (places and scaling is None):
        reason = obstacle or f"the scale of {entry!r} is unknown"
        raise NotRewirable(f"the skipped blocks end in quantized numbers that cannot be rescaled: {reason}")
    rescaled: dict[int, dict[int, Scaling]] = {}
    for place in places:
        if scaling is not None:
            rescaled.setdefault(place.node, {})[place.index] = scaling
    return rescaled


def _renamed(structure: Structure, index: int, names: Mapping[str, str]) -> onnx.NodeProto | ByteRange:
    """Return a node that reads other names, or the node as it is."""
    node = structure.nodes[index]
    if not any(name in names for name in node.input):
        return structure.file.stored_nodes.get(index, node)
    if index in structure.file.stored_nodes:
        raise NotRewirable(f"node {node.name or node.op_type!r} holds a large tensor of its own")
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(node.input):
        copy.input[place] = names.get(name, name)
    return copy


def _extract(
    structure: Structure,
    nodes: Mapping[int, onnx.NodeProto | ByteRange],
    reads: Mapping[int, tuple[str, ...]],
    *,
    outputs: Collection[str],
    stop: Collection[str],
) -> Part:
    """Return what the outputs need, going back no further than `stop`; `reads` overrides the inputs of nodes."""
    needed: set[int] = set()
    seen = {name for name in outputs if name not in stop}
    waiting = list(seen)
    while waiting:
        index = structure.producer.get(waiting.pop())
        if index is None or index in needed:
            continue
        needed.add(index)
        for name in reads.get(index, structure.reads[index]):
            if name not in seen and name not in stop:
                seen.add(name)
                waiting.append(name)
    # By index, because the order in the file is topological, which `read_structure` has checked.
    return _part(structure.file, [nodes[index] for index in sorted(needed)], seen | _written(structure, needed))


def _written(structure: Structure, nodes: Iterable[int]) -> set[str]:
    return {name for index in nodes for name in structure.writes[index]}


def _part(file: ModelFile, nodes: Sequence[onnx.NodeProto | ByteRange], used: set[str]) -> Part:
    """Return a part with these nodes and with what they use of the rest of the model."""
    header = onnx.ModelProto()
    header.CopyFrom(file.model)
    graph = header.graph
    kept = [tensor for tensor in graph.initializer if tensor.name in used and tensor.name not in file.weights]
    weights = [weight for name, weight in file.weights.items() if name in used]
    external = {weight.name for weight in weights if weight.external}
    declarations = [tensor for tensor in file.graph.initializer if tensor.name in external]
    sources = {tensor.name for tensor in file.graph.initializer}
    part = onnx.GraphProto(name=graph.name, initializer=kept)
    if graph.doc_string:
        part.doc_string = graph.doc_string
    part.sparse_initializer.extend(tensor for tensor in graph.sparse_initializer if tensor.values.name in used)
    # Inputs stay even where nothing reads them any more: callers feed them by name.
    part.input.extend(value for value in graph.input if value.name not in sources or value.name in used)
    for value in part.input:
        if value.name in file.assumed_shapes:
            value.type.tensor_type.ClearField("shape")
    part.output.extend(graph.output)
    part.value_info.extend(value for value in graph.value_info if value.name in used)
    part.quantization_annotation.extend(entry for entry in graph.quantization_annotation if entry.tensor_name in used)
    part.metadata_props.extend(graph.metadata_props)
    header.ClearField("graph")
    return Part(header, part, nodes, weights, declarations, file.path.parent)


def _declare(
    graph: onnx.GraphProto, structure: Structure, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> None:
    """Replace a part's inputs or outputs by the tensors that cross."""
    if outputs:
        del graph.output[:]
        graph.output.extend(_value_info(structure, name) for name in outputs)
    if inputs:
        sources = [value for value in graph.input if value.name not in structure.inputs]
        del graph.input[:]
        graph.input.extend([*(_value_info(structure, name) for name in inputs), *sources])
    # A tensor that crosses is an input or output now and must not be declared a second time.
    declared = {value.name for value in (*graph.input, *graph.output)}
    kept = [value for value in graph.value_info if value.name not in declared]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _value_info(structure: Structure, name: str) -> onnx.ValueInfoProto:
    """Return a tensor's declaration; a free dimension is named by its expression."""
    tensor_type = structure.types.get(name)
    if tensor_type is None or not tensor_type.elem_type:
        # What crosses without a type is what a Shape or a Size gives, where the tensor before it is unknown.
        is_shape = structure.nodes[structure.producer[name]].op_type == "Shape"
        tensor_type = TensorType(TensorProto.INT64, (f"{name}.0",) if is_shape else ())
    # With a shape ONNX Runtime would optimise the parts otherwise than the whole, whose input has none; and where that
    # of the input is a guess, a part must take whatever the part before it gives.
    dims = None if structure.file.assumed_shapes else tensor_type.dims
    return helper.make_tensor_value_info(name, tensor_type.elem_type, dims)


def _has_anchor(structure: Structure, name: str) -> bool:
    tensor_type = structure.types[name]
    is_map = tensor_type.elem_type == TensorProto.FLOAT and tensor_type.dims is not None and len(tensor_type.dims) == 4
    return is_map and name not in structure.possibly_infinite


def _anchor_name(structure: Structure, name: str) -> str:
    anchor = f"{name}/anchor"
    while anchor in structure.producer or anchor in structure.tensor_bytes or anchor in structure.inputs:
        anchor += "_"
    return anchor
