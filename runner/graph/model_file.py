"""An ONNX file as a graph without its weights, and the places in the files where the weights are.

Everything small enough to matter for structure (shapes, axes, scales) is in the graph; every larger tensor stays on
disk as a byte range, so that a model of any size is analysed in milliseconds and copied without being loaded.
Message and field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import dataclasses
import math
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from catalog.regular_files import open_regular
from runner.confinement import memory_advice
from runner.errors import ModelFileError, OperatorError
from runner.graph.assumed_shapes import settle_inputs
from runner.graph.node_order import sort_nodes, unify_domains
from runner.graph.wire import LENGTH_DELIMITED, Field, Schema, WireError, fields, tagged, without_bulk

# Shape inference reads the values of small tensors only; scales of a thousand channels still count as small.
KEEP_BYTES = 1024
# The graph is held in memory and serialised again; no real graph without weights comes near.
_MAX_SKELETON_BYTES = 512 << 20
# ModelProto.graph, then GraphProto.node, initializer and sparse_initializer.
_GRAPH, _NODE, _INITIALIZER, _SPARSE = 7, 1, 5, 15
# By field number in onnx.proto; those of a tensor are its seven data fields, from float_data to uint64_data.
_SCHEMAS: Mapping[str, Schema] = {
    "graph": Schema(nested={1: "node", 5: "tensor", 15: "sparse"}),
    "node": Schema(nested={5: "attribute"}),
    "attribute": Schema(
        # Numbers and texts: those of a tree are the model's weights, those of any other node are few.
        bulk=frozenset({7, 8, 9}),
        nested={5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        keep=1 << 16,
    ),
    "sparse": Schema(nested={1: "tensor", 2: "tensor"}),
    "tensor": Schema(bulk=frozenset({4, 5, 6, 7, 9, 10, 11})),
}
_RAW_DATA, _EXTERNAL_DATA = 9, 13
# The messages that may hold tensors, at any depth: bodies of If, Loop and Scan, attributes, functions.
_TENSOR_HOLDERS = (
    onnx.GraphProto,
    onnx.NodeProto,
    onnx.AttributeProto,
    onnx.SparseTensorProto,
    onnx.FunctionProto,
    onnx.TrainingInfoProto,
)
# NumPy has no type of four bits and reports a whole byte.
_HALF_BYTES = frozenset({TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1})


@dataclass(frozen=True)
class ByteRange:
    """Bytes `[offset, offset + length)` of a file."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Weight:
    """An initializer that was left on disk.

    `content` holds the whole field of the graph, tag included, or, for external data, the tensor's bytes alone.
    """

    name: str
    content: ByteRange
    external: bool

    @property
    def size_bytes(self) -> int:
        return self.content.length


@dataclass(frozen=True)
class ModelFile:
    """A model file, read without its weights, its nodes sorted.

    `model` is complete but for the data of the `weights` and of the nodes in `stored_nodes` (by index in the graph);
    larger tensors inside nodes and functions that are stored in other files name location, offset and length there.
    `external_data` says that some tensor, however small, was stored outside the file. `assumed_shapes` says of inputs
    for which the file declares no shape where one was read; the graph has those that are certain.
    """

    path: Path
    model: onnx.ModelProto
    size_bytes: int
    external_data: bool = False
    weights: Mapping[str, Weight] = dataclasses.field(default_factory=dict)
    stored_nodes: Mapping[int, ByteRange] = dataclasses.field(default_factory=dict)
    assumed_shapes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    def whole_tensor(self, tensor: TensorProto) -> TensorProto:
        """Return an initializer with its data, read from disk if they were left there."""
        weight = self.weights.get(tensor.name)
        if weight is None:
            return tensor
        with weight.content.path.open("rb") as stream:
            stream.seek(weight.content.offset)
            content = stream.read(weight.content.length)
        if weight.external:
            return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
        # The range is a whole field of the graph, tag included, and so reads as a graph with one initializer.
        graph: onnx.GraphProto = onnx.GraphProto.FromString(content)
        initializer: TensorProto = graph.initializer[0]
        return initializer


def read_model(path: Path) -> ModelFile:
    """Read a model and leave its weights on disk.

    Raises
    ------
    ModelFileError
        When the file cannot be read, is no ONNX model, contradicts itself, or names data outside its folder.
    """
    try:
        with open_regular(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            skeleton, weights, stored = _ModelFileReader(path, data).read()
        model = onnx.ModelProto.FromString(skeleton)
    except (WireError, DecodeError) as error:
        raise ModelFileError(path, str(error)) from error
    except OSError as error:
        if advice := memory_advice(error):
            raise OperatorError(f"{path.name} could not be read: {advice}") from error
        raise ModelFileError(path, error.strerror or str(error)) from error
    except ValueError as error:  # mmap refuses an empty file with it
        raise ModelFileError(path, str(error)) from error
    require_utf8(path)
    if not model.graph.node and not model.graph.output:
        raise ModelFileError(path, "it holds no graph")
    if not _is_text(model.graph):
        raise ModelFileError(path, "a name in it is not text")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if len(tensors) != len(model.graph.initializer):
        # The engine warns, runs such files, and which of the two it takes differs from node to node.
        names = Counter(tensor.name for tensor in model.graph.initializer)
        twice = next(name for name, count in names.items() if count > 1)
        raise ModelFileError(path, f"two initializers are named {twice!r}, and nothing says which of them counts")
    outside = _settle_nested(path, model, stored)
    external_data = outside is not None or any(map(is_external, model.graph.initializer))
    kept = _settle(path, model, weights)
    unify_domains(model.graph)
    assumed = settle_inputs(model.graph)
    order = sort_nodes(model.graph)
    if order is not None:
        stored = {index: stored[former] for index, former in enumerate(order) if former in stored}
    external = (outside or 0) + sum(weight.size_bytes for weight in kept.values() if weight.external)
    return ModelFile(path, model, path.stat().st_size + external, external_data, kept, stored, assumed)


def require_utf8(path: Path) -> None:
    """Refuse a path that ONNX and ONNX Runtime cannot be given: they take text, not bytes."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        reason = "its name, or that of a folder above it, is not UTF-8, which ONNX requires; rename it"
        raise ModelFileError(path, reason) from error


def complete_model(file: ModelFile) -> onnx.ModelProto:
    """Read the model with all its tensors in memory, wherever they are stored, and its nodes sorted."""
    model = onnx.load(file.path, load_external_data=False)
    unify_domains(model.graph)
    settle_inputs(model.graph)
    sort_nodes(model.graph)
    for tensor in tensors_in(model):
        if is_external(tensor):
            _take_in(tensor, _external(file.path, tensor, "tensor", tensor_bytes(tensor)))
    return model


def tensors_in(message: Message) -> Iterator[TensorProto]:
    """Iterate over every tensor of a model, a graph, a node or a function, at any depth."""
    for field_, value in message.ListFields():
        if field_.message_type is None:
            continue
        for child in [value] if isinstance(value, Message) else value:
            if isinstance(child, TensorProto):
                yield child
            elif isinstance(child, _TENSOR_HOLDERS):
                yield from tensors_in(child)


def is_external(tensor: TensorProto) -> bool:
    """Return whether a tensor's data are in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def external_place(tensor: TensorProto, folder: Path) -> ByteRange:
    """Return where the data of a tensor inside a node are, as `read_model` left it; `folder` is the model's."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return ByteRange((folder / entries["location"]).resolve(), int(entries["offset"]), int(entries["length"]))


def external_bytes(message: Message) -> int:
    """Return how many bytes of the tensors in a message are in other files."""
    return sum(external_place(tensor, Path()).length for tensor in filter(is_external, tensors_in(message)))


def declare_external(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor name the file and the range that hold its data."""
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)


def has_external_data(path: Path) -> bool:
    """Return whether a model keeps weights outside its file; raise ModelFileError as `read_model` does."""
    return read_model(path).external_data


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the files with a model's external data, by name; raise ModelFileError as `read_model` does."""
    if not has_external_data(path):
        return ()
    # `read_model` checked every location, but no longer names the files of what it read into memory.
    tensors = filter(is_external, tensors_in(onnx.load(path, load_external_data=False)))
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return tuple(sorted({(path.parent / location).resolve() for location in locations}))


def tensor_bytes(tensor: TensorProto) -> int | None:
    """Return the bytes that a tensor's type and dimensions declare; None for strings and unknown types."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or any(size < 0 for size in tensor.dims):
        return None
    try:
        bits = 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return None
    if tensor.data_type in _HALF_BYTES:
        bits = 4
    return int(math.prod(tensor.dims) * bits + 7) // 8


class _ModelFileReader:
    """One pass over the file: small fields go into the skeleton, bulky ones become ranges."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._pieces: list[bytes] = []
        self._size = 0
        self._initializers = self._nodes = 0
        self._weights: dict[int, ByteRange] = {}
        self._stored: dict[int, ByteRange] = {}

    def read(self) -> tuple[bytes, dict[int, ByteRange], dict[int, ByteRange]]:
        """Return the skeleton, and the initializers and nodes (by index) that were left in the file."""
        skeleton: list[bytes] = []
        for field in fields(self._data, 0, len(self._data)):
            if field.number == _GRAPH and field.wire_type == LENGTH_DELIMITED:
                self._read_graph(field)
            else:
                self._grow(field.size)
                skeleton.append(self._data[field.start : field.end])
        # Protobuf merges a message that occurs more than once, and so do these pieces.
        skeleton.append(tagged(_GRAPH, b"".join(self._pieces)))
        return b"".join(skeleton), self._weights, self._stored

    def _read_graph(self, graph: Field) -> None:
        nested = _SCHEMAS["graph"].nested
        for field in fields(self._data, graph.value, graph.end):
            index = self._count(field.number)
            if field.number not in nested or field.size <= KEEP_BYTES or field.wire_type != LENGTH_DELIMITED:
                content = self._data[field.start : field.end]
            else:
                stripped = without_bulk(
                    self._data, field.value, field.end,
                    schemas=_SCHEMAS, message=nested[field.number], keep=KEEP_BYTES,
                )  # fmt: skip
                content = tagged(field.number, stripped)
                if len(stripped) < field.size:
                    self._note(field, index)
            self._grow(len(content))
            self._pieces.append(content)

    def _count(self, number: int) -> int:
        """Return the index of this node or initializer within the graph."""
        if number == _NODE:
            self._nodes += 1
            return self._nodes - 1
        self._initializers += number == _INITIALIZER
        return self._initializers - 1

    def _note(self, field: Field, index: int) -> None:
        place = ByteRange(self._path, field.start, field.end - field.start)
        if field.number == _SPARSE:
            raise WireError("sparse initializers of this size are not supported; store them dense")
        (self._weights if field.number == _INITIALIZER else self._stored)[index] = place

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > _MAX_SKELETON_BYTES:
            raise WireError(f"its graph alone takes more than {_MAX_SKELETON_BYTES >> 20} MiB")


def _is_text(graph: onnx.GraphProto) -> bool:
    """Return whether every name is UTF-8; protobuf returns bytes for names that are not."""
    return all(
        isinstance(text, str)
        for node in graph.node
        for text in (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    ) and all(
        isinstance(text, str)
        for text in (
            graph.name,
            *(tensor.name for tensor in graph.initializer),
            *(tensor.values.name for tensor in graph.sparse_initializer),
            *(value.name for values in (graph.input, graph.output, graph.value_info) for value in values),
            *(dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim),
            *(
                text
                for tensor in graph.initializer
                for entry in tensor.external_data
                for text in (entry.key, entry.value)
            ),
        )
    )


def _settle(path: Path, model: onnx.ModelProto, inline: Mapping[int, ByteRange]) -> dict[str, Weight]:
    """Check each initializer's size against its declaration and find the external ones' bytes."""
    kept: dict[str, Weight] = {}
    for index, tensor in enumerate(model.graph.initializer):
        declared = tensor_bytes(tensor)
        if index in inline:
            place = inline[index]
            # Not `!=`: the range is the whole field, which holds the tensor's name and dimensions besides its data.
            short = declared is not None and declared > place.length and not is_external(tensor)
            if short and not _is_packed(tensor, place):
                raise ModelFileError(
                    path, f"initializer {tensor.name!r} declares {declared} bytes and the file holds {place.length}"
                )
            kept[tensor.name] = Weight(tensor.name, place, external=False)
        elif is_external(tensor):
            place = _external(path, tensor, f"initializer {tensor.name!r}", declared)
            if place.length <= KEEP_BYTES:
                _take_in(tensor, place)
            else:
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                kept[tensor.name] = Weight(tensor.name, place, external=True)
        elif tensor.HasField("raw_data") and declared is not None and declared != len(tensor.raw_data):
            raise ModelFileError(
                path, f"initializer {tensor.name!r} declares {declared} bytes and holds {len(tensor.raw_data)}"
            )
    return kept


def _is_packed(tensor: TensorProto, place: ByteRange) -> bool:
    """Return whether a range holds all numbers of a tensor in fewer bytes: protobuf shortens small ones."""
    graph: onnx.GraphProto = onnx.GraphProto.FromString(_bytes_of(place))
    (whole,) = graph.initializer
    counts = {len(whole.int32_data), len(whole.int64_data), len(whole.uint64_data)}
    return math.prod(tensor.dims) in counts


def _settle_nested(path: Path, model: onnx.ModelProto, stored: dict[int, ByteRange]) -> int | None:
    """Find the external tensors that are not initializers of the graph, and read the small ones.

    A node that holds such a tensor beside a large one in the file is read whole, because it is written from memory.

    Returns
    -------
    int or None
        Bytes that stay in other files; None if no tensor is external.
    """
    for index in [index for index in stored if _holds_external(model.graph.node[index])]:
        model.graph.node[index].CopyFrom(onnx.GraphProto.FromString(_bytes_of(stored.pop(index))).node[0])
    holders: Sequence[tuple[str, Message]] = [
        *((f"node {node.name or node.op_type!r}", node) for node in model.graph.node),
        *((f"function {function.name!r}", function) for function in model.functions),
        *(("sparse initializer", sparse) for sparse in model.graph.sparse_initializer),
        *(("training", training) for training in model.training_info),
    ]
    lengths = []
    for holder, message in holders:
        for tensor in filter(is_external, tensors_in(message)):
            place = _external(path, tensor, f"tensor {tensor.name!r} in {holder}", tensor_bytes(tensor))
            lengths.append(_settle_tensor(tensor, place))
    return sum(lengths) if lengths else None


def _holds_external(message: Message) -> bool:
    return any(map(is_external, tensors_in(message)))


def _settle_tensor(tensor: TensorProto, place: ByteRange) -> int:
    """Read a small tensor into memory, or declare where a larger one is; return the bytes left outside."""
    if place.length <= KEEP_BYTES:
        _take_in(tensor, place)
        return 0
    location = next(entry.value for entry in tensor.external_data if entry.key == "location")
    declare_external(tensor, location, place.offset, place.length)
    return place.length


def _take_in(tensor: TensorProto, place: ByteRange) -> None:
    """Read a tensor's external data into it."""
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = _bytes_of(place)


def _external(path: Path, tensor: TensorProto, label: str, declared: int | None) -> ByteRange:
    """Return where an external tensor's bytes are; never outside the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = entries.get("location", ""), path.parent.resolve()
    # For a path with a NUL Python raises ValueError, which nothing below expects of `resolve`.
    if "\0" in location:
        raise ModelFileError(path, f"{label} names data in no file: {location!r}")
    # Resolved before it is compared, so that neither `..` nor a symbolic link leads outside.
    target = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelFileError(path, f"{label} names data outside the model's folder: {location!r}")
    if target.exists() and not target.is_file():
        raise ModelFileError(path, f"{label} names data in no file: {location!r}")
    try:
        offset = int(entries.get("offset", "0"))
        available = target.stat().st_size - offset
        length = int(entries.get("length", available if declared is None else declared))
    except FileNotFoundError as error:
        raise ModelFileError(path, f"its data file {location!r} is missing; keep it beside the model") from error
    except (ValueError, OSError) as error:
        raise ModelFileError(path, f"{label}: its external data cannot be read: {error}") from error
    if offset < 0 or not 0 <= length <= available or (declared is not None and length != declared):
        raise ModelFileError(
            path,
            f"{label} declares {declared} bytes and names {length} at {offset} of "
            f"{location!r}, which holds {available + offset}",
        )
    return ByteRange(target, offset, length)


def _bytes_of(place: ByteRange) -> bytes:
    with place.path.open("rb") as stream:
        stream.seek(place.offset)
        return stream.read(place.length)
