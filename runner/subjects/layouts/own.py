"""A folder of images of one's own, with or without a file of labels.

The labels are a CSV without header: the file's name, the number of its class (from 0). Pictures without a line are
not used.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from runner.errors import SubjectError
from runner.subjects.folders import images_in
from runner.subjects.items import Truth


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
        if self.table is None:
            return {}
        try:
            rows = [row for row in csv.reader(_read(self.table).decode("utf-8-sig").splitlines()) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise SubjectError(f"{self.table} is not a CSV file in UTF-8: {error}") from error
        labelled: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            name, label = self._row(number, row)
            if labelled.setdefault(name, label) != label:
                raise SubjectError(
                    f"{self.table}, line {number}: {name} is class {label}, and was {labelled[name]} above; allowed: "
                    "one class for each file. Keep the right line"
                )
        return labelled

    def _check_names(self, pictures: set[str]) -> None:
        lost = [name for name in self._labels if name not in pictures]
        if lost:
            raise SubjectError(
                f"{self.table} labels {lost[0]!r}, which is not in {self.root} ({len(lost)} of {len(self._labels)} "
                "names are not); allowed: names of image files in that folder. Correct the names, or remove the lines"
            )

    def _row(self, number: int, row: Sequence[str]) -> tuple[str, int]:
        label = int(row[1]) if len(row) == 2 and row[1].strip().isdecimal() else -1
        if not 0 <= label < self.classes:
            raise SubjectError(
                f"{self.table}, line {number}: got {','.join(row)!r}; expected a file's name and a class number "
                f"from 0 to {self.classes - 1}, such as cat.jpg,3"
            )
        return row[0].strip(), label


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubjectError(
            f"the labels {path} cannot be read: {error.strerror}; expected a CSV file with lines such as cat.jpg,3"
        ) from error
