"""Protobuf's wire format: the fields of a message in a file, without the message in memory.

https://protobuf.dev/programming-guides/encoding/
"""

import mmap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

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
