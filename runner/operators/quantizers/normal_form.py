"""A graph in the one form that the quantizing tools compute correctly, and what they read of a model.

They read factors and biases of nodes; a float model with a node that a tool quantizes can be quantized. In the normal
form weights and biases are initializers, each quantized in one way; a Gemm has factors of one and a bias with an
element for each column; what a Where reads is a copy.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from catalog.units import counted
from runner.graph.model_file import tensors_in
from runner.graph.structure import is_weight_node
from runner.operators.base import PassRefusal, QuantizationSettings

# By name, in whatever domain: ONNX's own nodes, those of ONNX Runtime's quantizers, and its 4- and 8-bit kernels.
_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
    | {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "MatMulInteger16", "MulInteger"}
    | {"ReduceSumInteger", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized", "QGemm", "QMoE", "QAttention"}
    | {"QEmbedLayerNormalization", "QuantizeBFP", "DequantizeBFP", "QuantizeWithOrder", "DequantizeWithOrder"}
)
# Families: MatMulNBitsMlp, QLinearConv, QOrderedGelu, MatMulBlockQuantizedFp8Weight and others of these beginnings.
_QUANTIZED_FAMILIES = ("QLinear", "QOrdered", "MatMulNBits", "MatMulBlockQuantized")
# What onnxruntime.quantization quantizes in either format; its registry is not imported to look ahead.
QUANTIZABLE = frozenset(
    {"Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum"}
    | {"EmbedLayerNormalization", "Flatten", "Gather", "GatherElements", "Gemm", "GlobalAveragePool"}
    | {"InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu"}
    | {"Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze"}
    | {"Where"}
)
_DOMAINS = ("", "ai.onnx", "com.microsoft")
# Nodes of the blocked layout that ONNX Runtime writes into models which it optimized for its own use.
_BLOCKED_DOMAIN = "com.microsoft.nchwc"
_REAL = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# They may give real numbers where none go in; a Constant may hold them outside of tensors.
_MAKE_REAL = frozenset({"Cast", "Constant", "ConstantOfShape"})
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def quantized_nodes(model: onnx.ModelProto) -> Counter[str]:
    """Count the nodes that only quantized models have, by op_type."""
    return Counter(
        node.op_type
        for node in _nodes(model)
        if node.op_type in _QUANTIZED or node.op_type.startswith(_QUANTIZED_FAMILIES)
    )


def refuse_unquantizable(model: onnx.ModelProto) -> None:
    """Raise PassRefusal for a model that is quantized already or has nothing to quantize."""
    counts = quantized_nodes(model)
    if counts:
        kinds = ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common(3))
        raise PassRefusal(f"static_ptq quantizes float models; this one is quantized already ({kinds})")
    if _computes_in_doubles(model):
        raise PassRefusal(
            "static_ptq quantizes numbers of 32 and 16 bits, and the weights of this model are float64; "
            "export it in float32"
        )
    blocked = sum(node.domain == _BLOCKED_DOMAIN for node in _nodes(model))
    if blocked:
        raise PassRefusal(
            f"static_ptq: ONNX Runtime laid this model out for one CPU when it saved it ({counted(blocked, 'node')} of "
            f"{_BLOCKED_DOMAIN}), which no quantizer reads; take the model from before that optimization"
        )
    # Functions are inlined before the tool runs; into bodies of control flow it does not look.
    outside = (*model.graph.node, *(node for function in model.functions for node in function.node))
    if not any(map(_is_quantizable, outside)):
        raise PassRefusal(nothing_to_quantize(model))
    if not _has_real_numbers(model):
        raise PassRefusal("static_ptq quantizes real numbers, and neither inputs nor weights of this model are such")


def _computes_in_doubles(model: onnx.ModelProto) -> bool:
    """Return whether all matrices and kernels of real numbers have 64 bits."""
    kinds = {tensor.data_type for tensor in tensors_in(model) if len(tensor.dims) > 1}
    return kinds & _REAL == {TensorProto.DOUBLE}


def _has_real_numbers(model: onnx.ModelProto) -> bool:
    """Return whether inputs or weights are real numbers, or a node may make some."""
    kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
    kinds |= {tensor.data_type for tensor in tensors_in(model)}
    return not kinds.isdisjoint(_REAL) or any(node.op_type in _MAKE_REAL for node in _nodes(model))


def nothing_to_quantize(model: onnx.ModelProto, tool: str = "onnxruntime") -> str:
    """Return why a tool quantizes nothing of a model, with the first kinds of nodes by name."""
    kinds = sorted({node.op_type for node in _nodes(model)})
    control_flow = [kind for kind in kinds if kind in _CONTROL_FLOW]
    if control_flow and any(map(_is_quantizable, _nodes(model))):
        return (
            f"static_ptq: what {tool} could quantize is inside {', '.join(control_flow)}, whose bodies it leaves as "
            "they are; export the model without control flow"
        )
    return f"static_ptq found no operator that {tool} quantizes among: {', '.join(kinds[:8])}"


def _is_quantizable(node: onnx.NodeProto) -> bool:
    return node.op_type in QUANTIZABLE and node.domain in _DOMAINS


def input_names(graph: onnx.GraphProto) -> list[str]:
    """Return the inputs that are not initializers."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in initializers]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Iterate over the nodes of the graph, of bodies at any depth and of functions."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node
            waiting += [inner for graph in attribute.graphs for inner in graph.node]


# A factor at input 1 and, except for MatMul, a bias at input 2.
FACTORED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
READERS_OF_BIAS = ("Conv", "ConvTranspose", "Gemm")


def bias_of(node: onnx.NodeProto) -> str:
    """Return the name of a node's bias; empty where it has none."""
    return node.input[2] if node.op_type in READERS_OF_BIAS and len(node.input) > 2 else ""


def is_transposed(node: onnx.NodeProto) -> bool:
    """Return whether a Gemm takes its factor transposed."""
    return any(entry.name == "transB" and entry.i for entry in node.attribute)


# Adds an initializer of the type of another one, and returns its name.
_Add = Callable[[str, NDArray[np.float64]], str]
_Change = Callable[[onnx.NodeProto, Mapping[str, TensorProto], _Add], list[onnx.NodeProto]]


def is_normal(graph: onnx.GraphProto, settings: QuantizationSettings) -> bool:
    """Return whether a graph needs none of the changes that `normalize` makes, its inputs aside."""
    return not (
        _in_nodes(graph)
        or _odd_gemms(graph)
        or _grouped_with_bias(graph, settings)
        or _tied(graph, settings)
        or any(_is_unshielded(node, settings) for node in graph.node)
    )


def normalize(graph: onnx.GraphProto, settings: QuantizationSettings) -> None:
    """Bring a graph into the form that the tools need; what it computes stays the same."""
    # First of all: the others work on initializers, so weights in nodes must have become some.
    _lift(graph)
    _close(graph)
    _settle_gemms(graph)
    _take_out_biases(graph, settings)
    _separate(graph, settings)
    _shield(graph, settings)


def _in_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the outputs of the Constant nodes that hold a matrix or more, or a bias."""
    biases = {bias_of(node) for node in graph.node}
    return {
        node.output[0]
        for node in graph.node
        if is_weight_node(node) or (node.op_type == "Constant" and node.output[0] in biases and _content(node))
    }


def _content(node: onnx.NodeProto) -> TensorProto | None:
    """Return the numbers of a Constant node as a tensor; None where it holds none that a weight may have."""
    for attribute in node.attribute:
        if attribute.name == "value":
            value: TensorProto = attribute.t
            return value
        if attribute.name == "value_floats":
            return numpy_helper.from_array(np.array(attribute.floats, np.float32))
        if attribute.name == "value_float":
            return numpy_helper.from_array(np.array(attribute.f, np.float32))
    return None


def _lift(graph: onnx.GraphProto) -> None:
    """Turn weights and biases in nodes into initializers."""
    lifted, kept = _in_nodes(graph), []
    for node in graph.node:
        content = _content(node) if node.op_type == "Constant" and node.output[0] in lifted else None
        if content is None:
            kept.append(node)
            continue
        weight = graph.initializer.add()
        weight.CopyFrom(content)
        weight.name = node.output[0]
    _replace_nodes(graph, kept)


def _close(graph: onnx.GraphProto) -> None:
    """Keep only fed inputs: an initializer among the inputs is a default, which nothing may fold."""
    fed = set(input_names(graph))
    kept = [value for value in graph.input if value.name in fed]
    del graph.input[:]
    graph.input.extend(kept)


def _odd_gemms(graph: onnx.GraphProto) -> list[int]:
    """Return which nodes are Gemms with a factor that is not one, or a bias that has not one element for each column.

    A bias that is computed, and a Gemm without a constant matrix, are not quantized, and so left alone.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    odd = []
    for index, node in enumerate(graph.node):
        weight, bias = (tensors.get(name) for name in (_input(node, 1), bias_of(node)))
        if node.op_type != "Gemm" or weight is None or (bias is None and bias_of(node)):
            continue
        scaled = _factor(node, "alpha") != 1 or (bias is not None and _factor(node, "beta") != 1)
        if scaled or (bias is not None and list(bias.dims) != [_columns(node, weight)]):
            odd.append(index)
    return odd


def _settle_gemms(graph: onnx.GraphProto) -> None:
    """Let every Gemm compute A·B + c with a vector c; a c with several rows is added afterwards.

    The tools fail on a bias of another shape, lose `beta`, and leave `alpha` out of the scale of a bias.
    """

    def settle(node: onnx.NodeProto, tensors: Mapping[str, TensorProto], add: _Add) -> list[onnx.NodeProto]:
        alpha, beta, weight, bias = _factor(node, "alpha"), _factor(node, "beta"), node.input[1], bias_of(node)
        columns = _columns(node, tensors[weight])
        _drop_factors(node)
        if alpha != 1:
            node.input[1] = add(weight, _array(tensors[weight]) * alpha)
        if not bias:
            return []
        values = _array(tensors[bias]) * beta
        if values.size in (1, columns) and values.shape[-1:] in ((), (1,), (columns,)):
            node.input[2] = add(bias, np.broadcast_to(values.reshape(-1), (columns,)))
            return []
        return [_addition(node, add(bias, values))]

    _change(graph, _odd_gemms(graph), settle)


def _grouped_with_bias(graph: onnx.GraphProto, settings: QuantizationSettings) -> list[int]:
    """Return which nodes are grouped transposed convolutions with a constant bias.

    Their kernels have a scale for each channel of a group, and the tool takes as many for the bias of all groups.
    """
    if not settings.per_channel or settings.format != "qdq":
        return []
    constant = {tensor.name for tensor in graph.initializer}
    return [
        index
        for index, node in enumerate(graph.node)
        if node.op_type == "ConvTranspose"
        and bias_of(node) in constant
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]


def _take_out_biases(graph: onnx.GraphProto, settings: QuantizationSettings) -> None:
    """Let an addition follow a grouped transposed convolution instead of its bias."""

    def take_out(node: onnx.NodeProto, tensors: Mapping[str, TensorProto], add: _Add) -> list[onnx.NodeProto]:
        # The bias belongs to the second of the axes, behind which those of the kernel's window follow.
        window = [1] * (len(tensors[node.input[1]].dims) - 2)
        values = _array(tensors[node.input[2]])
        return [_addition(node, add(node.input[2], values.reshape(-1, *window)))]

    _change(graph, _grouped_with_bias(graph, settings), take_out)


def _change(graph: onnx.GraphProto, chosen: Sequence[int], change: _Change) -> None:
    """Change the chosen nodes; `change` returns what follows a node."""
    if not chosen:
        return
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    add = _adder(graph)
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        nodes.append(node)
        if index in chosen:
            nodes += change(node, tensors, add)
    _replace_nodes(graph, nodes)
    _drop_unread(graph, tensors)


def _adder(graph: onnx.GraphProto) -> _Add:
    """Return a function that adds an initializer of the type of another one and returns its name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = _tensor_names(graph)

    def add(original: str, values: NDArray[np.float64]) -> str:
        name = f"{original}/settled"
        while name in taken:
            name += "_"
        taken.add(name)
        dtype = _array(tensors[original], exact=False).dtype
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), name))
        return name

    return add


def _addition(node: onnx.NodeProto, bias: str) -> onnx.NodeProto:
    """Take the bias out of a node; return the node that adds it to the product."""
    result = node.output[0]
    node.output[0] = f"{result}/product"
    del node.input[2:]
    return onnx.helper.make_node("Add", [node.output[0], bias], [result], name=f"{result}/bias")


def _drop_factors(node: onnx.NodeProto) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in ("alpha", "beta")]
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_unread(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Remove initializers of these names that nothing reads any more."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    # Bodies of control flow may capture any of them.
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    unread = set(names) - read
    kept = [tensor for tensor in graph.initializer if tensor.name not in unread]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _factor(node: onnx.NodeProto, name: str) -> float:
    return next((float(attribute.f) for attribute in node.attribute if attribute.name == name), 1.0)


def _columns(node: onnx.NodeProto, weight: TensorProto) -> int:
    return int(weight.dims[0 if is_transposed(node) else -1])


def _input(node: onnx.NodeProto, place: int) -> str:
    return node.input[place] if len(node.input) > place else ""


def _array(tensor: TensorProto, *, exact: bool = True) -> NDArray[np.float64]:
    array = numpy_helper.to_array(tensor)
    return array.astype(np.float64) if exact else array


def _separate(graph: onnx.GraphProto, settings: QuantizationSettings) -> None:
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


def _shield(graph: onnx.GraphProto, settings: QuantizationSettings) -> None:
    """Let every Where read copies of computed tensors.

    In the format of integer operators ONNX Runtime's quantizer forgets to turn what a Where reads back into floats, and
    then refuses its own result; for an Identity it does not, and runtimes remove that.
    """
    taken = _tensor_names(graph)
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
        _replace_nodes(graph, nodes)


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    # Copied, because emptying the list would free the nodes that it holds.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _tensor_names(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    return names | {tensor.name for tensor in graph.initializer}


def _is_unshielded(node: onnx.NodeProto, settings: QuantizationSettings) -> bool:
    return node.op_type == "Where" and settings.format == "qoperator"


def _tied(graph: onnx.GraphProto, settings: QuantizationSettings) -> dict[str, dict[tuple[int, int], str]]:
    """Return the weights that are quantized in several ways, with the way for every place (node, input)."""
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    weights |= {node.output[0] for node in graph.node if is_weight_node(node)}
    places: dict[str, dict[tuple[int, int], str]] = {}
    for index, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name in weights:
                places.setdefault(name, {})[index, place] = _way(index, node, place, settings)
    return {name: ways for name, ways in places.items() if len(set(ways.values())) > 1}


def _way(index: int, node: onnx.NodeProto, place: int, settings: QuantizationSettings) -> str:
    """Return how the tools quantize this input if it is a weight.

    A bias has the scale of the sums it is added to, and QOperator nodes share none; a factor has a scale per channel
    along one of its axes, or, without `per_channel`, as anything else has, one scale. QOperator nodes that only add or
    multiply take other integers.
    """
    if place == 2 and node.op_type in FACTORED:
        return f"bias of {index}" if settings.format == "qoperator" else "bias"
    if place == 1 and node.op_type in FACTORED and settings.per_channel:
        # The axis of the output channels: the first of a Conv's kernel and a transposed matrix, else the second.
        return "rows" if node.op_type == "Conv" or is_transposed(node) else "columns"
    return "activation" if settings.format == "qoperator" and node.op_type in ("Add", "Mul") else "one scale"
