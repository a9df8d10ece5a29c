"""Types and shapes of a graph's tensors, exact where dimensions are free.

ONNX's shape inference invents a new symbol wherever a free dimension meets arithmetic, so that two tensors of the same
shape look different. Here such a dimension is written as the expression that computes it (`(height-1)//2+1`): equal
expressions are equal sizes.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper, shape_inference

from runner.graph.model_file import is_external, tensors_in

Dimension = int | str

# Names that exporters write for every dimension of which they know nothing: equal ones say nothing of equal sizes.
_NAMELESS = frozenset({"", "?", "*", "-1", "None", "none", "unk", "unknown", "dynamic"})
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"})
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Mean", "Pow", "Where", "PRelu"})
_CONSTANT_AT_THE_END = re.compile(r"(.+)([+-]\d+)")
# What shape inference does not know, and what it is replaced by: op_type and the inputs that matter to the shape.
_STAND_INS: Mapping[str, tuple[str, Callable[[int], Sequence[int]]]] = {
    "QLinearAdd": ("Add", lambda count: (0, 3)),
    "QLinearMul": ("Mul", lambda count: (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", lambda count: (0,)),
    "QLinearAveragePool": ("AveragePool", lambda count: (0,)),
    "QLinearLeakyRelu": ("Identity", lambda count: (0,)),
    "QLinearSigmoid": ("Identity", lambda count: (0,)),
    "QLinearSoftmax": ("Identity", lambda count: (0,)),
    "QLinearConcat": ("Concat", lambda count: range(2, count, 3)),
    "QGemm": ("Gemm", lambda count: (0, 3)),
}


@dataclass(frozen=True)
class TensorType:
    """Element type (as ONNX numbers it) and dimensions; a free dimension is an expression, `None` an unknown rank.

    `container` marks a sequence, a map or an optional value, which is no tensor and has neither.
    """

    elem_type: int
    dims: tuple[Dimension, ...] | None
    container: bool = False

    @property
    def size_bytes(self) -> int | None:
        """Bytes of such a tensor; None while a dimension is free."""
        if self.dims is None or self.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            return None
        total: int = helper.tensor_dtype_to_np_dtype(self.elem_type).itemsize
        for size in self.dims:
            if isinstance(size, str):
                return None
            total *= size
        return total

    def with_free_dims(self, name: str) -> "TensorType":
        """Return the type with every dimension free, named after the tensor."""
        free = None if self.dims is None else tuple(f"{name}.{axis}" for axis in range(len(self.dims)))
        return replace(self, dims=free)

    @property
    def is_known(self) -> bool:
        """Whether the element type and the number of dimensions are known, or there are none."""
        return self.container or (self.dims is not None and self.elem_type != TensorProto.UNDEFINED)


def declared_size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    """Return the size that a file declares for a dimension; None where it is free.

    Besides a name or nothing at all, exporters write -1 or 0 for a free dimension.
    """
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None


def input_dimensions(value: onnx.ValueInfoProto) -> tuple[Dimension, ...] | None:
    """Return the dimensions of an input, every free one with a name of its own; None where it declares no shape."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    names = Counter(dim.dim_param for dim in tensor.shape.dim)
    return tuple(
        # A name on several axes of one input cannot mean one size: exporters write `?` or `unk` for all of them.
        (f"{value.name}.{axis}" if dim.dim_param in _NAMELESS or names[dim.dim_param] > 1 else dim.dim_param)
        if (size := declared_size(dim)) is None
        else size
        for axis, dim in enumerate(tensor.shape.dim)
    )


def infer_types(model: onnx.ModelProto, *, sizes: Mapping[str, int] | None = None) -> dict[str, TensorType]:
    """Return the type of every tensor that can be inferred; `sizes` pins free dimensions of the inputs by name.

    What the file declares of inner tensors and outputs counts where inference does not contradict it.
    """
    prepared = _prepared(model, sizes or {})
    declarations = _take_declarations(prepared.graph)
    inferred = _inferred(prepared)
    helpful = [value for value in declarations if _is_helpful(value, inferred.get(value.name))]
    if helpful:
        _declare(prepared.graph, helpful)
        inferred = _inferred(prepared)
    declared = {dim for value in prepared.graph.input for dim in _dims(value) or ()}
    resolved = dict(inferred)
    meaning: dict[str, Dimension] = {}
    for node in model.graph.node:
        for index, output in enumerate(node.output):
            tensor_type = inferred.get(output)
            if tensor_type is None or tensor_type.dims is None:
                continue
            dims = []
            for axis, dim in enumerate(tensor_type.dims):
                if isinstance(dim, str) and dim not in declared and dim not in meaning:
                    meaning[dim] = (
                        _expression(node, axis, len(tensor_type.dims), resolved) if index == 0 else None
                    ) or dim
                dims.append(meaning.get(dim, dim) if isinstance(dim, str) else dim)
            resolved[output] = TensorType(tensor_type.elem_type, tuple(dims))
    return resolved


def _prepared(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy that shape inference understands, and whose free dimensions have meaningful names.

    The names of inner dimensions in a file are not reliable: exporters write `?` or `unk` for all of them, and equal
    names would be taken for equal sizes. So only the inputs name dimensions (`input_dimensions`); sizes inside are
    computed from these.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in filter(is_external, tensors_in(copy)):  # shape inference would look for their values in memory
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    for value in copy.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, input_dimensions(value) or (), strict=False):
            if isinstance(name, int):
                continue
            pinned = sizes.get(dim.dim_param or name, sizes.get(name))
            if pinned is None:
                dim.dim_param = name
            else:
                dim.dim_value = pinned
    if sizes:
        # What was inferred for free dimensions would contradict the pinned ones.
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    for value in (*copy.graph.value_info, *copy.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if declared_size(dim) is None:
                dim.ClearField("value")
    for node in copy.graph.node:
        if node.domain == "com.microsoft" and node.op_type in _STAND_INS:
            op_type, chosen = _STAND_INS[node.op_type]
            inputs = [node.input[index] for index in chosen(len(node.input)) if index < len(node.input)]
            node.domain, node.op_type = "", op_type
            del node.input[:]
            node.input.extend(inputs)
    return copy


def _take_declarations(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Remove from a graph what it declares of inner tensors and outputs, and return that."""
    declarations = [value for value in (*graph.value_info, *graph.output) if value.type.HasField("tensor_type")]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in declarations]
    del graph.value_info[:]
    for value in graph.output:
        # The element type stays: a file whose outputs have another one is not run anyway. A sequence has no shape, and
        # to clear that would make a tensor of it.
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return [value for value in copies if value.type.tensor_type.HasField("shape")]


def _declare(graph: onnx.GraphProto, declarations: Sequence[onnx.ValueInfoProto]) -> None:
    """Add declarations to a graph that has none."""
    outputs = {value.name: value for value in graph.output}
    for value in declarations:
        if value.name in outputs:
            outputs[value.name].CopyFrom(value)
        else:
            graph.value_info.append(value)


def contradicts(value: onnx.ValueInfoProto, tensor_type: TensorType | None) -> bool:
    """Return whether a declaration cannot be true of a tensor of this type."""
    declared = value.type.tensor_type
    if tensor_type is None:
        return False
    if tensor_type.elem_type and declared.elem_type and tensor_type.elem_type != declared.elem_type:
        return True
    if tensor_type.dims is None or not declared.HasField("shape"):
        return False
    sizes = [declared_size(dim) for dim in declared.shape.dim]
    return len(sizes) != len(tensor_type.dims) or any(
        size is not None and isinstance(dim, int) and size != dim
        for size, dim in zip(sizes, tensor_type.dims, strict=True)
    )


def corrected(model: onnx.ModelProto, types: Mapping[str, TensorType]) -> onnx.ModelProto:
    """Return the model with declarations that can be true: those that cannot be are replaced for outputs, else dropped.

    ONNX Runtime runs files whose outputs declare no shape, or a wrong one; ONNX's checker, and tools, refuse them.
    """
    wrong = {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.HasField("tensor_type") and contradicts(value, types.get(value.name))
    }
    wrong |= {value.name for value in model.graph.output if _lacks_shape(value)}
    if not wrong and model.graph.name:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.name = copy.graph.name or "graph"
    kept = [value for value in model.graph.value_info if value.name not in wrong]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(kept)
    for value in copy.graph.output:
        tensor_type = types.get(value.name)
        if value.name in wrong and tensor_type is not None and not tensor_type.container and tensor_type.is_known:
            value.CopyFrom(helper.make_tensor_value_info(value.name, tensor_type.elem_type, tensor_type.dims))
    return copy


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    """Return whether an output declares no type at all, or a tensor without a shape."""
    kind = value.type.WhichOneof("value")
    return kind is None or (kind == "tensor_type" and not value.type.tensor_type.HasField("shape"))


def _is_helpful(value: onnx.ValueInfoProto, tensor_type: TensorType | None) -> bool:
    """Return whether a declaration says more than was inferred, without contradicting that."""
    if tensor_type is None or tensor_type.dims is None or not tensor_type.elem_type:
        return not contradicts(value, tensor_type)
    sizes = [declared_size(dim) for dim in value.type.tensor_type.shape.dim]
    more = any(size is not None and isinstance(dim, str) for size, dim in zip(sizes, tensor_type.dims, strict=False))
    return more and not contradicts(value, tensor_type)


def _inferred(model: onnx.ModelProto) -> dict[str, TensorType]:
    inferred = model
    # With data propagation first: shapes that are computed (Shape → Gather → Reshape) are known only so.
    for data_prop in (True, False):
        # Inference is optional: a model that it cannot process keeps the types it declares.
        with contextlib.suppress(shape_inference.InferenceError, RuntimeError, ValueError, TypeError):
            inferred = shape_inference.infer_shapes(model, data_prop=data_prop)
            break
    graph = inferred.graph
    types = {
        value.name: TensorType(value.type.tensor_type.elem_type, _dims(value))
        if value.type.HasField("tensor_type")
        else TensorType(TensorProto.UNDEFINED, None, container=True)
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.WhichOneof("value") is not None
    }
    for tensor in graph.initializer:
        types[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
    return types


def _dims(value: onnx.ValueInfoProto) -> tuple[Dimension, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{value.name}.{axis}"
        for axis, dim in enumerate(tensor.shape.dim)
    )


def _expression(node: onnx.NodeProto, axis: int, rank: int, types: Mapping[str, TensorType]) -> Dimension | None:
    """Return how this node computes a dimension of its first output; None for nodes that are not followed."""
    inputs = [known_type.dims for name in node.input if (known_type := types.get(name)) and known_type.dims is not None]
    if node.op_type in _BROADCASTING or node.op_type in ("QLinearAdd", "QLinearMul"):
        aligned = {dims[axis - rank + len(dims)] for dims in inputs if axis - rank + len(dims) >= 0} - {1}
        return aligned.pop() if len(aligned) == 1 else None
    if node.op_type in _POOLS or node.op_type in _CONVOLUTIONS:
        first = types.get(node.input[0])
        return _window(node, axis, first.dims[axis], types) if first and first.dims and axis > 1 else None
    if node.op_type == "Concat" and axis != _attributes(node).get("axis", 0) % rank:
        aligned = {dims[axis] for dims in inputs if len(dims) == rank}
        return aligned.pop() if len(aligned) == 1 else None
    return None


def _window(node: onnx.NodeProto, axis: int, size: Dimension, types: Mapping[str, TensorType]) -> Dimension | None:
    """Return a spatial dimension after a convolution or pooling: (size + padding - extent) // stride + 1."""
    attributes = _attributes(node)
    spatial = axis - 2
    kernel = attributes.get("kernel_shape")
    if kernel is None and node.op_type in _CONVOLUTIONS:
        weight = types.get(node.input[_CONVOLUTIONS[node.op_type]])
        kernel = weight.dims[2:] if weight and weight.dims else None
    # SAME pads by the size itself, which is free here.
    if kernel is None or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        return None
    pads = attributes.get("pads") or [0] * (2 * len(kernel))
    stride = (attributes.get("strides") or [1] * len(kernel))[spatial]
    dilation = (attributes.get("dilations") or [1] * len(kernel))[spatial]
    # The formula of ONNX's Conv and pooling operators; a dilated kernel reaches dilation * (kernel - 1) + 1 far.
    margin = pads[spatial] + pads[spatial + len(kernel)] - dilation * (kernel[spatial] - 1)
    if stride == 1:
        return _shifted(size, margin)
    rounding = "ceil" if attributes.get("ceil_mode") else ""
    return _shifted(f"{rounding}({_shifted(size, margin - 1)})//{stride}", 1)


def _shifted(size: Dimension, offset: int) -> Dimension:
    """Return `size + offset`, with one constant at the end after any number of shifts."""
    if isinstance(size, int):
        return size + offset
    last = _CONSTANT_AT_THE_END.fullmatch(size)
    if last and last[1].count("(") == last[1].count(")"):
        size, offset = last[1], offset + int(last[2])
    return f"{size}{offset:+d}" if offset else size


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


@dataclass(frozen=True)
class TrialRun:
    """One run: the sizes that free dimensions of the inputs had, and the type of every tensor that was looked at."""

    sizes: Mapping[str, int]
    types: Mapping[str, TensorType]


def measured_types(runs: Sequence[TrialRun]) -> dict[str, TensorType]:
    """Return the types that two runs show; a dimension that differs between them is free.

    One run alone does not say which dimensions are free, so that all of them count as free.
    """
    if len(runs) < 2:
        return {
            name: TensorType(shown.elem_type, tuple(f"{name}.{axis}" for axis, _ in enumerate(shown.dims or ())))
            for run in runs
            for name, shown in run.types.items()
        }
    first, second = runs
    types: dict[str, TensorType] = {}
    for name, one in first.types.items():
        other = second.types.get(name)
        if one.container:
            types[name] = one
        if other is None or one.dims is None or other.dims is None or len(one.dims) != len(other.dims):
            continue
        pairs = zip(one.dims, other.dims, strict=True)
        dims = tuple(_dimension(runs, pair, f"{name}.{axis}") for axis, pair in enumerate(pairs))
        types[name] = TensorType(one.elem_type, dims)
    return types


def _dimension(runs: Sequence[TrialRun], pair: tuple[Dimension, Dimension], own_name: str) -> Dimension:
    """Return a size, the one dimension of the inputs that has both sizes, or a name of the tensor's own."""
    if pair[0] == pair[1]:
        return pair[0]
    first, second = runs
    names = [name for name, size in first.sizes.items() if (size, second.sizes[name]) == pair]
    return names[0] if len(names) == 1 else own_name
