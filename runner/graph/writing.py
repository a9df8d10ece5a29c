"""Writing a part of a model: the new graph from memory, the weights copied from file to file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import onnx

from runner.errors import OperatorError
from runner.graph import wire
from runner.graph.model_file import ByteRange, Weight

_GRAPH, _NODE = 7, 1
_CHUNK_BYTES = 1 << 20
# Runtimes map external data into memory; a cache line is all the alignment that CPU kernels ask for.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """A model to be written.

    `header` is the model without its graph, `graph` has neither nodes nor the initializers in `weights`;
    `declarations` describes the external ones among them.
    """

    header: onnx.ModelProto
    graph: onnx.GraphProto
    nodes: Sequence[onnx.NodeProto | ByteRange]
    weights: Sequence[Weight]
    declarations: Sequence[onnx.TensorProto] = ()


def data_file(path: Path) -> Path:
    """Where the external data of a part at this path goes."""
    return path.with_name(f"{path.name}.data")


def stored_bytes(path: Path) -> int:
    """Bytes of a written part, its external data included."""
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def write_part(part: Part, path: Path) -> None:
    """Write a part; external weights stay external, in one file of their own beside it."""
    external = [weight for weight in part.weights if weight.external]
    try:
        pieces = _graph_pieces(part, _write_data(external, part.declarations, data_file(path)) if external else ())
        size = sum(piece.length if isinstance(piece, ByteRange) else len(piece) for piece in pieces)
        start = part.header.SerializeToString() + wire.varint(_GRAPH << 3 | wire.LENGTH_DELIMITED) + wire.varint(size)
        with path.open("wb", buffering=0) as stream:
            _write([start, *pieces], stream)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error}") from error


def _graph_pieces(part: Part, declared: Iterable[onnx.TensorProto]) -> list[bytes | ByteRange]:
    pieces: list[bytes | ByteRange] = [part.graph.SerializeToString()]
    pieces += [
        node if isinstance(node, ByteRange) else wire.tagged(_NODE, node.SerializeToString()) for node in part.nodes
    ]
    extra = onnx.GraphProto(initializer=declared)
    pieces.append(extra.SerializeToString())
    pieces += [weight.content for weight in part.weights if not weight.external]
    return pieces


def _write_data(
    weights: Sequence[Weight], declarations: Sequence[onnx.TensorProto], path: Path
) -> list[onnx.TensorProto]:
    """Copy external weights into one file and declare where each begins."""
    named = {tensor.name: tensor for tensor in declarations}
    declared: list[onnx.TensorProto] = []
    with path.open("wb", buffering=0) as stream:
        for weight in weights:
            _write_bytes(bytes(-stream.tell() % _ALIGNMENT), stream)
            tensor = onnx.TensorProto()
            tensor.CopyFrom(named[weight.name])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": path.name, "offset": str(stream.tell()), "length": str(weight.size_bytes)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            declared.append(tensor)
            _write([weight.content], stream)
    return declared


def _write(pieces: Sequence[bytes | ByteRange], stream: FileIO) -> None:
    """Write the pieces in order: neighbouring ranges of one file, and neighbouring bytes, in one go."""
    for piece in _merged(pieces):
        if isinstance(piece, ByteRange):
            _copy(piece, stream)
        else:
            _write_bytes(piece, stream)


def _merged(pieces: Iterable[bytes | ByteRange]) -> Iterator[bytes | ByteRange]:
    """The same content in as few pieces as there can be."""
    loose: list[bytes] = []
    pending: ByteRange | None = None
    for piece in pieces:
        if isinstance(piece, bytes):
            if pending:
                yield pending
            pending = None
            loose.append(piece)
            continue
        if loose:
            yield b"".join(loose)
            loose.clear()
        if pending and pending.path == piece.path and pending.offset + pending.length == piece.offset:
            pending = ByteRange(pending.path, pending.offset, pending.length + piece.length)
            continue
        if pending:
            yield pending
        pending = piece
    if pending:
        yield pending
    yield b"".join(loose)


def _copy(place: ByteRange, target: FileIO) -> None:
    """Append a range of a file, inside the kernel where it can."""
    with place.path.open("rb", buffering=0) as source:
        source.seek(place.offset)
        left = place.length
        while left and (count := _copied_by_kernel(source, target, left)):
            left -= count
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise OSError(f"{place.path.name} became shorter while it was read")
            _write_bytes(chunk, target)
            left -= len(chunk)


def _copied_by_kernel(source: FileIO, target: FileIO, count: int) -> int:
    """Bytes the kernel copied; 0 where this system or pair of filesystems cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), min(count, 1 << 30))
    except OSError:
        return 0


def _write_bytes(content: bytes, target: FileIO) -> None:
    """Unbuffered, so that the position is the kernel's alone; a write may take less than it was given."""
    rest = memoryview(content)
    while rest:
        rest = rest[target.write(rest) :]
