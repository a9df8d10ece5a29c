"""The labels of a user's pictures: a CSV with a file's name and the number of its class, from 0, on each line.

As people and pandas write it: with a line of headings or without, with a column that counts the rows, the columns in
any order, separated by commas, semicolons or tabs, class numbers as `3` or `3.0`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from runner.errors import SubjectError
from runner.subjects.folders import is_image_name

_DIGITS = 9
_SEPARATORS = (",", ";", "\t")
_WITH_PANDAS = "with pandas: frame[['file', 'label']].to_csv('labels.csv', index=False)"


@dataclass(frozen=True)
class _Row:
    """A line of the file that holds something."""

    line: int
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.cells)


def read_label_file(content: bytes, file: Path, classes: int) -> dict[str, int]:
    """Return the class of each picture by its name.

    Parameters
    ----------
    content : bytes
        Of the file.
    file : Path
        Its path, for messages.
    classes : int
        How many there are; their numbers begin with 0.

    Raises
    ------
    SubjectError
        For the first line that is no name with a class number, and for two classes of one picture.

    Examples
    --------
    >>> read_label_file(b",file,label\\n0,cat.jpg,3\\n1,dog.jpg,1\\n", Path("labels.csv"), 10)
    {'cat.jpg': 3, 'dog.jpg': 1}
    """
    rows = _rows(content, file)
    if len(rows) > 1 and _is_heading(rows):
        columns = _columns(rows[1:], file, rows[0])
        rows = rows[1:]
    else:
        columns = _columns(rows, file, None)
    labelled: dict[str, int] = {}
    for row in rows:
        name, label = _entry(row, columns, file, classes)
        # A line that is there twice does no harm; two classes for one file do.
        if labelled.setdefault(name, label) != label:
            raise SubjectError(
                f"{file}, line {row.line}: {name} is class {label}, and was {labelled[name]} above; allowed: "
                "one class for each file. Keep the right line"
            )
    return labelled


def _rows(content: bytes, file: Path) -> list[_Row]:
    try:
        # Spreadsheets put a byte order mark at the beginning.
        lines = content.decode("utf-8-sig").splitlines()
        separator = _separator(lines)
        reader = csv.reader(lines, delimiter=separator)
        return [_Row(reader.line_num, tuple(cell.strip() for cell in cells)) for cells in reader if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubjectError(f"{file} is not a CSV file in UTF-8: {error}") from error


def _separator(lines: Sequence[str]) -> str:
    """Return what separates the cells: the first candidate that the last line holds, which is no heading."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return next((separator for separator in _SEPARATORS if separator in last), ",")


def _is_heading(rows: Sequence[_Row]) -> bool:
    """Return whether the first line names columns: no picture and no class, where the next has both."""
    first, second = rows[0].cells, rows[1].cells
    named = any(map(is_image_name, second)) and not any(map(is_image_name, first))
    return named and not any(_number(cell) is not None for cell in first)


@dataclass(frozen=True)
class _Columns:
    """Where a line has the name and the class, of how many cells."""

    name: int
    label: int
    count: int


def _columns(rows: Sequence[_Row], file: Path, heading: _Row | None) -> _Columns:
    """Find the columns of the name and of the class by what the first line holds; a count of the rows is passed over.

    Raises SubjectError where several columns may be the class.
    """
    if not rows:
        return _Columns(0, 1, 2)
    cells = rows[0].cells
    name = next((index for index, cell in enumerate(cells) if is_image_name(cell)), 0)
    others = [index for index in range(len(cells)) if index != name]
    if len(others) > 1 and _counts(rows, others[0]):
        others = others[1:]
    if len(others) == 1:
        return _Columns(name, others[0], len(cells))
    if not others:  # refused by line, with what is expected
        return _Columns(0, 1, 2)
    shown = rows[0] if heading is None else heading
    raise SubjectError(
        f"{file}, line {shown.line}: got {str(shown)!r}; expected two columns, a file's name and a class number, such "
        f"as cat.jpg,3. Leave out the others, {_WITH_PANDAS}"
    )


def _counts(rows: Sequence[_Row], column: int) -> bool:
    """Return whether a column counts the rows, from 0 or 1, as the index of a table does."""
    first = _number(rows[0].cells[column])
    return first in (0, 1) and all(
        len(row.cells) > column and _number(row.cells[column]) == first + index for index, row in enumerate(rows)
    )


def _entry(row: _Row, columns: _Columns, file: Path, classes: int) -> tuple[str, int]:
    fits = len(row.cells) == columns.count
    label = _number(row.cells[columns.label]) if fits else None
    if label is None or not 0 <= label < classes:
        raise SubjectError(
            f"{file}, line {row.line}: got {str(row)!r}; expected a file's name and a class number "
            f"from 0 to {classes - 1}, such as cat.jpg,3"
        )
    # The folder before a name is the one of the pictures, however it is written; they lie in no other.
    return PureWindowsPath(row.cells[columns.name]).name, label


def _number(text: str) -> int | None:
    """Return a whole number from 0, also as pandas writes it where a column has gaps (`3.0`); None for other text."""
    whole, _, fraction = text.partition(".")
    # `int` alone would also take 1_0, and refuses numbers of thousands of digits.
    return int(whole) if whole.isdecimal() and len(whole) <= _DIGITS and not fraction.strip("0") else None
