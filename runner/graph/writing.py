"""Writing a part of a model: the new graph from memory, the weights copied from file to file."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

import onnx
from google.protobuf.message import Message

from runner.errors import OperatorError
from runner.graph.model_file import (
    LENGTH_DELIMITED,
    ByteRange,
    Weight,
    declare_external,
    external_place,
    is_external,
    tagged,
    tensors_in,
    varint,
)

# ModelProto.graph and GraphProto.node.
_GRAPH, _NODE = 7, 1
_Message = TypeVar("_Message", bound=Message)
_CHUNK_BYTES = 1 << 20
# Runtimes map external data into memory; a cache line is all the alignment that CPU kernels ask for.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """A part of a model, or a whole one, to be written.

    `header` is the model without its graph, `graph` has neither nodes nor the initializers in `weights`;
    `declarations` describes the external ones among them. `folder` is where the external data of tensors inside nodes
    and functions are.
    """

    header: onnx.ModelProto
    graph: onnx.GraphProto
    nodes: Sequence[onnx.NodeProto | ByteRange]
    weights: Sequence[Weight]
    declarations: Sequence[onnx.TensorProto]
    folder: Path


def data_file(path: Path) -> Path:
    """Return the path of the external data of a part at this path."""
    return path.with_name(f"{path.name}.data")


def stored_bytes(path: Path) -> int:
    """Return the bytes of a written part, its external data included."""
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def write_part(part: Part, path: Path) -> None:
    """Write a part; external data stays external, in one new file beside it."""
    try:
        with ExitStack() as closing:
            data = _DataFile(data_file(path), part.folder, closing)
            pieces = _graph_pieces(part, data)
            header = data.moved(part.header).SerializeToString()
        size = sum(piece.length if isinstance(piece, ByteRange) else len(piece) for piece in pieces)
        start = header + varint(_GRAPH << 3 | LENGTH_DELIMITED) + varint(size)
        with path.open("wb", buffering=0) as stream:
            _write([start, *pieces], stream)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error}") from error


def _graph_pieces(part: Part, data: "_DataFile") -> list[bytes | ByteRange]:
    declared = {tensor.name: tensor for tensor in part.declarations}
    extra = onnx.GraphProto(
        initializer=[data.holding(declared[weight.name], weight.content) for weight in part.weights if weight.external]
    )
    # A message may be written in several pieces: protobuf joins the repeated fields of all.
    pieces: list[bytes | ByteRange] = [data.moved(part.graph).SerializeToString()]
    pieces += [
        node if isinstance(node, ByteRange) else tagged(_NODE, data.moved(node).SerializeToString())
        for node in part.nodes
    ]
    pieces.append(extra.SerializeToString())
    pieces += [weight.content for weight in part.weights if not weight.external]
    return pieces


class _DataFile:
    """The external data of a part, in one file that is made with the first tensor.

    `source_folder` has the data that tensors inside nodes and functions name.
    """

    def __init__(self, path: Path, source_folder: Path, closing: ExitStack) -> None:
        self._path = path
        self._source_folder = source_folder
        self._closing = closing
        self._stream: FileIO | None = None

    def holding(self, tensor: onnx.TensorProto, content: ByteRange) -> onnx.TensorProto:
        """Copy a tensor's bytes into the file; return the tensor that names them there."""
        copy = deepcopy(tensor)
        self._take(copy, content)
        return copy

    def moved(self, message: _Message) -> _Message:
        """Copy the data of every external tensor in a message; return the message that names them here."""
        if not any(map(is_external, tensors_in(message))):
            return message
        copy = deepcopy(message)
        for tensor in filter(is_external, tensors_in(copy)):
            self._take(tensor, external_place(tensor, self._source_folder))
        return copy

    def _take(self, tensor: onnx.TensorProto, content: ByteRange) -> None:
        if self._stream is None:
            self._stream = self._closing.enter_context(self._path.open("wb", buffering=0))
        _write_bytes(bytes(-self._stream.tell() % _ALIGNMENT), self._stream)
        # By file name alone: locations are relative to the folder of the model.
        declare_external(tensor, self._path.name, self._stream.tell(), content.length)
        _write([content], self._stream)


def _write(pieces: Sequence[bytes | ByteRange], stream: FileIO) -> None:
    """Write the pieces in order: neighbouring ranges of one file, and neighbouring bytes, together."""
    for piece in _merged(pieces):
        if isinstance(piece, ByteRange):
            _copy(piece, stream)
        else:
            _write_bytes(piece, stream)


def _merged(pieces: Iterable[bytes | ByteRange]) -> Iterator[bytes | ByteRange]:
    """Yield the same content in as few pieces as possible."""
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
        # Weights lie one after the other in most files: one copy instead of hundreds.
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
    """Append a range of a file, inside the kernel if it can."""
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
    """Copy inside the kernel and return how many bytes; 0 if this system or pair of filesystems cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        # One call copies less than 2 GiB on Linux, so the caller loops.
        return os.copy_file_range(source.fileno(), target.fileno(), min(count, 1 << 30))
    except OSError:
        return 0


def _write_bytes(content: bytes, target: FileIO) -> None:
    """Write unbuffered, so that the position is the kernel's alone; one write may take less than it was given."""
    rest = memoryview(content)
    while rest:
        rest = rest[target.write(rest) :]
