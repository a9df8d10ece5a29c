"""The content of a file that is imported: unpacked, hashed and parsed as it comes, so that it is never whole in memory.

JSON is read value by value from a text of any length: only one value is in memory at a time.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast

from catalog.errors import ExchangeError
from catalog.units import size

_GZIP = b"\x1f\x8b"
_CHUNK = 2**18
MAX_BYTES = 2**29
# Evidence unpacks to 3 to 20 times its size; gzip may pack a thousand bytes of nothing into one.
MAX_RATIO = 200
# Below that any ratio is harmless.
FREE_BYTES = 2**24


class ContentStream(io.RawIOBase):
    """What a plain or gzip file holds, as a stream of bytes.

    Reading raises ExchangeError where the file is damaged, or holds more than may be imported. The hashes are those of
    all that was read.
    """

    def __init__(self, raw: BinaryIO, *, file: str) -> None:
        self._raw = raw
        self._file = file
        self._waiting = memoryview(b"")
        self._file_hash = hashlib.sha256()
        self._content_hash = hashlib.sha256()
        self._file_bytes = self._content_bytes = 0
        # How far its reader is.
        self.position = 0
        self._chunks = self._unpacked()

    @property
    def sha256(self) -> str:
        """The hash of the file as it is."""
        return self._file_hash.hexdigest()

    @property
    def content_sha256(self) -> str:
        """The hash of what it holds: the same whether it is compressed or not."""
        return self._content_hash.hexdigest()

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as `io.RawIOBase` does."""
        count = min(len(buffer), len(self.peek()))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        self.position += count
        return count

    def peek(self) -> memoryview:
        """Return what is read next, without reading it; nothing at the end."""
        while not self._waiting:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._content_bytes += len(chunk)
            if self._content_bytes > MAX_BYTES:
                what = f"larger than {size(MAX_BYTES)}, the most that is imported at once"
                raise ExchangeError(
                    self._file, [f"{what}; export fewer subjects at once (--subject), or split the rows"]
                )
            self._content_hash.update(chunk)
            self._waiting = memoryview(chunk)
        return self._waiting

    def text(self, encoding: str, *, newline: str | None = None) -> TextIO:
        """Return the content as text; `not_text` says where it is none."""
        return io.TextIOWrapper(cast(BinaryIO, self), encoding=encoding, newline=newline)

    def not_text(self, error: UnicodeDecodeError) -> str:
        """Say which byte is no text: the error counts from the start of what was decoded at once."""
        return f"not UTF-8 text (byte {self.position - len(error.object) + error.start})"

    def _unpacked(self) -> Iterator[bytes]:
        chunks = self._read()
        first = next(chunks, b"")
        if first.startswith(_GZIP):
            yield from self._gunzipped(first, chunks)
            return
        if first:
            yield first
        yield from chunks

    def _read(self) -> Iterator[bytes]:
        while chunk := self._read_chunk():
            self._file_hash.update(chunk)
            self._file_bytes += len(chunk)
            yield chunk

    def _read_chunk(self) -> bytes:
        try:
            return self._raw.read(_CHUNK)
        except OSError as error:
            raise ExchangeError(self._file, [f"cannot be read: {error.strerror}"]) from error

    def _gunzipped(self, packed: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what all members of a gzip file hold: `cat a.gz b.gz` makes a file of two."""
        member = None
        unpacked, allowed = 0, self._allowed()
        while packed or (packed := next(chunks, b"")):
            if member is None:
                # Zeros may follow the last member (RFC 1952 allows padding by tools that write whole blocks).
                packed = packed.lstrip(b"\0")
                if not packed:
                    continue
                # 31 is the largest window (15) and a gzip header (16).
                member = zlib.decompressobj(wbits=31)
            try:
                content = member.decompress(packed, _CHUNK)
            except zlib.error as error:
                raise ExchangeError(self._file, [f"a damaged gzip file ({error}); copy it again"]) from error
            packed = member.unconsumed_tail
            unpacked += len(content)
            if unpacked > allowed:
                raise ExchangeError(self._file, [self._too_much(allowed)])
            if content:
                yield content
            if member.eof:
                packed, member = member.unused_data, None
        if member is not None:
            raise ExchangeError(self._file, ["a gzip file that ends too early; copy it again"])

    def _packed_bytes(self) -> int:
        try:
            return max(self._file_bytes, os.fstat(self._raw.fileno()).st_size)
        except (OSError, io.UnsupportedOperation):  # not a file on a disk
            return self._file_bytes

    def _allowed(self) -> int:
        return FREE_BYTES + MAX_RATIO * self._packed_bytes()

    def _too_much(self, allowed: int) -> str:
        return (
            f"{size(self._packed_bytes())} of gzip unpack to more than {size(allowed)}; allowed are {MAX_RATIO} times "
            f"the size and {size(FREE_BYTES)}. If you trust it, unpack it yourself (gunzip) and import what comes out"
        )


def decompressed(content: bytes, *, file: str) -> bytes:
    """Return the content of a gzip file, or the bytes as they are; raises ExchangeError if damaged or far too large."""
    return ContentStream(io.BytesIO(content), file=file).readall()


_BLANKS = " \t\n\r"


class MalformedJson(ValueError):
    """Text that is no JSON, with its line and column."""

    def __init__(self, what: str, line: int, column: int) -> None:
        self.what, self.line, self.column = what, line, column
        super().__init__(f"{what} at line {line} column {column}")


class JsonReader:
    """A place in a text of JSON.

    Parameters
    ----------
    text : TextIO
    decoder : json.JSONDecoder
        How values are read.
    """

    def __init__(self, text: TextIO, decoder: json.JSONDecoder) -> None:
        self._text = text
        self._decoder = decoder
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._line, self._column = 1, 1

    def peek(self) -> str:
        """Return the next character that is not blank; nothing at the end."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _BLANKS:
                    return self._buffer[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Go over a character that must be there."""
        got = self.peek()
        if got != character:
            raise self._malformed(f"expected `{character}`" if got else "EOF while parsing a value")
        self._at += 1

    def value(self) -> Any:
        """Read a value; raises MalformedJson, also for one that is nested too deeply."""
        if not self.peek():
            raise self._malformed("EOF while parsing a value")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                # What cannot be read yet may only be cut off.
                if self._more():
                    continue
                self._at = min(error.pos, len(self._buffer))
                ended = self._at == len(self._buffer)
                raise self._malformed("EOF while parsing a value" if ended else error.msg) from error
            except RecursionError as error:
                raise self._malformed("recursion limit exceeded") from error
            except ValueError as error:  # a constant or a number that is refused
                raise self._malformed(str(error)) from error
            # A number at the end of the buffer may go on behind it.
            if end < len(self._buffer) or not self._more():
                self._at = end
                return value

    def members(self) -> Iterator[str]:
        """Yield the names of an object's members; the caller reads each value before it goes on."""
        for _ in self._separated("{", "}"):
            name = self.value()
            if not isinstance(name, str):
                raise self._malformed("a member's name must be text")
            self.take(":")
            yield name

    def elements(self) -> Iterator[None]:
        """Go through the elements of a list; the caller reads each value before it goes on."""
        return self._separated("[", "]")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._malformed("trailing characters")

    @property
    def place(self) -> tuple[int, int]:
        """Line and column of what is read next."""
        self._forget()
        return self._line, self._column

    def _separated(self, first: str, last: str) -> Iterator[None]:
        self.take(first)
        if self.peek() == last:
            self._at += 1
            return
        while True:
            yield
            if self.peek() == last:
                self._at += 1
                return
            self.take(",")

    def _more(self) -> bool:
        """Read more, at least as much as waits, so that a large value is not read in many attempts."""
        if self._ended:
            return False
        self._forget()
        read = self._text.read(max(_CHUNK, len(self._buffer)))
        self._ended = not read
        self._buffer += read
        return bool(read)

    def _forget(self) -> None:
        """Drop what was read, and count its lines."""
        lines = self._buffer.count("\n", 0, self._at)
        self._line += lines
        self._column = self._at - self._buffer.rfind("\n", 0, self._at) if lines else self._column + self._at
        self._buffer, self._at = self._buffer[self._at :], 0

    def _malformed(self, what: str) -> MalformedJson:
        return MalformedJson(what, *self.place)
