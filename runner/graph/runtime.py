"""What ONNX Runtime runs and ONNX refuses, what it and a tier's protocol serve, and what its errors say in one line.

It runs files whose nodes are in no order: tools that insert nodes append them at the end (onnxconverter-common's
conversion to half precision does). It takes anything for an input without a shape. A convolution, a matrix product or a
transposition behind the input says how many axes it has and how many channels; where only the length of one axis is
known, the number of axes is a guess, which a run has to confirm.

It serves tensors of numbers, as inputs, outputs and across a cut.
"""

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto, helper

# Not among them: bfloat16, strings, complex numbers and integers of four bits.
SERVED_TYPES = frozenset(
    {TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
)
REMEDY = (
    "Export the model without that output, or with numbers in its place: skl2onnx does so for classifiers with "
    "options={'zipmap': False}"
)


def unserved_outputs(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the outputs that no tier serves, with what they are: `'probabilities' is a sequence of maps`."""
    return tuple(
        f"{value.name!r} is {kind}" for value in graph.output if (kind := _unserved_kind(value.type)) is not None
    )


def emptiness(graph: onnx.GraphProto) -> str | None:
    """Say why no input of a model holds a number, where each declares an axis of length 0; None where some do."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    empty = [value.name for value in inputs if any(map(_is_nothing, value.type.tensor_type.shape.dim))]
    if not empty or len(empty) < len(inputs):
        return None
    return (
        f"an axis of length 0 is declared for {', '.join(map(repr, empty))}, and ONNX Runtime takes no other length: "
        "no sample holds a number; export the model with that axis free, or of its length"
    )


def _is_nothing(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value == 0


def _unserved_kind(declared: onnx.TypeProto) -> str | None:
    """Return what a value is in words; None for tensors that are served or of undeclared type."""
    kind = declared.WhichOneof("value")
    if kind == "sequence_type":
        return "a sequence of maps" if declared.sequence_type.elem_type.HasField("map_type") else "a sequence"
    if kind in ("map_type", "optional_type", "sparse_tensor_type"):
        return {"map_type": "a map", "optional_type": "optional"}.get(kind, "a sparse tensor")
    elem_type = declared.tensor_type.elem_type
    if not elem_type or elem_type in SERVED_TYPES:
        return None
    return f"a tensor({TensorProto.DataType.Name(elem_type).lower()})"


_PREFIX = re.compile(
    r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from \S+ failed:)?"
    r"(?:/\S+\.(?:cc|h):\d+: \w+: Assertion `[^`]*` failed: )?\s*"
)


def brief(error: Exception) -> str:
    """Return the first line of an error's message, without the engine's prefix and without paths of our own files.

    Examples
    --------
    >>> brief(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/model.onnx failed:Type Error\\nmore"))
    'Type Error'
    >>> brief(KeyError())
    'KeyError'
    """
    lines = str(error).strip().splitlines()
    text = _PREFIX.sub("", lines[0]) if lines else ""
    return text or type(error).__name__


# None for a free dimension.
Shape = tuple[int | None, ...]

# Numbers change in them, axes do not: what is behind them says as much of the input as what is at once behind it.
_KEEPING_AXES = frozenset(
    {"Abs", "Cast", "CastLike", "Clip", "DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Elu", "Erf", "Exp"}
    | {"Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LpNormalization", "Neg", "Normalizer"}
    | {"QuantizeLinear", "Relu", "Scaler", "Sigmoid", "Softmax", "Sqrt", "Tanh"}
)
_ARITHMETIC = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub"})
# The place of the weights among the inputs.
_CONVOLUTIONS: Mapping[str, int] = {
    "Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "FusedConv": 1, "QLinearConv": 3,
}  # fmt: skip
_PRODUCTS: Mapping[str, int] = {"MatMul": 1, "MatMulInteger": 1, "FusedMatMul": 1, "QLinearMatMul": 3}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
# Of ai.onnx.ml: they take a table of features.
_TABLES = frozenset(
    {"LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor", "TreeEnsemble", "TreeEnsembleClassifier"}
    | {"TreeEnsembleRegressor"}
)
# Where nothing behind an input says anything: a table, a sequence, pictures of either layout, a row, a number.
_GUESSES: tuple[Shape, ...] = (
    (None, None),
    (None, None, None),
    (None, 3, None, None),
    (None, None, None, 3),
    (None,),
    (),
)


@dataclass(frozen=True)
class AssumedShape:
    """A shape that an input without one may have; `reason` says where it was read.

    `certain` says that the model runs on no other number of axes.
    """

    dims: Shape
    certain: bool
    reason: str


def settle_inputs(graph: onnx.GraphProto) -> dict[str, str]:
    """Give inputs without a shape the one that is certain, if there is one; return why by input without a shape."""
    reasons: dict[str, str] = {}
    for value in shapeless_inputs(graph):
        likely = likely_shapes(graph, value.name)[0]
        reasons[value.name] = likely.reason
        if likely.certain:
            declare_shape(value, likely.dims)
    return reasons


def shapeless_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a model that are tensors without a declared shape."""
    stored = {tensor.name for tensor in graph.initializer}
    return [
        value
        for value in graph.input
        if value.name not in stored
        and value.type.HasField("tensor_type")
        and not value.type.tensor_type.HasField("shape")
    ]


def guesses(graph: onnx.GraphProto) -> int:
    """Return how many guesses there are for the inputs without a shape; 0 where there are no such inputs."""
    return max((len(likely_shapes(graph, value.name)) for value in shapeless_inputs(graph)), default=0)


def guessed_shapes(graph: onnx.GraphProto, number: int) -> dict[str, AssumedShape]:
    """Return one guess for every input without a shape; an input with fewer guesses has its last."""
    likely = {value.name: likely_shapes(graph, value.name) for value in shapeless_inputs(graph)}
    return {name: shapes[min(number, len(shapes) - 1)] for name, shapes in likely.items()}


def declare_shape(value: onnx.ValueInfoProto, dims: Shape) -> None:
    """Give an input a shape; its free dimensions stay without a name."""
    elem_type = value.type.tensor_type.elem_type
    value.type.CopyFrom(helper.make_tensor_type_proto(elem_type, dims))


def likely_shapes(graph: onnx.GraphProto, name: str) -> tuple[AssumedShape, ...]:
    """Return shapes that an input may have, the likeliest first; one alone where it is certain.

    Examples
    --------
    >>> from runner.graph.model_file import read_model
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> graph = read_model(BUILTIN / "fashion-resnet.onnx").graph
    >>> likely_shapes(graph, graph.input[0].name)[0].dims
    (None, 1, None, None)
    """
    clues = list(_Clues(graph).behind(name))
    certain = [clue for clue in clues if clue.certain]
    if certain:
        # Several certain ones are of one number of axes; each may know the length of another axis.
        same = [clue for clue in certain if len(clue.dims) == len(certain[0].dims)]
        lengths = zip(*(clue.dims for clue in same), strict=True)
        dims = tuple(next((size for size in sizes if size is not None), None) for sizes in lengths)
        return (AssumedShape(dims, True, certain[0].reason),)
    guesses = (AssumedShape(dims, False, "nothing in the model says more") for dims in _GUESSES)
    return tuple({shape.dims: shape for shape in reversed([*clues, *guesses])}.values())[::-1]


@dataclass(frozen=True)
class _Stop:
    """A tensor on the way from an input, and where its axes are among those of the input; None where unchanged."""

    name: str
    axes: tuple[int, ...] | None = None


class _Clues:
    """What the nodes of a graph say of a tensor's axes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self._consumers.setdefault(name, []).append(node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            if node.op_type == "Constant" and values:
                self._constants[node.output[0]] = values[0]
        self._declared = {value.name: value for value in graph.value_info}

    def behind(self, name: str) -> Iterator[AssumedShape]:
        """Yield the clues, the nearest first; the last resorts at the end."""
        waiting, seen = [_Stop(name)], {name}
        guesses: list[AssumedShape] = []
        while waiting:
            stop = waiting.pop(0)
            if (declared := self._of_value_info(stop)) is not None:
                yield declared
            for node in self._consumers.get(stop.name, ()):
                for clue in self._of_node(node, stop):
                    if clue.certain:
                        yield clue
                    else:
                        guesses.append(clue)
                following = self._after(node, stop)
                if following is not None and following.name not in seen:
                    seen.add(following.name)
                    waiting.append(following)
        yield from guesses

    def _of_value_info(self, stop: _Stop) -> AssumedShape | None:
        value = self._declared.get(stop.name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim)
        return _settled(sizes, stop, f"the file declares the shape of {stop.name}")

    def _of_node(self, node: onnx.NodeProto, stop: _Stop) -> Iterator[AssumedShape]:
        """Yield what a node says of one of its inputs."""
        label = f"{node.op_type} {node.name}".strip()
        place = list(node.input).index(stop.name)
        sizes = self._fixed(node, place)
        if sizes is not None:
            yield _settled(sizes, stop, f"{label} takes it")
        for dims in self._possible(node, place) if stop.axes is None else ():
            yield AssumedShape(dims, False, f"{label} takes it, whose weights fix the length of an axis alone")

    def _fixed(self, node: onnx.NodeProto, place: int) -> Shape | None:
        """Return the sizes where a node takes one number of axes alone."""
        op_type, rank = node.op_type, self._rank(node)
        if place == 0 and op_type in _CONVOLUTIONS:
            weights = self._dims(node, _CONVOLUTIONS[op_type])
            if len(weights) < 3:
                return None
            channels = weights[0] if op_type == "ConvTranspose" else weights[1] * _number(node, "group", 1)
            return (None, channels, *(None for _ in weights[2:]))
        if place == 0 and op_type == "Gemm":
            weights = self._dims(node, 1)
            length = weights[1 if _number(node, "transB", 0) else 0] if len(weights) == 2 else None
            return (length, None) if _number(node, "transA", 0) else (None, length)
        if place == 0 and op_type in _RECURRENT:
            weights = self._dims(node, 1)
            return (None, None, weights[2] if len(weights) == 3 else None)
        if place == 0 and op_type in _TABLES:
            return (None, None)
        return (None,) * rank if rank and place == 0 else None

    def _rank(self, node: onnx.NodeProto) -> int:
        """Return how many axes the first input has by what attributes and constants say; 0 where they say nothing."""
        if node.op_type in _POOLS:
            return 2 + len(_numbers(node, "kernel_shape"))
        if node.op_type == "Transpose":
            return len(_numbers(node, "perm"))
        # They list a number for each axis, unless axes are named as well.
        if node.op_type == "Pad" and len(node.input) < 4:
            return (self._length(node, 1) or len(_numbers(node, "pads"))) // 2
        if node.op_type == "Resize" and not _numbers(node, "axes"):
            scales = 1 if len(node.input) == 2 else 2
            return self._length(node, scales) or self._length(node, 3)
        return self._length(node, 1) if node.op_type in ("Tile", "Upsample") else 0

    def _possible(self, node: onnx.NodeProto, place: int) -> Iterator[Shape]:
        """Yield the sizes that a node takes among others."""
        if place == 0 and node.op_type in _PRODUCTS:
            *_, length, _ = (0, 0, *self._dims(node, _PRODUCTS[node.op_type]))
            yield from ((None, length), (None, None, length)) if length else ()
        elif place == 0 and node.op_type in ("LayerNormalization", "SimplifiedLayerNormalization"):
            length = next(iter(self._dims(node, 1)), 0)
            yield from ((None, None, length), (None, length)) if length else ()
        elif place == 0 and node.op_type == "BatchNormalization":
            channels = next(iter(self._dims(node, 1)), None)
            yield from ((None, channels, None, None), (None, channels), (None, channels, None))
        elif place == 0 and node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"):
            yield from ((None, 3, None, None), (None, 3, None))
        elif place == 1 and node.op_type == "Gather":
            yield from ((None, None), (None,))
        elif node.op_type in _ARITHMETIC:
            dims = next((sizes for other in range(len(node.input)) if (sizes := self._dims(node, other))), ())
            free = tuple(None if size == 1 else size for size in dims)
            yield from (free,) if len(dims) > 2 else ((None, *free[-1:]),) if free else ()

    def _after(self, node: onnx.NodeProto, stop: _Stop) -> _Stop | None:
        """Return the output of a node that keeps the axes of its input, or only puts them in another order."""
        if node.op_type == "Transpose" and (order := _numbers(node, "perm")):
            before = stop.axes or tuple(range(len(order)))
            return _Stop(node.output[0], tuple(before[axis] for axis in order)) if len(before) == len(order) else None
        constants = [name for name in node.input if name != stop.name and name]
        plain = node.op_type in _ARITHMETIC and all(name in self._constants for name in constants)
        if not plain and node.op_type not in _KEEPING_AXES | {"BatchNormalization"} | _POOLS:
            return None
        return _Stop(node.output[0], stop.axes)

    def _dims(self, node: onnx.NodeProto, place: int) -> tuple[int, ...]:
        """Return the dimensions of a constant input; none where it is computed or absent."""
        name = node.input[place] if place < len(node.input) else ""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        # Weights that are stored as integers, and made numbers where they are read.
        source = self._quantized.get(name, "")
        return tuple(self._constants[source].dims) if source in self._constants else ()

    @cached_property
    def _quantized(self) -> Mapping[str, str]:
        """The sources of dequantized tensors and casts."""
        return {
            node.output[0]: node.input[0]
            for nodes in self._consumers.values()
            for node in nodes
            if node.op_type in ("Cast", "DequantizeLinear") and node.input[0] in self._constants
        }

    def _length(self, node: onnx.NodeProto, place: int) -> int:
        """Return how many numbers a constant list has."""
        dims = self._dims(node, place)
        return dims[0] if len(dims) == 1 else 0


def _settled(sizes: Shape, stop: _Stop, reason: str) -> AssumedShape:
    """Return sizes in the order of the input's axes."""
    if stop.axes is None:
        return AssumedShape(sizes, True, reason)
    by_axis = dict(zip(stop.axes, sizes, strict=False))
    return AssumedShape(tuple(by_axis.get(axis) for axis in range(len(stop.axes))), True, reason)


def _numbers(node: onnx.NodeProto, name: str) -> Sequence[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == name), [])


def _number(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def tensors_read(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the inputs by name, and the tensors that graphs inside the node capture."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in bodies(attribute):
            names += _captured(graph)
    return tuple(names)


def sort_nodes(graph: onnx.GraphProto) -> list[int] | None:
    """Sort the nodes of a graph, and of the graphs inside them, so that each follows what it reads.

    Nodes keep their order where it allows that; those of a circle are left as they are, for the reader to refuse.

    Returns
    -------
    list of int or None
        The former index of every node; None where nothing moved.
    """
    for node in graph.node:
        for attribute in node.attribute:
            for body in bodies(attribute):
                sort_nodes(body)
    order = _topological_order(graph)
    if order is None or order == list(range(len(graph.node))):
        return None
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)
    return order


def unify_domains(graph: onnx.GraphProto) -> None:
    """Let every node of ONNX's own domain name it as the empty text, which is the only name that the checker knows."""
    for node in graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        for attribute in node.attribute:
            for body in bodies(attribute):
                unify_domains(body)


def _topological_order(graph: onnx.GraphProto) -> list[int] | None:
    """Return the nodes in an order in which each follows what it reads; None where a circle allows none."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = [{producer[name] for name in tensors_read(node) if name in producer} for node in graph.node]
    # Nearly every file is in order, which one look at each node shows.
    if all(max(sources, default=-1) < index for index, sources in enumerate(before)):
        return list(range(len(before)))
    after: dict[int, list[int]] = {}
    for index, sources in enumerate(before):
        for source in sources:
            after.setdefault(source, []).append(index)
    waiting = [len(sources) for sources in before]
    # A heap keeps the order of the file among the nodes that could be next.
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in after.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    return order if len(order) == len(before) else None


def bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """Return the graphs that an attribute holds."""
    return ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)


def _captured(graph: onnx.GraphProto) -> list[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    names = [name for node in graph.node for name in tensors_read(node)] + [value.name for value in graph.output]
    return [name for name in names if name not in own]
