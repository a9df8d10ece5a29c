"""Cityscapes with fine annotations (Cordts et al. 2016), as its two archives unpack.

    DIR/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    DIR/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png
    DIR/leftImg8bit/train/...                                              (optional; calibration)

Of the 34 label ids 19 are evaluated; they become the train ids 0 to 18, all others 255, which does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.regular_files import read_regular, require_regular
from runner.errors import SubjectError
from runner.subjects.folders import choose, folders_in, images_in
from runner.subjects.items import Truth

CLASSES = 19
IGNORED = 255
# The label ids of road, sidewalk, building, ... bicycle, in the order of their train ids.
EVALUATED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


@dataclass(frozen=True)
class Cityscapes:
    """The layout in a folder; masks are scaled to the label map's `height` and `width`, nearest pixel."""

    root: Path
    height: int
    width: int
    kind: str = "cityscapes"
    expected: str = "leftImg8bit/val/CITY/*_leftImg8bit.png and gtFine/val/CITY/*_gtFine_labelIds.png"

    def validation(self) -> Sequence[Path]:
        return self._pictures("val")

    def training(self, count: int) -> Sequence[Path]:
        return choose(self._pictures("train"), count)

    def labels(self) -> Mapping[str, bytes]:
        contents = {}
        for picture in self.validation():
            path = self._label_of(picture)
            contents[path.name] = _read(path, self.expected)
        return contents

    def truth(self, pictures: Sequence[Path]) -> Truth:
        masks = (self._mask(self._label_of(picture)) for picture in pictures)
        return Truth("mask", (self.height, self.width), np.uint8, masks)

    def _pictures(self, part: str) -> list[Path]:
        cities = folders_in(self.root / "leftImg8bit" / part)
        return [path for city in cities for path in images_in(city) if path.name.endswith(_IMAGE)]

    def _label_of(self, picture: Path) -> Path:
        name = picture.name.removesuffix(_IMAGE) + _LABEL
        return self.root / "gtFine" / picture.parent.parent.name / picture.parent.name / name

    def _mask(self, path: Path) -> NDArray[np.uint8]:
        try:
            # Another format may be lossy, and its numbers no label ids.
            require_regular(path)
            with Image.open(path, formats=("PNG",)) as image:
                # P as well: the bytes are the ids, whatever colours a palette gives them.
                if image.mode not in ("L", "P"):
                    raise SubjectError(f"{path} is a {image.mode} image; label ids are one byte a pixel")
                ids = np.asarray(image.resize((self.width, self.height), Image.Resampling.NEAREST))
        # Pillow raises SyntaxError for a damaged PNG.
        except (OSError, SyntaxError) as error:
            raise SubjectError(f"{path} is not a readable label image: {error}; expected {self.expected}") from error
        mask: NDArray[np.uint8] = _train_ids()[ids]
        return mask


def _train_ids() -> NDArray[np.uint8]:
    table = np.full(256, IGNORED, np.uint8)
    table[list(EVALUATED_IDS)] = np.arange(CLASSES)
    return table


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SubjectError(f"the label image {path} cannot be read: {error.strerror}; expected {expected}") from error
