"""Rows from elsewhere: CSV with a header, or a JSON list of objects with the same names; every cell is text here.

What may be wrong with the file as a whole is found here, what may be wrong with a row in `rows_to_document.py`.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from catalog.declaration.checks import nearest
from catalog.errors import ExchangeError

Kind = Literal["latencies", "accuracies"]
REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("subject", "operator", "placement", "input_id", "repetition", "latency_s"),
    "accuracies": ("subject", "operator", "placement", "metric", "value_pct"),
}
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "latencies": ("round", "environment", "input_bytes"),
    "accuracies": ("environment", "items"),
}
LINK_COLUMN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_.]*-[A-Za-z0-9_.-]+)_bit_per_s$")
_MAX_FIELD = 10_000


@dataclass(frozen=True)
class Row:
    """One row: where it stands (`line 7`) and its cells by column; a missing or empty cell is empty text."""

    place: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Rows:
    """A file's rows, of one kind."""

    kind: Kind
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_rows(content: bytes, *, file: str) -> Rows:
    """Read CSV or JSON rows.

    Parameters
    ----------
    content : bytes
        UTF-8, with or without a byte order mark; any line endings.
    file : str
        What errors call it.

    Returns
    -------
    Rows

    Raises
    ------
    ExchangeError
        Not text, not comma-separated, a column missing, unknown (with the nearest spelling) or there twice, a row with
        more or fewer cells than the header, no rows.
    """
    try:
        # Spreadsheets begin with a byte order mark, which would become part of the first column's name.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExchangeError(file, [f"not UTF-8 text (byte {error.start}); {_EXPECTED}"]) from error
    if "\0" in text:
        raise ExchangeError(file, [f"holds NUL characters: not a text file; {_EXPECTED}"])
    # One line ending, so that the numbers in messages are those that an editor shows.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    problems: list[str] = []
    read = _json_rows if text.lstrip()[:1] == "[" else _csv_rows
    columns, rows = read(text, file, problems)
    kind: Kind = "accuracies" if {"value_pct", "metric"} & set(columns) else "latencies"
    if columns or not problems:
        problems = list(_column_problems(columns, kind)) or problems
    if not problems and not rows:
        problems = ["has no rows"]
    if problems:
        raise ExchangeError(file, problems)
    return Rows(kind, tuple(columns), tuple(rows))


_EXPECTED = "expected CSV with a header, JSON, or either as .gz (docs/exchange.md)"


def _column_problems(columns: Sequence[str], kind: Kind) -> Iterator[str]:
    if len(columns) == 1 and (separator := next((mark for mark in (";", "\t", "|") if mark in columns[0]), None)):
        yield f"line 1: comma expected between columns, found {separator!r}; export it as comma-separated"
        return
    allowed = (*REQUIRED[kind], *OPTIONAL[kind])
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            yield f"column {name!r} is there {columns.count(name)} times; keep one"
        if name not in allowed and not (kind == "latencies" and LINK_COLUMN.match(name)):
            links = "; or a link such as mobile-edge_bit_per_s" if kind == "latencies" else ""
            yield f"unknown column {name!r}; {nearest(name, allowed)}{links}"
    missing = [name for name in REQUIRED[kind] if name not in columns]
    if missing:
        yield f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; {kind} need {', '.join(REQUIRED[kind])}"


def _csv_rows(text: str, file: str, problems: list[str]) -> tuple[list[str], list[Row]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise ExchangeError(file, [f"the file is empty or has no header; {_EXPECTED}"])
        # A quoted cell may span lines: `line_num` is where a row ends.
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                rows.append(_row(f"line {start}", dict(zip(header, map(str.strip, cells), strict=True)), problems))
            # csv reads an empty line as a row without cells.
            elif cells:
                problems.append(f"line {start}: {len(cells)} cells where the header has {len(header)}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise ExchangeError(file, [*problems, f"line {max(reader.line_num, 1)}: {error}"]) from error
    return header, rows


def _json_rows(text: str, file: str, problems: list[str]) -> tuple[list[str], list[Row]]:
    try:
        # Numbers stay text: a cell is checked once, whatever it was written in.
        values = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise ExchangeError(file, [f"line {error.lineno}: malformed JSON: {error.msg}"]) from error
    except RecursionError as error:
        raise ExchangeError(file, ["nested too deeply; expected a list of flat objects"]) from error
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            problems.append(f'row {number}: expected an object such as {{"subject": …}}, got {type(value).__name__}')
            continue
        columns |= dict.fromkeys(value)
        rows.append(_row(f"row {number}", _cells(f"row {number}", value, problems), problems))
    return list(columns), [Row(row.place, dict.fromkeys(columns, "") | dict(row.cells)) for row in rows]


def _cells(place: str, value: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    cells = {}
    for name, cell in value.items():
        if not isinstance(cell, str | None):
            problems.append(f"{place}: {name} is a {type(cell).__name__}; expected text or a number")
        cells[name] = cell.strip() if isinstance(cell, str) else ""
    return cells


def _row(place: str, cells: Mapping[str, str], problems: list[str]) -> Row:
    for name, cell in cells.items():
        if len(cell) > _MAX_FIELD:
            problems.append(f"{place}: {name} is {len(cell)} characters long, {_MAX_FIELD} are allowed")
    return Row(place, cells)
