"""ImageNet's validation folder (Russakovsky et al. 2015): one folder per class, named by its WordNet id.

    DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG      (or the class folders directly in DIR)
    DIR/train/n01440764/n01440764_10026.JPEG            (optional; calibration)

The class index is the position of the folder in sorted order, as torchvision and the published weights have it. The
flat layout of the original archive is not read: its labels are numbers of the development kit, in another order.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from runner.errors import SubjectError
from runner.subjects.folders import folders_in, images_in
from runner.subjects.items import Truth

CLASSES = 1000
# A noun's offset in WordNet.
_WORDNET = re.compile(r"n\d{8}")
_SEED = 20261129


@dataclass(frozen=True)
class ImageNet:
    """The layout in a folder; `classes` is how many class folders there must be."""

    root: Path
    classes: int = CLASSES
    kind: str = "imagenet"

    @property
    def expected(self) -> str:
        return f"{self.classes} class folders such as val/n01440764 with .JPEG files (ImageNet's validation set)"

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        """The class folders in the order of the class index."""
        # Any other folder must not shift the class indices.
        folders = tuple(path for path in folders_in(self._validation_root) if _WORDNET.fullmatch(path.name))
        if len(folders) != self.classes:
            raise SubjectError(
                f"{self._validation_root} has {len(folders)} class folders; expected {self.expected}. "
                "A class's index is its folder's position, so all must be there, empty ones included"
            )
        return folders

    @property
    def _validation_root(self) -> Path:
        return self.root / "val" if (self.root / "val").is_dir() else self.root

    def validation(self) -> Sequence[Path]:
        return [path for folder in self._folders for path in images_in(folder)]

    def training(self, count: int) -> Sequence[Path]:
        """Return one picture of each class in turn, in a seeded order: a million files need not be listed."""
        folders = [path for path in folders_in(self.root / "train") if _WORDNET.fullmatch(path.name)]
        random.Random(_SEED).shuffle(folders)
        # At most `count` pictures are taken, so no more are needed of a class, and no more classes.
        turns = zip_longest(*(images_in(folder)[:count] for folder in folders[:count]))
        return [path for path in chain.from_iterable(turns) if path is not None][:count]

    def labels(self) -> Mapping[str, bytes]:
        """Return the names of all folders: with the pictures' names they determine every label."""
        return {"classes": "\n".join(folder.name for folder in self._folders).encode()}

    def truth(self, pictures: Sequence[Path]) -> Truth:
        index = {folder.name: number for number, folder in enumerate(self._folders)}
        values = (np.asarray(index[path.parent.name], np.int64) for path in pictures)
        return Truth("label", (), np.int64, values)
