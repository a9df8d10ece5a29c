"""A document as text, the same bytes for the same evidence, one entry a line; and back, with each problem's place.

A file is unpacked, hashed and parsed as it comes, so that it is never whole in memory: JSON is read value by value from
a text of any length, and only one value is in memory at a time.
"""

import base64
import binascii
import gzip
import hashlib
import io
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from catalog.errors import ExchangeError
from catalog.evidence.records import PoolInputRecord, PoolRecord
from catalog.exchange.document import (
    FORMAT,
    LISTS,
    MAPPINGS,
    MAX_PROBLEMS,
    VERSION,
    AccuracyEntry,
    Document,
    EnvironmentEntry,
    duplicates,
)
from catalog.statistics.input_draw import Pool, PoolInput
from catalog.units import setting_of, size

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


def ids_name(ids: Sequence[str]) -> str:
    """Return the name of a list of ids in a document: the start of its hash, so that equal lists are written once."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]


def pack_bits(values: Sequence[bool]) -> str:
    """Return Base64 of the bits, first value first, most significant bit first, the last byte filled with zeros.

    Examples
    --------
    >>> pack_bits([True, False, True])
    'oA=='
    """
    return base64.b64encode(np.packbits(np.array(values, dtype=np.bool_)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> list[bool]:
    """Return the first `count` bits; raises ValueError when there are fewer, or more than fill the last byte.

    Examples
    --------
    >>> unpack_bits('oA==', 3)
    [True, False, True]
    """
    try:
        # Without `validate`, characters outside the alphabet would be skipped.
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not Base64 ({error})") from error
    if packed.size != -(-count // 8):
        raise ValueError(f"holds {packed.size} bytes where {count} items make {-(-count // 8)}")
    return [bool(bit) for bit in np.unpackbits(packed, count=count)] if count else []


# Exporters may round a percentage to two decimals.
_TOLERANCE_PP = 0.01


def inconsistencies(document: Document) -> Iterator[str]:
    """Yield every reference that leads nowhere and every name used twice, each with its place."""
    yield from _repeated_names(document)
    yield from _subject_slos(document)
    yield from _environments(document)
    yield from _one_place_per_key(document)
    yield from _pools(document)
    yield from _samples(document)
    yield from _accuracies(document)


def _repeated_names(document: Document) -> Iterator[str]:
    named: dict[str, Iterable[object]] = {
        "files": (file.key for file in document.files),
        "environments": (environment.key for environment in document.environments),
        "artifacts": (artifact.key for artifact in document.artifacts),
        "slos": (slo.name for slo in document.slos),
        "strategies": ((s.environment, s.subject, s.operator, s.placement) for s in document.strategies),
        "measurements": ((m.latency_key, m.round) for m in document.measurements if m.counts),
        "accuracies": (accuracy.key for accuracy in document.accuracies if accuracy.status == "complete"),
    }
    # Failed and invalid attempts may repeat a key; what counts may not.
    for section, names in named.items():
        for name in duplicates(names):
            shown = "/".join(str(part) for part in name) if isinstance(name, tuple) else name
            yield f"{section}: {shown} is there twice; keep one"


def _subject_slos(document: Document) -> Iterator[str]:
    subjects = {strategy.subject for strategy in document.strategies}
    for subject, slos in document.subject_slos.items():
        if subject not in subjects:
            yield f"subject_slos: {subject!r} is not among the subjects of the strategies"
        for name in duplicates(slo.name for slo in slos):
            yield f"subject_slos.{subject}: {name} is there twice; keep one"


def _environments(document: Document) -> Iterator[str]:
    environments = {environment.key for environment in document.environments}
    files = {file.key for file in document.files}
    sections: dict[str, Sequence[str]] = {
        "strategies": [strategy.environment for strategy in document.strategies],
        "measurements": [measurement.environment for measurement in document.measurements],
        "accuracies": [accuracy.environment for accuracy in document.accuracies],
    }
    for section, keys in sections.items():
        for index, key in enumerate(keys):
            if key not in environments:
                yield f"{section}[{index}].environment: {key!r} is not among the environments"
    for index, environment in enumerate(document.environments):
        if environment.imported_from is not None and environment.imported_from not in files:
            yield f"environments[{index}].imported_from: {environment.imported_from!r} is not among the files"


def _plain_environment(environment: EnvironmentEntry) -> str:
    """Return what the settings of one environment have in common; the key of one that is not a setting."""
    plain_key = environment.details.get("plain_key")
    if setting_of(environment.details) is None or not isinstance(plain_key, str):
        return environment.key
    # A file may claim any key: settings are those of one host, too.
    return " ".join((plain_key, environment.launcher, environment.scale, environment.host))


def _one_place_per_key(document: Document) -> Iterator[str]:
    """Check that a latency key has one environment and one subject, else evidence of two would be pooled.

    Settings of one environment share the evidence of strategies that none of them touches.
    """
    plain = {environment.key: _plain_environment(environment) for environment in document.environments}
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for strategy in document.strategies:
        places[strategy.latency_key].add((plain.get(strategy.environment, strategy.environment), strategy.subject))
    for measurement in document.measurements:
        place = plain.get(measurement.environment, measurement.environment)
        places[measurement.latency_key].add((place, measurement.subject))
    for key, claims in places.items():
        if len(claims) > 1:
            where = " and ".join(f"{subject} in {environment}" for environment, subject in sorted(claims))
            yield f"latency key {key}: is used for {where}; evidence of two places is never pooled"


def pool_of(document: Document, key: str) -> PoolRecord:
    """Return a pool of a document as it is stored."""
    columns = document.pools[key]
    media = columns.media if columns.media is not None else [None] * len(columns.size)
    rows = zip(document.ids[columns.ids], columns.size, media, strict=True)
    return PoolRecord(key, columns.unit, [PoolInputRecord(*row) for row in rows])


def pool_digest(pool: PoolRecord) -> str:
    """Return the key that a pool has by its content."""
    return Pool([PoolInput(row.input_id, row.size, row.media or "") for row in pool.inputs], pool.unit).digest


def _pools(document: Document) -> Iterator[str]:
    """Check that a pool is what its key says, so that no file can change what an earlier one brought."""
    for key, columns in document.pools.items():
        ids = document.ids.get(columns.ids)
        if ids is None:
            yield f"pools.{key}.ids: {columns.ids!r} is not among the lists of ids"
        elif len(ids) != len(columns.size):
            yield f"pools.{key}.size: has {len(columns.size)} sizes, and the list of its inputs has {len(ids)}"
        else:
            digest = pool_digest(pool_of(document, key))
            if digest != key:
                yield f"pools.{key}: its inputs hash to {digest}, which would be its key; export it again"
    for index, measurement in enumerate(document.measurements):
        if measurement.pool_key is not None and measurement.pool_key not in document.pools:
            yield f"measurements[{index}].pool_key: {measurement.pool_key!r} is not among the pools"


def _samples(document: Document) -> Iterator[str]:
    for index, measurement in enumerate(document.measurements):
        if measurement.samples is None:
            if measurement.counts:
                yield f"measurements[{index}]: is complete and has no samples"
            continue
        yield from _indices(
            document, f"measurements[{index}].samples", measurement.samples.ids, measurement.samples.input
        )


def _accuracies(document: Document) -> Iterator[str]:
    for index, accuracy in enumerate(document.accuracies):
        where = f"accuracies[{index}]"
        primary = accuracy.miou_pct if accuracy.metric_primary == "miou" else accuracy.top1_pct
        if accuracy.status == "complete" and primary is None:
            yield f"{where}: is complete and its {accuracy.metric_primary} is missing"
        yield from _counted(document, where, accuracy)
        if accuracy.pixels is not None:
            yield from _indices(document, f"{where}.pixels", accuracy.pixels.ids, accuracy.pixels.item)
        if accuracy.hits is not None and (ids := document.ids.get(accuracy.hits.ids)) is None:
            yield f"{where}.hits.ids: {accuracy.hits.ids!r} is not among the lists of ids"
        elif accuracy.hits is not None and ids is not None:
            for name, bits in (("top1", accuracy.hits.top1), ("top5", accuracy.hits.top5)):
                try:
                    unpack_bits(bits, len(ids))
                except ValueError as error:
                    yield f"{where}.hits.{name}: {error}"
    for name, ids in document.ids.items():
        if len(set(ids)) != len(ids):
            yield f"ids.{name}: {duplicates(ids)[0]!r} is there twice; keep one"


def _counted(document: Document, where: str, entry: AccuracyEntry) -> Iterator[str]:
    """Check that totals agree with the items."""
    if entry.status != "complete":
        return
    if entry.hits is not None and entry.pixels is not None:
        yield f"{where}: has hits and pixels; keep those of its {entry.metric_primary}"
    columns = entry.hits if entry.hits is not None else entry.pixels
    ids = document.ids.get(columns.ids) if columns is not None else None
    if ids is not None and len(ids) != entry.items:
        yield f"{where}.items: is {entry.items}, and the list of its items has {len(ids)}"
    if entry.hits is None or ids is None or not ids:
        return
    for name, bits, stated_pct in (
        ("top1", entry.hits.top1, entry.top1_pct),
        ("top5", entry.hits.top5, entry.top5_pct),
    ):
        try:
            share = 100 * sum(unpack_bits(bits, len(ids))) / len(ids)
        except ValueError:
            continue  # told where the bits are read
        if stated_pct is not None and abs(share - stated_pct) > _TOLERANCE_PP:
            yield f"{where}.{name}_pct: is {stated_pct:g}, and the hits give {share:g}"


def _indices(document: Document, where: str, name: str, indices: Sequence[int]) -> Iterator[str]:
    ids = document.ids.get(name)
    if ids is None:
        yield f"{where}.ids: {name!r} is not among the lists of ids"
    elif max(indices, default=-1) >= len(ids):
        yield f"{where}: counts up to {max(indices)} in a list of {len(ids)} ids"


# Of what a document refers to by name: lists of ids, pools.
_MAX_MEMBERS = 100_000


def document_bytes(document: Document, *, compress: bool = False) -> bytes:
    """Write a document.

    Parameters
    ----------
    document : Document
    compress : bool
        Whether to gzip (without a time stamp, so that equal documents give equal files).

    Returns
    -------
    bytes
        UTF-8 JSON: every entry on a line of its own, keys sorted, defaults left out.
    """
    values = document.model_dump(mode="json", exclude_defaults=True)
    sections = [f'"format":{_compact(FORMAT)}', f'"version":{VERSION}']
    for name in Document.model_fields:
        if name in values and name not in ("format", "version"):
            sections.append(f'"{name}":{_lines(values[name])}')
    content = ("{" + ",\n".join(sections) + "}\n").encode()
    return gzip.compress(content, compresslevel=9, mtime=0) if compress else content


def parse_document(content: bytes, *, file: str) -> Document:
    """Read what `document_bytes` wrote from memory; raises as `read_document` does."""
    return read_document(ContentStream(io.BytesIO(content), file=file), file=file)


def read_document(stream: ContentStream, *, file: str) -> Document:
    """Read what `document_bytes` wrote, or anyone who follows docs/exchange.md.

    Parameters
    ----------
    stream : ContentStream
        JSON.
    file : str
        What errors call it.

    Returns
    -------
    Document

    Raises
    ------
    ExchangeError
        With each problem's place: malformed JSON, another format, a later version, a field that is missing, unknown or
        out of range, a reference that leads nowhere.

    Notes
    -----
    Entries are read and checked one at a time, so that only what they hold is in memory, and not the text as well.
    """
    reading = _DocumentReading(JsonReader(stream.text("utf-8"), json.JSONDecoder()))
    try:
        with suppress(_TooManyProblems):
            reading.read()
    except UnicodeDecodeError as error:
        raise ExchangeError(file, [f"the document: Invalid JSON: {stream.not_text(error)}"]) from error
    except MalformedJson as error:
        raise ExchangeError(file, [f"the document: Invalid JSON: {error}"]) from error
    # First, because every field that another version has would be reported as unknown.
    form, version = reading.head.get("format"), reading.head.get("version")
    if form != FORMAT:
        raise ExchangeError(file, [f"format is {_shown(form)}; expected {FORMAT!r} (docs/exchange.md)"])
    if version != VERSION or isinstance(version, bool):
        message = f"version is {_shown(version)}; this Tierwise reads {VERSION}. Upgrade it, or export again"
        raise ExchangeError(file, [message])
    document = Document.model_construct(None, format=FORMAT, version=VERSION, **reading.sections)
    problems = reading.problems or list(islice(inconsistencies(document), MAX_PROBLEMS))
    if problems:
        raise ExchangeError(file, problems)
    return document


class _TooManyProblems(Exception):
    """Raised where to read on would only find more of the same."""


class _DocumentReading:
    """A document while it is read: the sections that are complete, and what is wrong with entries.

    After a thousand problems no further entry is checked, and none is read once it is known which format this is.
    """

    def __init__(self, reader: JsonReader) -> None:
        self._reader = reader
        self.head: dict[str, Any] = {}
        self.sections: dict[str, Any] = {}
        self.problems: list[str] = []

    def read(self) -> None:
        """Go through the document."""
        for name in self._reader.members():
            if name in ("format", "version"):
                self.head[name] = self._reader.value()
            elif name in LISTS and self._reader.peek() == "[":
                self.sections[name] = self._list(name)
            elif name in MAPPINGS and self._reader.peek() == "{":
                self.sections[name] = self._mapping(name)
            else:
                self._wrong_section(name, self._reader.value())
        self._reader.end()

    def _list(self, name: str) -> list[Any]:
        entries: list[Any] = []
        for position, _ in enumerate(self._reader.elements()):
            self._check(LISTS[name], self._reader.value(), f"{name}[{position}]", entries.append)
        return entries

    def _mapping(self, name: str) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for count, key in enumerate(self._reader.members(), 1):
            value = {key: self._reader.value()}
            # As a mapping of one, so that the key is checked as well.
            self._check(MAPPINGS[name], value, name, entries.update)
            if count > _MAX_MEMBERS:
                raise MalformedJson(f"{name} has more than {_MAX_MEMBERS} members", *self._reader.place)
        return entries

    def _wrong_section(self, name: str, value: Any) -> None:
        if name in LISTS or name in MAPPINGS:
            kind = "list" if name in LISTS else "dictionary"
            self._note(f"{name}: Input should be a valid {kind}, got {_shown(value)}")
        else:
            self._note(f"{name}: Extra inputs are not permitted, got {_shown(value)}")

    def _check(self, kind: TypeAdapter[Any], value: Any, place: str, keep: Callable[[Any], object]) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            if {"format", "version"} <= self.head.keys():
                raise _TooManyProblems
            return
        try:
            keep(kind.validate_python(value, strict=True))
        except ValidationError as error:
            for problem in problems_of(error, place):
                self._note(problem)

    def _note(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def problems_of(error: ValidationError, place: str = "") -> Sequence[str]:
    """Return pydantic's findings with their places, `measurements[3].samples.latency_s[4]`."""
    problems = []
    for details in error.errors(include_url=False, include_input=True):
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in details["loc"])
        got = "" if details["type"] == "missing" else f", got {_shown(details['input'])}"
        problems.append(f"{f'{place}{steps}'.lstrip('.') or 'the document'}: {details['msg']}{got}")
    return problems


def _lines(section: Any) -> str:
    if isinstance(section, list):
        return "[\n" + ",\n".join(map(_compact, section)) + "\n]"
    return "{\n" + ",\n".join(f"{_compact(key)}:{_compact(section[key])}" for key in sorted(section)) + "\n}"


def _compact(value: Any) -> str:
    # Python would write NaN, which is no JSON.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _shown(value: Any) -> str:
    # A large value is not written out to be cut off.
    text = repr(value if not isinstance(value, str | list | dict) or len(value) <= 60 else _start(value))
    return text if len(text) <= 60 else f"{text[:57]}…"


def _start(value: Any) -> Any:
    return dict(islice(value.items(), 60)) if isinstance(value, dict) else value[:60]
