"""A folder of images of one's own, and a folder of masks with the same names.

A mask is a picture with one channel, of its image's size, whose values are class numbers; 255 does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.folders import images_in
from runner.subjects.items import Truth
from tierserver.errors import TierError
from tierserver.imaging import decode, frame
from tierserver.messages import Preprocess

IGNORED = 255
_MODES = ("1", "L", "P", "I", "I;16")


@dataclass(frozen=True)
class Masked:
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

    def labels(self) -> Mapping[str, bytes]:
        geometry = f"{self.height} x {self.width}, {self.values}, {self.preprocess.to_json()}".encode()
        return {"geometry": geometry, **{path.name: self._mask_of(path).read_bytes() for path in self.validation()}}

    def truth(self, pictures: Sequence[Path]) -> Truth:
        return Truth("mask", (self.height, self.width), np.uint8, (self._mask(path) for path in pictures))

    @cached_property
    def _named(self) -> Mapping[str, Path]:
        return {path.stem: path for path in images_in(self.masks)}

    def _mask_of(self, picture: Path) -> Path:
        found = self._named.get(picture.stem)
        if found is None:
            raise SubjectError(
                f"there is no mask for {picture.name} in {self.masks}; expected {picture.stem}.png. Add it, or take "
                "the image out"
            )
        return found

    def _mask(self, picture: Path) -> NDArray[np.uint8]:
        path = self._mask_of(picture)
        numbers = self._numbers(path)
        upright = decode(picture.read_bytes(), "gray")
        if upright.size != numbers.size:
            raise SubjectError(
                f"{path} has {numbers.width} x {numbers.height} pixels and its image {upright.width} x "
                f"{upright.height} (upright); allowed: the same size"
            )
        framed = frame(numbers, self.preprocess, Image.Resampling.NEAREST, IGNORED)
        return np.asarray(framed.resize((self.width, self.height), Image.Resampling.NEAREST))

    def _numbers(self, path: Path) -> Image.Image:
        """The mask as class numbers, one byte a pixel."""
        try:
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
        found = np.unique(levels).tolist()
        allowed = list(self.values or range(self.classes))
        wrong = [level for level in found if level not in allowed and level != IGNORED]
        if wrong or (self.values is None and found == [0, IGNORED]):
            raise SubjectError(
                f"{path} holds the values {', '.join(map(str, found[:8]))}; allowed: {allowed[0]} to {allowed[-1]}, "
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
    """Raises SubjectError where a tier could not decode this file."""
    try:
        decode(path.read_bytes(), "gray")
    except TierError as error:
        raise SubjectError(f"{path}: {error}. Repair the file, or take it out") from error
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror}; allowed: files this user may read") from error
