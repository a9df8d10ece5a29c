"""Rows from elsewhere: CSV with a header, or a JSON list of objects with the same names; every cell is text here.

Rows are read one at a time. What may be wrong with the file as a whole is found here, what may be wrong with a row in
`row_collector.py`.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, NamedTuple, TextIO

from catalog.declaration.checks import nearest
from catalog.errors import ExchangeError
from catalog.exchange.content import ContentStream, JsonReader, MalformedJson
from catalog.exchange.spellings import ColumnUnit, column_unit, spelled_column, suggestion

Kind = Literal["latencies", "accuracies"]
REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("subject", "operator", "placement", "input_id", "repetition", "latency_s"),
    "accuracies": ("subject", "operator", "placement", "metric", "value_pct"),
}
# What a tier does within a sample, as `PartTimes` names it.
PART_NAMES = ("preprocess_s", "compute_s", "postprocess_s", "serialise_s")
_SHARED = ("environment", "passes", "size_bytes", "parameters", "nodes", "measured_at")
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("round", *_SHARED, "input_bytes", "sent_bytes", *PART_NAMES),
    "accuracies": ("items", *_SHARED),
}
LINK_COLUMN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.]*-[A-Za-z0-9_.-]+)_bit_per_s$")
_MAX_LINE = 2**20
# Of columns that nothing declares; a link or a tier has a few.
_MAX_COLUMNS = 1000
# A wrong column makes a problem of every row: after so many the rest is not read.
MAX_PROBLEMS = 1000
_NEAR = 0.75
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


@dataclass
class Rows:
    """A file's rows, of one kind, which can be gone through once; `place` is what a row's number counts.

    Going through them notes in `problems` what is wrong with single rows. A column of JSON is added to `columns` when
    the first row has it. `units` has the columns whose cells are in another unit than the column's name says,
    `written` how the file calls each column first, and `mixed` the later names of columns in other units, with the
    first one.
    """

    kind: Kind
    place: str
    columns: list[str]
    units: dict[str, ColumnUnit] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    mixed: dict[str, str] = field(default_factory=dict)
    rows: Iterator[Row] = field(default_factory=lambda: iter(()))
    problems: list[str] = field(default_factory=list)

    def problem(self, row: Row, what: str) -> None:
        """Note what is wrong with a row."""
        self.problems.append(f"{self.place} {row.number}: {what}")

    def add_column(self, name: str) -> str:
        """Add a column as the file calls it; return what it is called here, the same name where nothing is known."""
        column, unit = spelled_column(name), None
        if not _allowed(column, self.kind) and (other := column_unit(column)) and _allowed(other[0], self.kind):
            column, unit = other
        if not _allowed(column, self.kind):
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


def read_rows(stream: ContentStream, *, file: str) -> Rows:
    """Read CSV or JSON rows.

    Parameters
    ----------
    stream : ContentStream
        UTF-8, with or without a byte order mark; any line endings.
    file : str
        What errors call it.

    Returns
    -------
    Rows

    Raises
    ------
    ExchangeError
        Now or while the rows are read: not text, not comma-separated, a column missing, unknown (with the nearest
        spelling) or there twice, no rows.
    """
    read = _json_rows if first_character(stream) == b"[" else _csv_rows
    # Spreadsheets begin with a byte order mark, which would become part of the first column's name. Any line ending
    # counts as one, so that the numbers in messages are those that an editor shows.
    text = stream.text("utf-8-sig")
    with _text_errors(stream, file):
        rows = read(text, file)
    source = rows.rows
    rows.rows = _checked(rows, source, stream, file)
    return rows


def first_character(stream: ContentStream) -> bytes:
    """Return the first character that is not blank, which distinguishes a document, a list and CSV."""
    return bytes(stream.peek()).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


@contextmanager
def _text_errors(stream: ContentStream, file: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ExchangeError(file, [f"{stream.not_text(error)}; {_EXPECTED}"]) from error


def _checked(rows: Rows, source: Iterator[Row], stream: ContentStream, file: str) -> Iterator[Row]:
    """Go through the rows; raise ExchangeError where there are none or the text is none."""
    row = None
    with _text_errors(stream, file):
        for row in source:
            yield row
    if row is None and not rows.problems:
        raise ExchangeError(file, ["has no rows"])


def _allowed(name: str, kind: Kind) -> bool:
    if name in REQUIRED[kind] or name in OPTIONAL[kind]:
        return True
    named = LINK_COLUMN.match(name), sent_link(name), part_column(name)
    return kind == "latencies" and any(match is not None for match in named)


def sent_link(column: str) -> str | None:
    """Return the link of a column of bytes, `mobile-edge_sent_bytes`; empty text for the only one, `sent_bytes`."""
    if column == "sent_bytes":
        return ""
    link = column.removesuffix("_sent_bytes")
    return link if link != column and "-" in link else None


def part_column(column: str) -> tuple[str, str] | None:
    """Return tier and duration of a column such as `edge_compute_s`; the tier is empty where it is the only one."""
    for name in PART_NAMES:
        if column == name:
            return "", name
        if column.endswith(f"_{name}") and len(column) > len(name) + 1:
            return column.removesuffix(f"_{name}"), name
    return None


def _unknown(name: str, kind: Kind) -> str:
    if near := suggestion(name):
        return f"unknown column {name!r}; rename it to {near}"
    links = "; or a link such as mobile-edge_bit_per_s" if kind == "latencies" else ""
    # A file of others has columns that mean nothing here, such as `comment`, which is no misspelt `placement`.
    allowed = nearest(name, (*REQUIRED[kind], *OPTIONAL[kind]), cutoff=_NEAR)
    return f"unknown column {name!r}; {allowed}{links}; rename it or leave it out"


def _missing(columns: Sequence[str], kind: Kind) -> Iterator[str]:
    missing = [name for name in REQUIRED[kind] if name not in columns]
    if missing:
        yield f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; {kind} need {', '.join(REQUIRED[kind])}"


def _kind(columns: Sequence[str]) -> Kind:
    return "accuracies" if {"value_pct", "metric"} & set(map(spelled_column, columns)) else "latencies"


def _column_problems(columns: Sequence[str], kind: Kind, header: Sequence[str]) -> Iterator[str]:
    if len(columns) == 1 and (separator := next((mark for mark in (";", "\t", "|") if mark in columns[0]), None)):
        yield f"line 1: comma expected between columns, found {separator!r}; export it as comma-separated"
        return
    if len(columns) > _MAX_COLUMNS:
        yield f"has {len(columns)} columns; allowed are {_MAX_COLUMNS}"
        return
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            spellings = dict.fromkeys(
                repr(text) for text, column in zip(header, columns, strict=True) if column == name
            )
            spelled = f", as {' and '.join(spellings)}" if len(spellings) > 1 else ""
            yield f"column {name!r} is there {columns.count(name)} times{spelled}; keep one"
        if not _allowed(name, kind):
            yield _unknown(name, kind)
    yield from _missing(columns, kind)


def _csv_rows(text: TextIO, file: str) -> Rows:
    reader = csv.reader(_lines(text, file), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ExchangeError(file, [f"line 1: {error}"]) from error
    if not any(header):
        raise ExchangeError(file, [f"the file is empty or has no header; {_EXPECTED}"])
    if _is_yaml(file, header):
        raise ExchangeError(file, [_YAML.format(file=file)])
    rows = Rows(_kind(header), "line", [])
    for name in header:
        rows.add_column(name)
    if problems := list(_column_problems(rows.columns, rows.kind, header)):
        raise ExchangeError(file, problems)
    # A quoted cell may span lines: `line_num` is where a row ends.
    rows.rows = _csv_body(reader, rows, file, reader.line_num + 1)
    return rows


def _is_yaml(file: str, header: Sequence[str]) -> bool:
    return file.endswith((".yaml", ".yml")) or (len(header) == 1 and _YAML_LINE.match(header[0]) is not None)


def _lines(text: TextIO, file: str) -> Iterator[str]:
    number, rest = 0, ""
    # Many lines at once: to read each by itself takes as long as all that follows.
    while chunk := text.read(_MAX_LINE):
        if "\0" in chunk:
            raise ExchangeError(file, [f"holds NUL characters: not a text file; {_EXPECTED}"])
        *lines, rest = (rest + chunk).split("\n")
        number += len(lines)
        if len(rest) > _MAX_LINE:
            raise ExchangeError(file, [f"line {number + 1} is longer than {_MAX_LINE} characters; {_EXPECTED}"])
        # A quoted cell may go on in the next line.
        yield from [f"{line}\n" for line in lines]
    if rest:
        yield rest


def _csv_body(reader: Any, rows: Rows, file: str, start: int) -> Iterator[Row]:
    width = len(rows.columns)
    try:
        for cells in reader:
            if len(cells) == width:
                yield Row(start, _stripped(cells))
            # csv reads an empty line as a row without cells.
            elif cells:
                rows.problem(Row(start, ()), f"{len(cells)} cells where the header has {width}")
            if rows.problems and rows.too_many_problems:
                return
            start = reader.line_num + 1
    except csv.Error as error:
        raise ExchangeError(file, [*rows.problems, f"line {max(reader.line_num, 1)}: {error}"]) from error


def _stripped(cells: list[str]) -> list[str]:
    # To strip each cell of a million rows takes longer than to look whether there is anything to strip. The space is
    # the only white space that counts as printable.
    together = "".join(cells)
    return cells if together.isprintable() and " " not in together else list(map(str.strip, cells))


def _json_rows(text: TextIO, file: str) -> Rows:
    # Numbers stay text: a cell is checked once, whatever it was written in.
    reader = JsonReader(text, json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str))
    source = _json_values(reader, file)
    # The first row says of which kind the file is.
    first = next(source, None)
    rows = Rows(_kind(list(first) if isinstance(first, dict) else []), "row", [])
    # So that every row has them, whichever the first one has.
    rows.columns += REQUIRED[rows.kind]
    rows.rows = iter(()) if first is None else _json_body(chain((first,), source), rows, file)
    return rows


def _json_values(reader: JsonReader, file: str) -> Iterator[Any]:
    try:
        for _ in reader.elements():
            yield reader.value()
        reader.end()
    except MalformedJson as error:
        if error.what == "recursion limit exceeded":
            raise ExchangeError(file, ["nested too deeply; expected a list of flat objects"]) from error
        raise ExchangeError(file, [f"line {error.line}: malformed JSON: {error.what}"]) from error


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
            if not _allowed(name, rows.kind):
                wrong[_unknown(name, rows.kind)] = None
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
