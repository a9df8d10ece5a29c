"""Names that stay unique when a tool adds its own.

onnxruntime.quantization calls what it adds after the tensor that it belongs to (`w_scale`, `x_QuantizeLinear_Output`)
and does not look whether the model has a tensor of that name already. Where it does, one of the two is renamed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import onnx

from runner.operators.quantizers.readers import READERS_OF_BIAS, bias_of

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
