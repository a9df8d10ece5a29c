"""Which node computes what from what, which nodes carry data at all, and which tensors may not be finite.

Four roles: *constant* nodes depend on initializers alone (a weight's DequantizeLinear), *shape* nodes on the shapes of
tensors and constants alone (Shape → Gather → Concat), *state* nodes hand a state to the block that reads it (a
QuantizeLinear that a tool put first), *data* nodes depend on the model's inputs. Only data nodes make up the sub-graphs
that operators skip and cut; the others go wherever they are needed.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from runner.errors import ModelFileError
from runner.graph.model_file import ModelFile, external_bytes, is_external
from runner.graph.runtime import bodies, tensors_read
from runner.graph.shapes import TensorType, TrialRun, corrected, infer_types, input_dimensions, measured_types
from runner.graph.states import State, find_states
from runner.graph.tensor_trial import run_tensors

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


def infinite_tensors(
    nodes: Iterable[onnx.NodeProto], constants: Constants, *, pixels: Collection[str] = ()
) -> frozenset[str]:
    """Return the tensors that may not be finite, overflow aside: all behind an operator not known to be harmless.

    Parameters
    ----------
    nodes
        In the order they run.
    constants
        The value of a constant; None for other tensors.
    pixels
        Inputs of whole numbers up to 255, which a Cast makes numbers of any other type.
    """
    infinite: set[str] = set()
    for node in nodes:
        # An If reads a condition besides, whose numbers go no further.
        reads = set(tensors_read(node)) - (set(node.input) if node.op_type == "If" else set())
        is_harmless = (node.op_type == "Cast" and node.input[0] in pixels) or _is_harmless(node, constants)
        if not infinite.isdisjoint(reads) or not is_harmless:
            infinite.update(node.output)
    return frozenset(infinite)


def pixel_inputs(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the inputs of bytes with four axes: pictures as they are decoded."""
    kinds = ((value.name, value.type.tensor_type) for value in graph.input)
    return frozenset(
        name for name, kind in kinds if kind.elem_type == onnx.TensorProto.UINT8 and len(kind.shape.dim) == 4
    )


def _is_harmless_body(body: onnx.GraphProto, constants: Constants) -> bool:
    """Return whether a body gives finite numbers for finite numbers."""
    own = {tensor.name: tensor for tensor in body.initializer}
    own |= {
        node.output[0]: entry.t
        for node in body.node
        for entry in node.attribute
        if node.op_type == "Constant" and entry.HasField("t")
    }

    def value(name: str) -> NDArray[np.generic] | None:
        if name not in own:
            return constants(name)
        try:
            return numpy_helper.to_array(own[name])
        except ValueError:  # large values stay on disk, and nothing is known of them here
            return np.array(np.inf)

    results = {entry.name for entry in body.output}
    constant = [number for name in results if (number := value(name)) is not None]
    return all(map(_is_finite, constant)) and infinite_tensors(body.node, value).isdisjoint(results)


def _is_harmless(node: onnx.NodeProto, constants: Constants) -> bool:
    """Return whether a node gives finite numbers for finite numbers."""
    # One branch of an If runs, once; what a loop repeats may grow beyond all numbers.
    if node.op_type == "If":
        return all(_is_harmless_body(body, constants) for entry in node.attribute for body in bodies(entry))
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


_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_SHAPE_READERS = frozenset({"Shape", "Size"})
# What they make of a state costs nothing, wherever it is made.
_MOVING = frozenset(
    {"Cast", "DequantizeLinear", "Gather", "Identity", "QuantizeLinear", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
# Without inputs, yet different at each run.
RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def is_control_flow(node: onnx.NodeProto) -> bool:
    """Return whether a node holds graphs of its own."""
    return node.op_type in _CONTROL_FLOW


class Randomness:
    """Which nodes of a model draw random numbers, themselves, in their bodies or in the functions that they call."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions: set[tuple[str, str]] = set()
        constants = {tensor.name: tensor for tensor in model.graph.initializer} | {
            node.output[0]: entry.t
            for node in model.graph.node
            if node.op_type == "Constant"
            for entry in node.attribute
        }
        self._off = {
            name
            for name, tensor in constants.items()
            if tensor.data_type == onnx.TensorProto.BOOL
            and math.prod(tensor.dims) == 1
            and not numpy_helper.to_array(tensor).any()
        }
        # Functions call each other, to any depth and in any order.
        for _ in model.functions:
            before = len(self._functions)
            self._functions |= {
                (function.domain, function.name) for function in model.functions if any(map(self.draws, function.node))
            }
            if len(self._functions) == before:
                break

    def draws(self, node: onnx.NodeProto) -> bool:
        """Return whether a node draws random numbers."""
        if node.op_type in RANDOM or _callee(node) in self._functions or self.is_training(node):
            return True
        graphs = (body for attribute in node.attribute for body in bodies(attribute))
        return any(self.draws(inner) for body in graphs for inner in body.node)

    def is_training(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a Dropout that is not known to be off."""
        return node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] not in {"", *self._off}

    def named(self, nodes: Iterable[onnx.NodeProto]) -> tuple[str, ...]:
        """Return those of the nodes that draw, as `RandomNormal 'noise'`."""
        return tuple(label(node) for node in nodes if self.draws(node))


def label(node: onnx.NodeProto) -> str:
    """Return a node's kind and name, or the name of its first output where it has none: `If 'branch'`."""
    return f"{node.op_type} {node.name or next(filter(None, node.output), '')!r}"


class Role(Enum):
    """What a node's outputs depend on."""

    CONSTANT = "constant"
    SHAPE = "shape"
    STATE = "state"
    DATA = "data"


@dataclass(frozen=True)
class Structure:
    """A model's graph, read for analysis; nodes that reach no output are left out of everything but `nodes`.

    `inputs` are those that are not initializers; `reads[i]` are the tensors node i needs, captured ones included.
    `states` are inputs and outputs beside what is computed: they hide no borders, and cross every cut that parts them.
    `order` is another order in which the live nodes may run than that of the file.
    """

    file: ModelFile
    nodes: tuple[onnx.NodeProto, ...]
    reads: tuple[tuple[str, ...], ...]
    writes: tuple[tuple[str, ...], ...]
    roles: tuple[Role, ...]
    live: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    producer: Mapping[str, int]
    consumers: Mapping[str, tuple[int, ...]]
    types: Mapping[str, TensorType]
    tensor_bytes: Mapping[str, int]
    states: tuple[State, ...] = ()
    early_runs: tuple[TrialRun, ...] | None = None
    order: tuple[int, ...] | None = None

    @cached_property
    def data(self) -> tuple[int, ...]:
        """The data nodes, in the order they run."""
        return tuple(index for index in self.order or self.live if self.roles[index] is Role.DATA)

    @cached_property
    def positions(self) -> Mapping[int, int]:
        """The number of data nodes that run before each live node."""
        positions, count = {}, 0
        for index in self.order or self.live:
            positions[index] = count
            count += self.roles[index] is Role.DATA
        return positions

    @cached_property
    def state_inputs(self) -> frozenset[str]:
        """The inputs that take what outputs gave at the run before."""
        return frozenset(state.input for state in self.states)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The outputs that are no states."""
        next_values = {state.output for state in self.states}
        return tuple(name for name in self.outputs if name not in next_values)

    @cached_property
    def states_behind(self) -> Mapping[str, frozenset[str]]:
        """The states that a state node's output is made of, and of a state itself that one."""
        behind = {name: frozenset({name}) for name in self.state_inputs}
        for index in self.live:
            if self.roles[index] is Role.STATE:
                sources = frozenset().union(*(behind.get(name, frozenset()) for name in self.reads[index]))
                behind |= dict.fromkeys(self.writes[index], sources)
        return behind

    @cached_property
    def node_bytes(self) -> tuple[int, ...]:
        """Bytes of each node, its tensors included, wherever they are stored."""
        return tuple(_stored_bytes(self.file, index) for index in range(len(self.nodes)))

    def role_of(self, tensor: str) -> Role:
        """Return what a tensor depends on."""
        if tensor in self.producer:
            return self.roles[self.producer[tensor]]
        if tensor in self.state_inputs:
            return Role.STATE
        return Role.DATA if tensor in self.inputs else Role.CONSTANT

    def constants_behind(self, tensor: str) -> tuple[frozenset[str], frozenset[int]]:
        """Return the initializers and the nodes that a constant tensor is made of.

        A Constant node that holds a matrix or more counts as an initializer, as some exporters write weights so.
        """
        initializers: set[str] = set()
        nodes: set[int] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            if name in self.producer and name not in self.tensor_bytes:
                if self.producer[name] not in nodes:
                    nodes.add(self.producer[name])
                    waiting += self.reads[self.producer[name]]
            else:
                initializers.add(name)
        return frozenset(initializers), frozenset(nodes)

    @cached_property
    def small_constants(self) -> Mapping[str, onnx.TensorProto]:
        """Constants whose values are in memory: axes, sizes, scales."""
        constants = {
            tensor.name: tensor for tensor in self.file.graph.initializer if tensor.name not in self.file.weights
        }
        for index, node in enumerate(self.nodes):
            if node.op_type == "Constant" and index not in self.file.stored_nodes:
                value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
                constants |= {node.output[0]: value} if value is not None and not is_external(value) else {}
        return constants

    @cached_property
    def pinned_types(self) -> tuple[Mapping[str, TensorType], ...]:
        """Types for two choices of sizes for the free dimensions of the inputs: a computed shape is then a number."""
        dims = [dim for value in self.file.graph.input for dim in input_dimensions(value) or ()]
        names = dict.fromkeys(dim for dim in dims if isinstance(dim, str))
        # Another number for every name, so that two free dimensions never look equal by accident.
        choices = ({name: first + index for index, name in enumerate(names)} for first in (128, 192))
        return tuple(infer_types(self.file.model, sizes=choice) for choice in choices if choice)

    @cached_property
    def trial_runs(self) -> tuple[TrialRun, ...]:
        """Runs of the model that show the types of its inner tensors; none where it could not be run."""
        if self.early_runs is not None:
            return self.early_runs
        return run_tensors(self.file, self._computed, sizes={})

    @property
    def unknown(self) -> tuple[str, ...]:
        """The tensors between data nodes of which neither inference nor a run has shown type and rank."""
        names = (name for index in self.data for name in self.writes[index])
        return tuple(name for name in names if name not in self.types or not self.types[name].is_known)

    @property
    def _computed(self) -> tuple[str, ...]:
        """What live nodes compute from inputs or their shapes."""
        return _computed(self.live, self.roles, self.writes)

    @cached_property
    def possibly_infinite(self) -> frozenset[str]:
        """Tensors that may hold infinities or NaN for ordinary inputs."""
        constants = {tensor.name: tensor for tensor in self.file.graph.initializer} | dict(self.small_constants)

        def value(name: str) -> NDArray[np.generic] | None:
            # Large values inside nodes stay on disk: weights that an exporter wrote so.
            tensor = constants.get(name)
            return None if tensor is None else numpy_helper.to_array(self.file.whole_tensor(tensor))

        nodes = (self.nodes[index] for index in self.live)
        return infinite_tensors(nodes, value, pixels=pixel_inputs(self.file.graph))

    @cached_property
    def branching_functions(self) -> frozenset[tuple[str, str]]:
        """The model's own functions, by domain and name, in which a tensor is read by more than one node.

        Some exporters write each layer of a network as a function, which is one node of the graph.
        """
        branching: set[tuple[str, str]] = set()
        bodies = {(function.domain, function.name): function.node for function in self.file.model.functions}
        # Functions call each other, to any depth and in any order.
        for _ in bodies:
            before = len(branching)
            branching |= {key for key, nodes in bodies.items() if _branches(nodes, branching)}
            if len(branching) == before:
                break
        return frozenset(branching)

    @cached_property
    def control_flow(self) -> tuple[str, ...]:
        """Live nodes that hold graphs of their own, as `If 'branch'`."""
        return tuple(label(self.nodes[index]) for index in self.live if is_control_flow(self.nodes[index]))

    @cached_property
    def captured(self) -> frozenset[str]:
        """Tensors that bodies of control flow read by name from outside."""
        nodes = ((self.nodes[index], self.reads[index]) for index in self.live)
        return frozenset(name for node, reads in nodes if is_control_flow(node) for name in {*reads} - {*node.input})

    @cached_property
    def merged(self) -> frozenset[str]:
        """Captured tensors whose readers ONNX Runtime replaces by a branch, which it then joins with what is before."""
        indices = (
            index
            for index in self.live
            if self.nodes[index].op_type == "If" and self.role_of(self.nodes[index].input[0]) is Role.CONSTANT
        )
        return frozenset(name for index in indices for name in self.reads[index])

    @cached_property
    def random_nodes(self) -> tuple[str, ...]:
        """Live nodes that draw random numbers, themselves or in their bodies, as `RandomNormal 'noise'`."""
        return self.randomness.named(self.nodes[index] for index in self.live)

    @cached_property
    def randomness(self) -> Randomness:
        """Which nodes draw random numbers."""
        return Randomness(self.file.model)


def read_structure(file: ModelFile, *, sizes: Mapping[str, int] | None = None) -> Structure:
    """Read a model's graph; `sizes` pins free dimensions of its inputs by name.

    Raises
    ------
    ModelFileError
        When the graph contradicts itself: a tensor computed twice or never, or from itself.
    """
    graph = file.graph
    nodes = tuple(graph.node)
    reads = tuple(tensors_read(node) for node in nodes)
    writes = tuple(tuple(name for name in node.output if name) for node in nodes)
    sources = {tensor.name for tensor in graph.initializer} | {
        tensor.values.name for tensor in graph.sparse_initializer
    }
    # Before IR version 4 every initializer is among the inputs as well.
    inputs = tuple(value.name for value in graph.input if value.name not in sources)
    outputs = tuple(value.name for value in graph.output)
    producer = _producers(file, reads, writes, sources | set(inputs))
    for name in outputs:
        if name not in producer and name not in sources and name not in inputs:
            raise ModelFileError(file.path, f"nothing computes its output {name!r}")
    # A model with states takes and gives something else as well, so that one with a single input or output has none.
    states = find_states(graph) if min(len(graph.input), len(outputs)) > 1 else ()
    roles = _roles(nodes, reads, producer, inputs, states, Randomness(file.model))
    live = _live(reads, producer, outputs)
    consumers: dict[str, list[int]] = {}
    for index in live:
        # A node that reads a tensor twice is one consumer.
        for name in dict.fromkeys(reads[index]):
            consumers.setdefault(name, []).append(index)
    # The 3 are one byte of tag and at most two of length; what is longer has its exact range in `weights`.
    sizes_on_disk = {tensor.name: tensor.ByteSize() + 3 for tensor in graph.initializer}
    sizes_on_disk |= {tensor.values.name: tensor.ByteSize() + 3 for tensor in graph.sparse_initializer}
    sizes_on_disk |= {name: weight.size_bytes for name, weight in file.weights.items()}
    sizes_on_disk |= {
        node.output[0]: _stored_bytes(file, index) for index, node in enumerate(nodes) if is_weight_node(node)
    }
    types = infer_types(file.model, sizes=sizes)
    runs = _runs(file, _computed(live, roles, writes), types, sizes or {})
    measured = measured_types(runs or ())
    # Another branch, or another number of rounds, may give other sizes than those that runs show.
    for name in _behind_control_flow(nodes[index] for index in live) & measured.keys():
        measured[name] = measured[name].with_free_dims(name)
    types |= {name: shown for name, shown in measured.items() if name not in types or not types[name].is_known}
    # Where the file declares no shape of an input, none is declared behind it either: see `rewriting`.
    if not file.assumed_shapes:
        file = replace(file, model=corrected(file.model, types))
    return Structure(
        file=file, nodes=nodes, reads=reads, writes=writes, roles=roles, live=live, inputs=inputs, outputs=outputs,
        producer=producer, consumers={name: tuple(users) for name, users in consumers.items()},
        types=types, tensor_bytes=sizes_on_disk, states=states, early_runs=runs,
    )  # fmt: skip


def with_late_branches(structure: Structure) -> Structure:
    """Return the structure with each side branch directly before the node that joins it to the longest path.

    Tools such as ONNX Runtime's quantizer sort nodes by their distance from the inputs. What every block of a decoder
    computes from the encoder's output then runs before the first block, and is alive across all of them.
    """
    depth: dict[int, int] = {}
    for index in structure.live:
        made_by = [structure.producer[name] for name in structure.reads[index] if name in structure.producer]
        depth[index] = 1 + max((depth[source] for source in made_by), default=0)
    order: list[int] = []
    done: set[int] = set()
    # A list instead of recursion: networks are thousands of nodes deep.
    waiting = [structure.producer[name] for name in reversed(structure.outputs) if name in structure.producer]
    while waiting:
        index = waiting[-1]
        if index in done:
            waiting.pop()
            continue
        made_by = [structure.producer[name] for name in structure.reads[index] if name in structure.producer]
        missing = [source for source in made_by if source not in done]
        if missing:
            # The last is visited first, which is the deepest: the stream itself.
            waiting.extend(sorted(missing, key=depth.__getitem__))
        else:
            order.append(waiting.pop())
            done.add(index)
    return replace(structure, order=tuple(order))


def _callee(node: onnx.NodeProto) -> tuple[str, str]:
    """Return the function that a node calls, if it calls one, by domain and name."""
    return node.domain, node.op_type


def _branches(nodes: Sequence[onnx.NodeProto], branching: Collection[tuple[str, str]]) -> bool:
    """Return whether a tensor has two readers in a function's body, or a function that branches is called there."""
    readers = Counter(name for node in nodes for name in set(node.input) if name)
    return max(readers.values(), default=0) > 1 or any(_callee(node) in branching for node in nodes)


def _computed(live: tuple[int, ...], roles: tuple[Role, ...], writes: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return what live nodes compute from inputs or from their shapes."""
    return tuple(name for index in live if roles[index] is not Role.CONSTANT for name in writes[index])


def _behind_control_flow(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the tensors that depend on control flow."""
    behind: set[str] = set()
    for node in nodes:
        if is_control_flow(node) or not behind.isdisjoint(tensors_read(node)):
            behind.update(node.output)
    return behind


def _runs(
    file: ModelFile, names: tuple[str, ...], types: Mapping[str, TensorType], sizes: Mapping[str, int]
) -> tuple[TrialRun, ...] | None:
    """Run the model where inference does not know a tensor; return None where there is no need."""
    if all(name in types and types[name].is_known for name in names):
        return None
    return run_tensors(file, names, sizes=sizes)


def is_weight_node(node: onnx.NodeProto) -> bool:
    """Return whether a Constant holds a matrix or more, as some exporters write weights."""
    values = (entry.t for entry in node.attribute if entry.name == "value")
    return node.op_type == "Constant" and any(len(value.dims) > 1 for value in values)


def _stored_bytes(file: ModelFile, index: int) -> int:
    """Return the bytes of a node, its tensors included, wherever they are stored."""
    if index in file.stored_nodes:
        return file.stored_nodes[index].length
    node = file.graph.node[index]
    # The 2 are the tag and the length of the node's own field.
    return int(node.ByteSize()) + 2 + external_bytes(node)


def _producers(
    file: ModelFile, reads: tuple[tuple[str, ...], ...], writes: tuple[tuple[str, ...], ...], sources: set[str]
) -> dict[str, int]:
    producer: dict[str, int] = {}
    computed = {name for names in writes for name in names}
    for index, names in enumerate(reads):
        for name in names:
            if name not in sources and name not in producer:
                # Nodes are sorted where that is possible, so a tensor that comes later is part of a circle.
                why = "and is needed to compute it" if name in computed else "which nothing computes"
                raise ModelFileError(file.path, f"node {index} reads {name!r}, {why}")
        for name in writes[index]:
            if name in producer or name in sources:
                raise ModelFileError(file.path, f"tensor {name!r} is computed twice")
            producer[name] = index
    return producer


def _roles(
    nodes: tuple[onnx.NodeProto, ...],
    reads: tuple[tuple[str, ...], ...],
    producer: Mapping[str, int],
    inputs: tuple[str, ...],
    states: tuple[State, ...],
    randomness: Randomness,
) -> tuple[Role, ...]:
    by_input = dict.fromkeys(inputs, Role.DATA) | dict.fromkeys((state.input for state in states), Role.STATE)
    roles: list[Role] = []
    for index, node in enumerate(nodes):
        kinds = {
            roles[producer[name]] if name in producer else by_input.get(name, Role.CONSTANT) for name in reads[index]
        }
        # The result holds sizes alone, whatever numbers went in.
        if node.op_type in _SHAPE_READERS:
            roles.append(Role.CONSTANT if kinds == {Role.CONSTANT} else Role.SHAPE)
        elif Role.DATA in kinds or randomness.draws(node):
            roles.append(Role.DATA)
        elif Role.STATE in kinds:
            roles.append(Role.STATE if node.op_type in _MOVING and Role.SHAPE not in kinds else Role.DATA)
        else:
            roles.append(Role.SHAPE if Role.SHAPE in kinds else Role.CONSTANT)
    return tuple(roles)


def _live(reads: tuple[tuple[str, ...], ...], producer: Mapping[str, int], outputs: tuple[str, ...]) -> tuple[int, ...]:
    """Return the nodes that an output needs, in order."""
    needed = {producer[name] for name in outputs if name in producer}
    # Backwards once: nodes are in topological order, which `_producers` has checked.
    for index in range(len(reads) - 1, -1, -1):
        if index in needed:
            needed.update(producer[name] for name in reads[index] if name in producer)
    return tuple(sorted(needed))


@dataclass(frozen=True)
class Region:
    """Data nodes `[start, end)` of `Structure.data`, with one tensor (or the model's inputs) in and one out.

    `result` is None at the end of a model with several outputs.
    """

    start: int
    end: int
    entries: tuple[str, ...]
    result: str | None
    branching: bool


@dataclass(frozen=True)
class RegionLayout:
    """The regions in order, and the constants each data node draws on, by position in `Structure.data`."""

    regions: tuple[Region, ...]
    initializers: tuple[frozenset[str], ...]
    own_bytes: tuple[int, ...]
    users: Mapping[str, tuple[int, ...]]


def lay_out(structure: Structure) -> RegionLayout:
    """Divide the graph into regions and attribute the constants to the nodes that use them."""
    initializers, own_bytes = _attribute(structure)
    users: dict[str, list[int]] = {}
    for position, names in enumerate(initializers):
        for name in names:
            users.setdefault(name, []).append(position)
    regions = _sweep(structure, initializers)
    return RegionLayout(regions, initializers, own_bytes, {name: tuple(positions) for name, positions in users.items()})


def _attribute(structure: Structure) -> tuple[tuple[frozenset[str], ...], tuple[int, ...]]:
    """Return, per data node, the initializers behind it, and the bytes of the node with its constant nodes."""
    behind: dict[str, tuple[frozenset[str], frozenset[int]]] = {}
    initializers, own_bytes = [], []
    for index in structure.data:
        names: set[str] = set()
        nodes = {index}
        for tensor in structure.reads[index]:
            if structure.role_of(tensor) is Role.CONSTANT:
                constants = behind.setdefault(tensor, structure.constants_behind(tensor))
                names |= constants[0]
                nodes |= constants[1]
        initializers.append(frozenset(names))
        own_bytes.append(sum(structure.node_bytes[node] for node in nodes))
    return tuple(initializers), tuple(own_bytes)


def _sweep(structure: Structure, initializers: tuple[frozenset[str], ...]) -> tuple[Region, ...]:
    """Return the regions, found from the live set after each data node."""
    last_use = last_uses(structure)
    alive = {name for name in structure.inputs if name in last_use}
    entries, start = tuple(sorted(alive)), 0
    regions: list[Region] = []
    for position, index in enumerate(structure.data):
        alive.update(name for name in structure.writes[index] if name in last_use)
        alive -= {name for name in structure.reads[index] if last_use.get(name) == position}
        at_end = position == len(structure.data) - 1
        # One live tensor separates what is before it from what is after it: nothing else passes (paper, section 4.5.3).
        if len(alive) == 1 or at_end:
            (result,) = alive if len(alive) == 1 else (None,)
            branching = is_branching(structure, initializers, start, position + 1)
            regions.append(Region(start, position + 1, entries, result, branching))
            entries, start = tuple(sorted(alive)), position + 1
    return tuple(regions)


def is_branching(structure: Structure, initializers: Sequence[frozenset[str]], start: int, end: int) -> bool:
    """Return whether a region between two separators is a sub-graph: it holds weights, and more than one path."""
    if not any(is_weighty(structure, name) for names in initializers[start:end] for name in names):
        return False
    return end - start > 1 or _callee(structure.nodes[structure.data[start]]) in structure.branching_functions


def last_uses(structure: Structure) -> dict[str, int]:
    """Return the position of the last data node that reads a tensor; outputs but states are needed to the end."""
    last: dict[str, int] = {}
    for position, index in enumerate(structure.data):
        for name in structure.reads[index]:
            if structure.role_of(name) is Role.DATA:
                last[name] = position
    return last | dict.fromkeys(structure.results, len(structure.data))


def is_weighty(structure: Structure, initializer: str) -> bool:
    """Return whether an initializer is the weight of a layer and not a bias, a scale or a shape."""
    tensor_type = structure.types.get(initializer)
    return tensor_type is not None and tensor_type.dims is not None and sum(size != 1 for size in tensor_type.dims) > 1
