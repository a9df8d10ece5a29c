"""An ONNX file as a graph without its weights, and the places in the files where the weights are.

Everything small enough to matter for structure (shapes, axes, scales) is in the graph; every larger tensor stays on
disk as a byte range, so that a model of any size is analysed in milliseconds and copied without being loaded. The file
is read by protobuf's wire format: the fields of a message in a file, without the message in memory.
Message and field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
Wire format: https://protobuf.dev/programming-guides/encoding/
"""

import dataclasses
import math
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper

from catalog.foreign import open_regular
from runner.errors import ModelFileError, OperatorError, memory_advice
from runner.graph.runtime import settle_inputs, sort_nodes, unify_domains

Buffer = bytes | mmap.mmap

# Protobuf's wire types; 3 and 4 mark groups, which no ONNX message has.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
# So much is looked at together; fields from this size on are not joined, and their length would take two bytes.
_RUN_BYTES = 1 << 20
_LARGEST_JOINED = 128
# Protobuf's own parsers stop at a depth of 100; without a limit, a hostile file would exhaust our stack.
_MAX_DEPTH = 64


class WireError(ValueError):
    """The bytes are not a protobuf message; the text says where."""


class Field(NamedTuple):
    """One field of a message: its tag starts at `start`, its value fills `[value, end)`."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.value


class Schema(NamedTuple):
    """Which fields of a message hold bulk data, and which hold messages that may hold some.

    `keep` is the size up to which bulk data stay, if it is not the caller's.
    """

    bulk: frozenset[int] = frozenset()
    nested: Mapping[int, str] = {}
    keep: int | None = None


def fields(data: Buffer, start: int, end: int, *, joined: frozenset[int] = frozenset()) -> Iterator[Field]:
    """Yield the fields of the message that fills `[start, end)`; raise WireError for a field that does not fit.

    Neighbouring fields of one number in `joined` come as one: old tools write a field for every weight, and trees hold
    millions of numbers and short texts.
    """
    position = start
    while position < end:
        tag_start = position
        tag, position = read_varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH_DELIMITED:
            size, position = read_varint(data, position, end)
        elif wire_type == VARINT:
            size = read_varint(data, position, end)[1] - position
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise WireError(f"unknown wire type {wire_type} at byte {tag_start}")
        # Numbers of fields begin at 1, so this is padding or damage.
        if number == 0:
            raise WireError(f"field number 0 at byte {tag_start}")
        if size > end - position:
            raise WireError(f"a field at byte {tag_start} declares {size} bytes where {end - position} are left")
        if number in joined and size < _LARGEST_JOINED:
            size = max(size, _run_end(data, tag_start, wire_type, end) - position)
        yield Field(number, wire_type, tag_start, position, position + size)
        position += size


def _run_end(data: Buffer, start: int, wire_type: int, end: int) -> int:
    """Return where a run of fields ends that all have the tag of the first, which is one byte long."""
    look = {VARINT: _varints_end, LENGTH_DELIMITED: _texts_end}.get(wire_type, _fixed_end)
    tag = data[start]
    while start < end and data[start] == tag:
        piece = data[start : min(end, start + _RUN_BYTES)]
        length = look(piece, wire_type)
        start += length
        # A piece ends within a field, so that a run fills it but for a few bytes where it goes on.
        if length < len(piece) - _LARGEST_JOINED - 10 or not length:
            break
    return start


def _fixed_end(piece: bytes, wire_type: int) -> int:
    """Return the bytes of the fields at the start of a piece that have its first tag and a fixed size."""
    stride = 1 + _FIXED_SIZES[wire_type]
    tags = np.frombuffer(piece, np.uint8)[: len(piece) // stride * stride : stride]
    others = np.flatnonzero(tags != piece[0])
    return (int(others[0]) if len(others) else len(tags)) * stride


def _varints_end(piece: bytes, wire_type: int) -> int:
    """Return the bytes of the numbers at the start of a piece that have its first tag."""
    octets = np.frombuffer(piece, np.uint8)
    # A byte below 128 ends a number, and every tag is one too: so a run is tag, number, tag, number.
    ends = np.flatnonzero(octets < 0x80)
    ends = ends[: len(ends) // 2 * 2]
    tags, values = ends[::2], ends[1::2]
    starts = np.concatenate([[0], values[:-1] + 1]) if len(values) else values
    wrong = np.flatnonzero((tags != starts) | (octets[tags] != piece[0]))
    count = int(wrong[0]) if len(wrong) else len(values)
    return int(values[count - 1]) + 1 if count else 0


def _texts_end(piece: bytes, wire_type: int) -> int:
    """Return the bytes of the short texts at the start of a piece that have its first tag."""
    tag, position, last = piece[0], 0, len(piece) - 1
    while position < last and piece[position] == tag and piece[position + 1] < _LARGEST_JOINED:
        following = position + 2 + piece[position + 1]
        if following > len(piece):
            break
        position = following
    return position


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return the number at `position`, and the position after it."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        # Ten bytes of seven bits hold 64; protobuf allows no longer number.
        if shift > 63:
            raise WireError(f"a number of more than ten bytes before byte {position}")
    raise WireError(f"the data ends inside a number at byte {position}")


def varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tagged(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def without_bulk(
    data: Buffer, start: int, end: int, *, schemas: Mapping[str, Schema], message: str, keep: int, depth: int = 0
) -> bytes:
    """Return the message in `[start, end)` without its bulk fields of more than `keep` bytes, at any depth."""
    if depth > _MAX_DEPTH:
        raise WireError(f"messages nested more than {_MAX_DEPTH} deep at byte {start}")
    schema = schemas[message]
    limit = keep if schema.keep is None else schema.keep
    pieces: list[bytes] = []
    for field in fields(data, start, end, joined=schema.bulk):
        is_nested = field.number in schema.nested
        if field.size <= (keep if is_nested else limit) or not (is_nested or field.number in schema.bulk):
            pieces.append(data[field.start : field.end])
        elif is_nested and field.wire_type == LENGTH_DELIMITED:
            inner = without_bulk(
                data, field.value, field.end,
                schemas=schemas, message=schema.nested[field.number], keep=keep, depth=depth + 1,
            )  # fmt: skip
            pieces.append(tagged(field.number, inner))
    return b"".join(pieces)


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
