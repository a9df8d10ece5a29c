"""JSON read value by value from a text of any length: only one value is in memory at a time."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

_BLANKS = " \t\n\r"
_CHUNK = 2**18


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
