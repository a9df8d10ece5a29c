"""A user's own folder of images, with a file of labels, with masks, or without either.

The labels are a CSV with a file's name and the number of its class, from 0, on each line. Pictures without a line are
not used. It is read as people and pandas write it: with a line of headings or without, with a column that counts the
rows, the columns in any order, separated by commas, semicolons or tabs, class numbers as `3` or `3.0`.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.foreign import lack_of, read_regular, require_regular
from runner.errors import SubjectError
from runner.subjects.dataset import Truth
from runner.subjects.folders import images_in, is_image_name
from tierserver.errors import TierError
from tierserver.imaging import decode, frame
from tierserver.messages import Preprocess

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


@dataclass(frozen=True)
class Images:
    """The images directly in a folder; `table` is the file of labels, `classes` how many numbers it may use."""

    root: Path
    table: Path | None = None
    classes: int = 0
    kind: str = "images"
    expected: str = "a folder with at least two image files (.jpg, .jpeg, .png, .webp, .bmp)"

    def validation(self) -> Sequence[Path]:
        pictures = images_in(self.root)
        if self.table is None or not pictures:
            return pictures
        self._check_names({path.name for path in pictures})
        return [path for path in pictures if path.name in self._labels]

    def training(self, count: int) -> Sequence[Path]:
        return ()

    def labels(self) -> Mapping[str, bytes]:
        return {} if self.table is None else {"labels": _read(self.table)}

    def truth(self, pictures: Sequence[Path]) -> Truth:
        values = (np.asarray(self._labels[path.name], np.int64) for path in pictures)
        return Truth("label", (), np.int64, values)

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        return {} if self.table is None else read_label_file(_read(self.table), self.table, self.classes)

    def _check_names(self, pictures: set[str]) -> None:
        lost = [name for name in self._labels if name not in pictures]
        if lost:
            raise SubjectError(
                f"{self.table} labels {lost[0]!r}, which is not in {self.root} ({len(lost)} of {len(self._labels)} "
                "names are not); allowed: names of image files in that folder. Correct the names, or remove the lines"
            )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SubjectError(
            f"the labels {path} cannot be read: {error.strerror}; expected a CSV file with lines such as cat.jpg,3"
        ) from error


IGNORED = 255
# The modes of one channel; I;16 is a PNG of 16 bits.
_MODES = ("1", "L", "P", "I", "I;16")


@dataclass(frozen=True)
class MaskedImages:
    """Images and masks; what pre-processing does to an image's frame it does to the mask too, nearest pixel."""

    root: Path
    masks: Path
    classes: int
    height: int
    width: int
    preprocess: Preprocess
    values: tuple[int, ...] | None = None
    kind: str = "masked"
    expected: str = "a folder with at least two image files, and one with a mask (.png) for each"

    def validation(self) -> Sequence[Path]:
        return images_in(self.root)

    def training(self, count: int) -> Sequence[Path]:
        return ()

    def check_masks(self) -> None:
        """Raise SubjectError where the folder of masks, or the mask of a picture, is missing."""
        if not self.masks.is_dir():
            raise SubjectError(f"{lack_of('folder of masks', self.masks)}; expected {self.expected}")
        for path in self.validation():
            self._mask_of(path)

    def labels(self) -> Mapping[str, bytes]:
        # What is done to a mask determines the truth as its bytes do.
        geometry = f"{self.height} x {self.width}, {self.values}, {self.preprocess.to_json()}".encode()
        return {"geometry": geometry, **{path.name: read_regular(self._mask_of(path)) for path in self.validation()}}

    def truth(self, pictures: Sequence[Path]) -> Truth:
        return Truth("mask", (self.height, self.width), np.uint8, (self._mask(path) for path in pictures))

    @cached_property
    def _named(self) -> Mapping[str, Path]:
        return {path.stem: path for path in images_in(self.masks)}

    def _mask_of(self, picture: Path) -> Path:
        mask = self._named.get(picture.stem)
        if mask is None:
            raise SubjectError(
                f"there is no mask for {picture.name} in {self.masks}; expected {picture.stem}.png. Add it, or take "
                "the image out"
            )
        return mask

    def _mask(self, picture: Path) -> NDArray[np.uint8]:
        path = self._mask_of(picture)
        numbers = self._numbers(path)
        # As a tier decodes it: a mask belongs to the picture that the EXIF orientation has turned upright.
        upright = decode(read_regular(picture), "gray")
        if upright.size != numbers.size:
            raise SubjectError(
                f"{path} has {numbers.width} x {numbers.height} pixels and its image {upright.width} x "
                f"{upright.height} (upright); allowed: the same size"
            )
        framed = frame(numbers, self.preprocess, Image.Resampling.NEAREST, IGNORED)
        return np.asarray(framed.resize((self.width, self.height), Image.Resampling.NEAREST))

    def _numbers(self, path: Path) -> Image.Image:
        """Return the mask as class numbers, one byte per pixel."""
        try:
            require_regular(path)
            with Image.open(path) as image:
                if image.mode not in _MODES:
                    raise SubjectError(
                        f"{path} is a {image.mode} image; allowed: one channel with class numbers from 0 to "
                        f"{self.classes - 1} (255 does not count). Save the numbers, not their colours"
                    )
                levels = np.asarray(image).astype(np.int64)
        except (OSError, SyntaxError, ValueError) as error:
            raise SubjectError(f"{path} is not a readable mask: {error}; expected {self.expected}") from error
        return Image.fromarray(self._classes(levels, path).astype(np.uint8))

    def _classes(self, levels: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
        present = np.unique(levels).tolist()
        allowed = list(self.values or range(self.classes))
        wrong = [level for level in present if level not in allowed and level != IGNORED]
        # Only 0 and 255: two classes drawn in black and white, of which the white one would not count.
        if wrong or (self.values is None and present == [0, IGNORED]):
            raise SubjectError(
                f"{path} holds the values {', '.join(map(str, present[:8]))}; allowed: {allowed[0]} to {allowed[-1]}, "
                "and 255 for pixels that do not count. Where gray levels stand for classes, declare them in their "
                "order: "
                "mask_values: [0, 255]"
            )
        if self.values is None:
            return levels
        numbers = np.full(levels.shape, IGNORED, np.int64)
        for number, level in enumerate(self.values):
            numbers[levels == level] = number
        return numbers


def check_picture(path: Path) -> None:
    """Raise SubjectError if a tier could not decode this file."""
    try:
        decode(read_regular(path), "gray")
    except TierError as error:
        raise SubjectError(f"{path}: {error}. Repair the file, or take it out") from error
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror}; allowed: files this user may read") from error
