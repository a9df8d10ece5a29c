"""A user's own folder of images, with a file of labels, with masks, or without either.

The labels are a CSV of names and class numbers (`label_file`). Pictures without a line are not used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.regular_files import read_regular, require_regular
from runner.errors import SubjectError
from runner.subjects.folders import images_in
from runner.subjects.items import Truth
from runner.subjects.layouts.label_file import read_label_file
from tierserver.errors import TierError
from tierserver.imaging import decode, frame
from tierserver.messages import Preprocess


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
            raise SubjectError(f"there is no folder of masks {self.masks}; expected {self.expected}")
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
