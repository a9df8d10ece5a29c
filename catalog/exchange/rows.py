"""Rows from elsewhere: CSV with a header, or a JSON list of objects with the same names; every cell is text here.

Rows are read one at a time. What may be wrong with the file as a whole is found here, what may be wrong with a row in
`row_collector.py`.
"""

import codecs
import csv
import json
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from itertools import chain, islice, pairwise
from operator import lt
from typing import Any, NamedTuple, TextIO

from catalog.artifact_details import graph_size
from catalog.errors import ExchangeError
from catalog.exchange.document import MAX_PROBLEMS
from catalog.exchange.layouts import (
    NO_OPTIONS,
    Layout,
    Placements,
    RowOptions,
    Table,
    is_measured,
    lay_out,
    needs_layout,
    unknown_column,
)
from catalog.exchange.serialization import ContentStream, JsonReader, MalformedJson
from catalog.exchange.spellings import (
    REQUIRED,
    ColumnUnit,
    Kind,
    column_unit,
    is_column,
    read_label,
    spelled_column,
)

_FIRST_MEMBER = re.compile(rb"\s*\{\s*\"((?:[^\"\\]|\\.)*)\"\s*:")
# A line of a log: words, a number, perhaps its unit.
_LOG_ENTRY = re.compile(r"([A-Za-z][^:=,;|\t]*)[:=]\s*([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?) *([a-zµμ]*)")
# What programs write where they have no number.
_NO_NUMBER = frozenset(("nan", "inf", "infinity", "none", "null", "na", "n/a"))
_MAX_LINE = 2**20
# Of columns that nothing declares; a link or a tier has a few.
_MAX_COLUMNS = 1000
# More of them save no time, and make the collector of cycles look at them all.
ROWS_AT_ONCE = 500
# More than a file can have.
ROWS_OF_FILE = 2**40
_YAML_LINE = re.compile(r"---|[A-Za-z_]+:( |$)|# yaml-language-server:")
_YAML = (
    "is YAML, as a catalog file is, which declares what to measure and holds no evidence; expected an export, or rows "
    "as CSV or JSON (docs/exchange.md). To measure what a catalog declares: runner fill-catalog --catalog {file}"
)
_EXPECTED = "expected CSV with a header, JSON, or either as .gz (docs/exchange.md)"


class Row(NamedTuple):
    """One row: its number, and its cells in the order of the columns; empty text is an empty cell.

    A row of JSON may have fewer cells than there are columns: the last ones are empty.
    """

    number: int
    cells: Sequence[str]


class Batch(NamedTuple):
    """Rows that follow each other: their numbers, and the cells of each."""

    numbers: Sequence[int]
    cells: Sequence[Sequence[str]]

    def rows(self) -> Iterator[Row]:
        """Yield the rows one by one."""
        return map(Row, self.numbers, self.cells)


@dataclass
class Rows:
    """A file's rows, of one kind, which can be gone through once; `place` is what a row's number counts.

    Of several files, `files` has the names, and a row's number counts `ROWS_OF_FILE` for each file before its own.
    Going through them notes in `problems` what is wrong with single rows. A column of JSON is added to `columns` when
    the first row has it. `units` has the columns whose cells are in another unit than the column's name says,
    `written` how the file calls each column first, and `mixed` the later names of columns in other units, with the
    first one. `remarks` say how the file was read where it does not say so itself.
    """

    kind: Kind
    place: str
    columns: list[str]
    units: dict[str, ColumnUnit] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    mixed: dict[str, str] = field(default_factory=dict)
    batches: Iterator[Batch] = field(default_factory=lambda: iter(()))
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    files: Sequence[str] = ()

    @property
    def rows(self) -> Iterator[Row]:
        """The rows, one by one."""
        return (row for batch in self.batches for row in batch.rows())

    def problem(self, row: Row, what: str) -> None:
        """Note what is wrong with a row."""
        self.problems.append(f"{self.at(row.number)}: {what}")

    def at(self, number: int) -> str:
        """Return where a row is."""
        position, line = divmod(number, ROWS_OF_FILE)
        return f"{self.files[position]}, {self.place} {line}" if self.files else f"{self.place} {number}"

    def add_column(self, name: str) -> str:
        """Add a column as the file calls it; return what it is called here, the same name where nothing is known."""
        column, unit = spelled_column(name), None
        if not is_column(column, self.kind) and (other := column_unit(column)) and is_column(other[0], self.kind):
            column, unit = other
        if not is_column(column, self.kind):
            column = name
        elif column not in self.written:
            self.written[column] = name
            if unit is not None:
                self.units[column] = unit
        elif self.units.get(column) != unit:
            self.mixed[name] = self.written[column]
        self.columns.append(column)
        return column

    @property
    def too_many_problems(self) -> bool:
        """Whether to read on would only find more of the same."""
        return len(self.problems) >= MAX_PROBLEMS


@dataclass(frozen=True)
class _RowReader:
    """What a file of rows is read with."""

    file: str
    options: RowOptions
    placements: Placements
    # The file's path as far as it says names, and what it says of the run.
    named: str
    run: Mapping[str, str]

    def layout(self, header: Sequence[str], first: Sequence[str], *, commas: bool = False) -> Layout:
        """Find out what the columns of a file mean."""
        table = Table(header, first, self.named, commas, self.run)
        return lay_out(table, self.options, self.placements, file=self.file)


def read_rows(
    stream: ContentStream,
    *,
    file: str,
    options: RowOptions = NO_OPTIONS,
    placements: Placements = dict,
    named: str | None = None,
    run: Mapping[str, str] | None = None,
) -> Rows:
    """Read CSV or JSON rows.

    Parameters
    ----------
    stream : ContentStream
        UTF-8, with or without a byte order mark; any line endings.
    file : str
        What errors call it.
    options : RowOptions
        What the user says of its columns.
    placements : callable
        Returns those of accuracies whose rows say none, by subject and operator.
    named : str, optional
        The path as far as it may name what the rows do not, in place of the file's.
    run : mapping, optional
        What the file's name says of the run, by the word for it.

    Returns
    -------
    Rows

    Raises
    ------
    ExchangeError
        Now or while the rows are read: not text, a column missing, unknown (with what may be said of it) or there
        twice, no rows.
    """
    reader = _RowReader(file, options, placements, file if named is None else named, run or {})
    read = {b"[": _json_rows, b"{": _nested_rows}.get(first_character(stream), _csv_rows)
    # Spreadsheets begin with a byte order mark, which would become part of the first column's name. Any line ending
    # counts as one, so that the numbers in messages are those that an editor shows.
    text = stream.text("utf-8-sig")
    with _text_errors(stream, reader.file):
        rows = read(text, reader)
    source = rows.batches
    rows.batches = _checked(rows, source, stream, reader.file)
    return rows


def join_rows(parts: Iterator[Rows], files: Sequence[str]) -> Rows:
    """Return the rows of files as those of one; a part is read before the next one is opened.

    Raises
    ------
    ExchangeError
        Now or while the rows are read: the files have other columns, or one of them cannot be read.
    """
    first = next(parts)
    joined = replace(first, batches=iter(()), problems=[], remarks=[], files=files)

    def batches() -> Iterator[Batch]:
        for position, (file, rows) in enumerate(zip(files, chain([first], parts), strict=True)):
            if (rows.kind, rows.columns, rows.units) != (joined.kind, joined.columns, joined.units):
                raise ExchangeError(file, [f"has other columns than {files[0]}; import them with the same ones"])
            for batch in rows.batches:
                yield Batch([number + position * ROWS_OF_FILE for number in batch.numbers], batch.cells)
            joined.problems += [f"{file}, {problem}" for problem in rows.problems]
            joined.remarks += [remark for remark in rows.remarks if remark not in joined.remarks]
            if joined.too_many_problems:
                return

    joined.batches = batches()
    return joined


def _laid_out(layout: Layout, source: Iterator[Row], place: str, problems: list[str]) -> Rows:
    """Return the rows that a layout makes of those of a file."""
    rows = Rows(layout.kind, place, [], problems=problems, remarks=layout.remarks)
    for name in layout.columns:
        column = rows.add_column(name)
        rows.written[column] = layout.written.get(name, name)

    def spread() -> Iterator[Row]:
        for row in source:
            # A spreadsheet writes an empty line as one of empty cells.
            for cells in layout.spread(row.cells) if any(row.cells) else ():
                yield Row(row.number, cells)
        rows.problems += layout.end()

    rows.batches = _batched(spread())
    return rows


def _batched(rows: Iterator[Row]) -> Iterator[Batch]:
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield Batch(*map(list, zip(*batch, strict=True)))


def first_character(stream: ContentStream) -> bytes:
    """Return the first character that is not blank, which distinguishes a document, a list and CSV."""
    return bytes(stream.peek()).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def holds_objects(stream: ContentStream, fields: Collection[str]) -> bool:
    """Tell whether a file begins with an object whose first member has none of these names."""
    match = _FIRST_MEMBER.match(bytes(stream.peek()).removeprefix(codecs.BOM_UTF8))
    return match is not None and match[1].decode(errors="replace") not in fields


@contextmanager
def _text_errors(stream: ContentStream, file: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ExchangeError(file, [f"{stream.not_text(error)}; {_EXPECTED}"]) from error


def _checked(rows: Rows, source: Iterator[Batch], stream: ContentStream, file: str) -> Iterator[Batch]:
    """Go through the rows; raise ExchangeError where there are none or the text is none."""
    batch = None
    with _text_errors(stream, file):
        for batch in source:
            yield batch
    if batch is None and not rows.problems:
        raise ExchangeError(file, ["has no rows"])


def _missing(columns: Sequence[str], kind: Kind) -> Iterator[str]:
    missing = [name for name in REQUIRED[kind] if name not in columns]
    if missing:
        yield f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; {kind} need {', '.join(REQUIRED[kind])}"


def _kind(columns: Sequence[str]) -> Kind:
    names = set(map(spelled_column, columns))
    if {"value_pct", "metric"} & names:
        return "accuracies"
    return "sizes" if "size_bytes" in names and not {"input_id", "latency_s"} & names else "latencies"


def _column_problems(columns: Sequence[str], kind: Kind, header: Sequence[str]) -> Iterator[str]:
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            spellings = dict.fromkeys(
                repr(text) for text, column in zip(header, columns, strict=True) if column == name
            )
            spelled = f", as {' and '.join(spellings)}" if len(spellings) > 1 else ""
            yield f"column {name!r} is there {columns.count(name)} times{spelled}; keep one"
        if not is_column(name, kind):
            yield unknown_column(name, kind)
    yield from _missing(columns, kind)


def _csv_rows(text: TextIO, reader: _RowReader) -> Rows:
    lines, skipped = _lines(text, reader.file), 0
    for line in lines:
        if line.strip() and not line.startswith("#"):
            break
        skipped += 1
    else:
        line = ""
    mark = _separator(line)
    source = chain([line], lines)
    # A catalog file begins with its version.
    if (entry := _LOG_ENTRY.fullmatch(line.strip())) is not None and entry[1] != "version":
        return _log_rows(source, entry, reader, skipped)
    cells = csv.reader(source, strict=True, delimiter=mark)
    try:
        header = [name.strip() for name in next(cells, [])]
    except csv.Error as error:
        raise ExchangeError(reader.file, [f"line {skipped + 1}: {error}"]) from error
    if not any(header):
        raise ExchangeError(reader.file, [f"the file is empty or has no header; {_EXPECTED}"])
    if _is_yaml(reader.file, header):
        raise ExchangeError(reader.file, [_YAML.format(file=reader.file)])
    if len(header) > _MAX_COLUMNS:
        raise ExchangeError(reader.file, [f"has {len(header)} columns; allowed are {_MAX_COLUMNS}"])
    body = _CsvBody(cells, len(header), reader.file, skipped)
    if mark == "," and not needs_layout(header, reader.options, reader.run, reader.named):
        return _own_rows(header, body)
    numbers = all(map(_is_number, header))
    below = (row for batch in body.batches() for row in batch.rows())
    first = Row(skipped + 1, header) if numbers else next(below, Row(0, ()))
    if numbers:
        header = [str(position) for position in range(1, len(header) + 1)]
        if header == ["1"] and "1" not in reader.options.columns:
            # A list of numbers alone is of what is measured.
            header = ["latency"]
    layout = reader.layout(header, first.cells, commas=mark != ",")
    return _laid_out(layout, chain([first] if first.cells else [], below), "line", body.problems)


def _own_rows(header: Sequence[str], body: "_CsvBody") -> Rows:
    rows = Rows(_kind(header), "line", [], batches=body.batches(), problems=body.problems)
    for name in header:
        rows.add_column(name)
    if problems := list(_column_problems(rows.columns, rows.kind, header)):
        raise ExchangeError(body.file, problems)
    return rows


def _log_rows(lines: Iterator[str], entry: re.Match[str], reader: _RowReader, skipped: int) -> Rows:
    """Return rows of a log whose lines all are words and a number, `Inference time: 5.64 s`."""
    problems: list[str] = []

    def numbers() -> Iterator[Row]:
        for number, line in enumerate(lines, skipped + 1):
            match = _LOG_ENTRY.fullmatch(line.strip())
            if match is not None and match[1] == entry[1] and match[3] == entry[3]:
                yield Row(number, [match[2]])
            elif line.strip():
                problems.append(f"line {number}: {line.strip()[:40]!r} is no line such as {entry[0]!r}")
                if len(problems) >= MAX_PROBLEMS:
                    return

    unit = f" ({entry[3]})" if entry[3] else ""
    layout = reader.layout([f"{entry[1].strip()}{unit}"], [entry[2]])
    return _laid_out(layout, numbers(), "line", problems)


def _separator(header: str) -> str:
    """Return what stands between the names of columns: of several marks, the most frequent one."""
    return max((",", ";", "\t", "|"), key=header.count)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_yaml(file: str, header: Sequence[str]) -> bool:
    return file.endswith((".yaml", ".yml")) or (len(header) == 1 and _YAML_LINE.match(header[0]) is not None)


def _lines(text: TextIO, file: str) -> Iterator[str]:
    number, rest, quoted = 0, "", False
    # Many lines at once: to read each by itself takes as long as all that follows.
    while chunk := text.read(_MAX_LINE):
        if "\0" in chunk:
            raise ExchangeError(file, [f"holds NUL characters: not a text file; {_EXPECTED}"])
        *lines, rest = (rest + chunk).split("\n")
        number += len(lines)
        if len(rest) > _MAX_LINE:
            raise ExchangeError(file, [f"line {number + 1} is longer than {_MAX_LINE} characters; {_EXPECTED}"])
        # A quoted cell may go on in the next line, so that the end of the line is part of it.
        quoted = quoted or '"' in chunk
        yield from [f"{line}\n" for line in lines] if quoted else lines
    if rest:
        yield rest


@dataclass
class _CsvBody:
    """The rows below a header of so many columns; a line whose cells are more or fewer is a problem."""

    cells: Any
    width: int
    file: str
    skipped: int
    problems: list[str] = field(default_factory=list)

    def batches(self) -> Iterator[Batch]:
        """Yield the rows, many at once: to look at each takes longer than to read it."""
        # `line_num` is where the last row ended.
        start = self.cells.line_num + self.skipped + 1
        while len(self.problems) < MAX_PROBLEMS:
            batch: list[list[str]] = []
            try:
                # What was read before an error is there.
                batch.extend(islice(self.cells, ROWS_AT_ONCE))
            except csv.Error as error:
                list(self._numbered(start, batch).cells)
                line = max(self.cells.line_num, 1) + self.skipped
                raise ExchangeError(self.file, [*self.problems, f"line {line}: {error}"]) from error
            if not batch:
                return
            yield self._numbered(start, batch)
            start = self.cells.line_num + self.skipped + 1

    def _numbered(self, start: int, batch: list[list[str]]) -> Batch:
        """Return the rows of a batch with their numbers; a quoted cell may span lines."""
        lines = self.cells.line_num + self.skipped + 1 - start
        if lines == len(batch) and set(map(len, batch)) == {self.width}:
            return Batch(range(start, start + lines), _stripped(batch))
        numbers, kept = [], []
        for cells in batch:
            if len(cells) == self.width:
                numbers.append(start)
                kept.append(cells)
            # csv reads an empty line as a row without cells.
            elif cells:
                self.problems.append(f"line {start}: {len(cells)} cells where the header has {self.width}")
            start += 1 + sum(cell.count("\n") for cell in cells)
        return Batch(numbers, _stripped(kept))


def _stripped(batch: list[list[str]]) -> list[list[str]]:
    # To strip each cell takes longer than to look whether there is anything to strip. The space is the only white space
    # that counts as printable.
    together = "".join(chain.from_iterable(batch))
    return batch if together.isprintable() and " " not in together else [list(map(str.strip, cells)) for cells in batch]


def _json_rows(text: TextIO, reader: _RowReader) -> Rows:
    return _rows_of(_json_values(_json_reader(text), reader.file), reader)


def _rows_of(source: Iterator[Any], reader: _RowReader) -> Rows:
    """Return the rows that objects are; numbers, or lists of them, are latencies of what the file's name says."""
    # The first row says of which kind the file is.
    first = next(source, None)
    if isinstance(first, list):
        lists = enumerate(chain((first,), source))
        unnamed = ({"latency": values, "repetition": str(number)} for number, values in lists)
        return _json_table(unnamed, ["latency", "repetition"], reader)
    if isinstance(first, str) and _is_number(first):
        return _json_table(({"latency": value} for value in chain((first,), source)), ["latency"], reader)
    if (
        isinstance(first, dict)
        and first
        and len(first) <= _MAX_COLUMNS
        and needs_layout(list(first), reader.options, {}, reader.named)
    ):
        return _json_table(chain((first,), source), list(first), reader)
    rows = Rows(_kind(list(first) if isinstance(first, dict) else []), "row", [])
    # So that every row has them, whichever the first one has.
    rows.columns += REQUIRED[rows.kind]
    if first is not None:
        rows.batches = _batched(_json_body(chain((first,), source), rows, reader.file))
    return rows


def _json_reader(text: TextIO) -> JsonReader:
    # Numbers stay text: a cell is checked once, whatever it was written in.
    return JsonReader(text, json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str))


def _json_table(source: Iterator[Any], header: Sequence[str], reader: _RowReader) -> Rows:
    """Return rows of objects with other columns than rows have here; a list in one is a row for each element."""
    table = _table_rows(source, header, reader)
    first = next(table, Row(0, ()))
    layout = reader.layout(header, first.cells)
    return _laid_out(layout, chain([first] if first.cells else [], table), "row", [])


def _table_rows(source: Iterator[Any], header: Sequence[str], reader: _RowReader) -> Iterator[Row]:
    file = reader.file
    for number, value in enumerate(source, 1):
        if not isinstance(value, dict):
            got = f'expected an object such as {{"subject": …}}, got {type(value).__name__}'
            raise ExchangeError(file, [f"row {number}: {got}"])
        if others := value.keys() - set(header):
            what = f"{', '.join(sorted(map(repr, others)))} is in no row before"
            raise ExchangeError(file, [f"row {number}: {what}; give the first row all columns"])
        cells = ["" if name in reader.options.ignored else value.get(name) for name in header]
        lengths = {name: len(cell) for name, cell in zip(header, cells, strict=True) if isinstance(cell, list)}
        if len(set(lengths.values())) > 1:
            what = ", ".join(f"{name!r} of {length}" for name, length in lengths.items())
            ask = "an element each is a row; leave out what is none with --ignore NAME"
            raise ExchangeError(file, [f"row {number}: lists of different lengths, {what}; {ask}"])
        for position in range(max(lengths.values(), default=1)):
            yield Row(number, [_cell_text(cell[position] if isinstance(cell, list) else cell) for cell in cells])


def _cell_text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _nested_rows(text: TextIO, reader: _RowReader) -> Rows:
    """Return rows of an object a line, of one object that describes a run, or of objects in objects.

    In `{"resnet": {"identity": {"mobile": [5.6, …]}}}` the names lead to numbers. Of lists in a list, each is a
    repetition.
    """
    json_reader = _json_reader(text)
    with _json_errors(reader.file):
        value = json_reader.value()
        lines = json_reader.peek() == "{"
        if not lines:
            json_reader.end()
    if lines:
        return _rows_of(chain((value,), _json_lines(json_reader, reader.file)), reader)
    leaves = list(_leaves(value, ()))
    if any(_describes(leaf) for _, leaf in leaves):
        records = list(_records(value, {}, reader))
        return _json_table(iter(records), list(records[0]) if records else [], reader)
    keys = {path[-1] for path, _ in leaves}
    measured = next((key for key in keys if len(keys) == 1 and is_measured(key)), "")
    of_metrics = any("metric" in read_label(" ".join(path)).names for path, _ in leaves[:1])
    header = ("strategy", measured or ("value_pct" if of_metrics else "latency"))
    objects = (
        {header[0]: " ".join(path[:-1] if measured else path), header[1]: leaf, **repetition}
        for path, leaves_of in leaves
        for leaf, repetition in _lists(leaves_of)
    )
    nested = any(_is_list_of(list, leaf) for _, leaf in leaves)
    return _json_table(objects, [*header, *(["repetition"] if nested else [])], reader)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _leaves(below, (*path, name))
    elif path:
        yield path, value


def _is_list_of(kind: type, leaf: Any) -> bool:
    return isinstance(leaf, list) and bool(leaf) and isinstance(leaf[0], kind)


def _describes(leaf: Any) -> bool:
    """Tell whether a value says something of a run, as a word does: it is no number, list of them, or empty."""
    if isinstance(leaf, str):
        return any(map(str.isalpha, leaf)) and leaf.strip().lower() not in _NO_NUMBER and not _is_number(leaf)
    return isinstance(leaf, bool) or _is_list_of(dict, leaf)


def _records(value: Mapping[str, Any], above: Mapping[str, Any], reader: _RowReader) -> Iterator[dict[str, Any]]:
    """Yield the runs that an object describes, each with what is said of all: a list of objects is a run each."""
    columns, runs = dict(above), []
    for path, leaf in _leaves(value, ()):
        if _is_list_of(dict, leaf):
            runs += leaf
        elif path[-1] in columns and path[-1] not in reader.options.ignored:
            what = f"{'.'.join(path)!r}: an object above or before has {path[-1]!r}, too"
            raise ExchangeError(reader.file, [f"{what}; rename one of them, or leave them out: --ignore {path[-1]}"])
        else:
            columns[path[-1]] = leaf
    for run in runs:
        if not isinstance(run, dict):
            what = f"a list of objects has an element of {str(run)[:40]!r}; expected objects"
            raise ExchangeError(reader.file, [what])
        yield from _records(run, columns, reader)
    if not runs:
        repeated = [name for name, leaf in columns.items() if _is_list_of(list, leaf)]
        if len(repeated) == 1:
            yield from ({**columns, repeated[0]: leaf, **of} for leaf, of in _lists(columns[repeated[0]]))
        else:
            yield columns


def _lists(leaf: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    if _is_list_of(list, leaf):
        yield from ((inner, {"repetition": str(number)}) for number, inner in enumerate(leaf))
    else:
        yield leaf, {}


@contextmanager
def _json_errors(file: str) -> Iterator[None]:
    try:
        yield
    except MalformedJson as error:
        if error.what == "recursion limit exceeded":
            raise ExchangeError(file, ["nested too deeply; expected a list of flat objects"]) from error
        raise ExchangeError(file, [f"line {error.line}: malformed JSON: {error.what}"]) from error


def _json_lines(reader: JsonReader, file: str) -> Iterator[Any]:
    with _json_errors(file):
        while reader.peek():
            yield reader.value()


def _json_values(reader: JsonReader, file: str) -> Iterator[Any]:
    with _json_errors(file):
        for _ in reader.elements():
            yield reader.value()
        reader.end()


def _json_body(source: Iterable[Any], rows: Rows, file: str) -> Iterator[Row]:
    wrong: dict[str, None] = {}
    there: dict[str, None] = {}
    columns: dict[str, str] = {}
    positions = {name: position for position, name in enumerate(rows.columns)}
    for number, value in enumerate(source, 1):
        if not isinstance(value, dict):
            got = f'expected an object such as {{"subject": …}}, got {type(value).__name__}'
            rows.problem(Row(number, ()), got)
            if rows.too_many_problems:
                break
            continue
        if len(value) > _MAX_COLUMNS or len(positions) > _MAX_COLUMNS:
            raise ExchangeError(file, [f"row {number}: has more than {_MAX_COLUMNS} columns"])
        # In the order of the row, so that the same file has the same columns.
        for written in [name for name in value if name not in columns]:
            name = columns[written] = rows.add_column(written)
            there[name] = None
            if name in positions:
                # One of those that every row has.
                rows.columns.pop()
            else:
                positions[name] = len(positions)
            if not is_column(name, rows.kind):
                wrong[unknown_column(name, rows.kind)] = None
            if other := rows.mixed.get(written):
                # One column of cells in two units would need a unit for each cell.
                rows.problem(Row(number, ()), f"{written} is {other} in earlier rows; write all rows in one unit")
        row = _json_row(number, value, {name: positions[columns[name]] for name in value}, rows)
        # A column that nothing knows makes the rows something else.
        if not wrong:
            yield row
        if rows.too_many_problems:
            break
    # Problems of columns come first: they make problems of every row.
    if there and (problems := [*wrong, *_missing(list(there), rows.kind)]):
        raise ExchangeError(file, problems)


def _json_row(number: int, value: Mapping[str, Any], positions: Mapping[str, int], rows: Rows) -> Row:
    cells = [""] * len(rows.columns)
    row = Row(number, cells)
    if len(set(positions.values())) < len(positions):
        rows.problem(row, "two of its columns are one here, written otherwise; keep one")
    for name, cell in value.items():
        if isinstance(cell, str):
            cells[positions[name]] = cell.strip()
        elif cell is not None:
            rows.problem(row, f"{name} is a {type(cell).__name__}; expected text or a number")
    return row


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
NAME_RULE = "letters, digits, '_', '.', '-', at most 63, a letter or digit first"
# What rows may say of an artifact; an operator makes one of a subject's model.
ARTIFACT_COUNTS = ("size_bytes", "parameters", "nodes")
# Parts that are rounded to the digits of the latency may exceed it by that much.
ROUNDING = 1e-6


def is_name(text: str) -> bool:
    """Tell whether a subject, an operator or an environment may have this name."""
    return _NAME.fullmatch(text) is not None


def artifact_counts(size_bytes: int | None, details: Mapping[str, Any]) -> dict[str, int]:
    """Return what is known of an artifact of what rows may say of it, by `ARTIFACT_COUNTS`."""
    counts = (size_bytes, *astuple(graph_size(details)))
    return {name: count for name, count in zip(ARTIFACT_COUNTS, counts, strict=True) if count}


@dataclass(frozen=True, order=True)
class StrategyName:
    """A strategy in an environment, by the names that rows use."""

    environment: str
    subject: str
    operator: str
    placement: str

    def __str__(self) -> str:
        return f"{self.subject}/{self.operator}@{self.placement} in {self.environment}"


@dataclass
class RoundRows:
    """The samples of one round as columns, in the order of the rows until they are sorted.

    `parts` are durations by tier and name, `sent` bytes by link; `numbers` say which row each sample was.
    """

    input_ids: list[str] = field(default_factory=list)
    repetitions: list[int] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    parts: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    measured_at: str = ""

    @property
    def rows(self) -> list[tuple[str, int, float]]:
        """Input, repetition and seconds of each sample."""
        return list(zip(self.input_ids, self.repetitions, self.latency_s, strict=True))

    def sort(self) -> Iterator[tuple[int, int]]:
        """Sort by repetition and input; yield the numbers of rows that are of one input and repetition."""
        keys = list(zip(self.repetitions, self.input_ids, strict=True))
        if all(map(lt, keys, islice(keys, 1, None))):
            self.numbers = array("q")
            return
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for first, second in pairwise(order):
            if keys[first] == keys[second]:
                yield self.numbers[first], self.numbers[second]
        for column in (self.input_ids, self.repetitions, self.latency_s, *self.parts.values(), *self.sent.values()):
            column[:] = [column[position] for position in order]  # type: ignore[index]
        self.numbers = array("q")


# The links of a strategy with their rates, by name.
LinkRates = tuple[tuple[str, float], ...]


@dataclass
class StrategyRows:
    """Rows of one strategy: samples by round, bit/s by link, percent by metric, bytes by input.

    `links` are the rates that answers are about, `settings` have the samples at other rates of the same links. `passes`
    is None where the rows do not say them; `counts` has what is known of the artifact, by `ARTIFACT_COUNTS`.
    """

    rounds: dict[int, RoundRows] = field(default_factory=lambda: defaultdict(RoundRows))
    links: dict[str, float] | None = None
    settings: dict[LinkRates, dict[int, RoundRows]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    items: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    passes: tuple[str, ...] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    measured_at: str = ""
