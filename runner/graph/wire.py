"""The protobuf wire format, as far as it takes to find the weights in a file and leave them there.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator, Mapping
from mmap import mmap
from typing import NamedTuple

Buffer = bytes | mmap

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_DEPTH = 64


class WireError(ValueError):
    """The bytes are not a protobuf message; says where."""


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
    """Which fields of a message hold bulk data, and which hold messages that may hold some."""

    bulk: frozenset[int] = frozenset()
    nested: Mapping[int, str] = {}


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that fills `[start, end)`; raises WireError where one does not fit in it."""
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
        if number == 0:
            raise WireError(f"field number 0 at byte {tag_start}")
        if size > end - position:
            raise WireError(f"a field at byte {tag_start} declares {size} bytes where {end - position} are left")
        yield Field(number, wire_type, tag_start, position, position + size)
        position += size


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """The number at `position`, and where the next thing starts."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError(f"a number of more than ten bytes before byte {position}")
    raise WireError(f"the data ends inside a number at byte {position}")


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tagged(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def without_bulk(
    data: Buffer, start: int, end: int, *, schemas: Mapping[str, Schema], message: str, keep: int, depth: int = 0
) -> bytes:
    """The message in `[start, end)` without its bulk fields of more than `keep` bytes, at any depth."""
    if depth > _MAX_DEPTH:
        raise WireError(f"messages nested more than {_MAX_DEPTH} deep at byte {start}")
    schema = schemas[message]
    pieces: list[bytes] = []
    for field in fields(data, start, end):
        if field.size <= keep or (field.number not in schema.nested and field.number not in schema.bulk):
            pieces.append(data[field.start : field.end])
        elif field.number in schema.nested and field.wire_type == LENGTH_DELIMITED:
            inner = without_bulk(
                data, field.value, field.end,
                schemas=schemas, message=schema.nested[field.number], keep=keep, depth=depth + 1,
            )  # fmt: skip
            pieces.append(tagged(field.number, inner))
    return b"".join(pieces)
