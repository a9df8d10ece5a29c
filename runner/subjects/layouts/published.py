"""The folders of published data sets: COCO, ImageNet and Cityscapes, as their archives unpack.

COCO 2017 (Lin et al. 2014), labelled with the 21 classes of Pascal VOC as torchvision's segmenters are.

    DIR/val2017/000000000139.jpg
    DIR/annotations/instances_val2017.json
    DIR/train2017/...                                  (optional; calibration)

The twenty categories that COCO shares with VOC become VOC's class numbers, background is 0, other categories are
background too. Pixels that two of these instances claim are 255, which does not count: torchvision's reference
training judges so, and its published mIoU of the COCO_WITH_VOC_LABELS_V1 weights is on these masks.

ImageNet's validation folder (Russakovsky et al. 2015): one folder per class, named by its WordNet id.

    DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG      (or the class folders directly in DIR)
    DIR/train/n01440764/n01440764_10026.JPEG            (optional; calibration)

The class index is the position of the folder in sorted order, as torchvision and the published weights have it. The
flat layout of the original archive is not read: its labels are numbers of the development kit, in another order.

Cityscapes with fine annotations (Cordts et al. 2016), as its two archives unpack.

    DIR/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png
    DIR/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png
    DIR/leftImg8bit/train/...                                              (optional; calibration)

Of the 34 label ids 19 are evaluated; they become the train ids 0 to 18, all others 255, which does not count.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catalog.foreign import read_regular, require_regular
from runner.errors import SubjectError
from runner.subjects.dataset import Truth
from runner.subjects.folders import choose, folders_in, images_in


def draw(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels that an annotation covers; raise ValueError or TypeError for anything else."""
    if isinstance(segmentation, list):
        return _polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= set(segmentation):
        raise ValueError("a segmentation is a list of polygons, or has counts and size")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"run lengths are for {segmentation['size']}, the image is {[height, width]}")
    counts = segmentation["counts"]
    return _runs(unpack(counts) if isinstance(counts, str) else counts, height, width)


def unpack(text: str) -> list[int]:
    """Read packed run lengths."""
    counts: list[int] = []
    # As `rleFrString` of COCO's maskApi.c: a character from '0' on has five bits of value and one to go on.
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        # A count of pixels is shorter; a damaged text could make a number grow without end.
        if not 0 <= code < 64 or shift > 30:
            raise ValueError(f"{character!r} does not belong in packed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        # The value is signed: the highest value bit of its last character is the sign.
        if code & 16:
            value -= 1 << shift
        # From the fourth count on, what is packed is the difference to the last count but one.
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("packed run lengths end in the middle of a count")
    return counts


def _polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    for points in polygons:
        if len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon has at least three points of two numbers, got {len(points)} numbers")
        pen.polygon([float(point) for point in points], fill=1)
    return np.asarray(canvas)


def _runs(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    lengths = np.asarray(counts, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths must be positive and add up to {height * width} pixels")
    # Runs alternate, and the first is of pixels that are not covered.
    covered = np.arange(len(lengths)) % 2 == 1
    # Run lengths go down the columns, not along the rows.
    return np.repeat(covered, lengths).reshape(width, height).T


IGNORED = 255
# VOC's classes 1 to 20 by COCO's names for them.
VOC_CLASSES = (
    "airplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorcycle",
    "person",
    "potted plant",
    "sheep",
    "couch",
    "train",
    "tv",
)
COCO_CLASSES = 1 + len(VOC_CLASSES)


@dataclass(frozen=True)
class Instance:
    """One annotated object: its VOC class and its outline as COCO writes it."""

    label: int
    segmentation: Any


@dataclass(frozen=True)
class Coco:
    """The layout in a folder; masks are scaled to the label map's `height` and `width`, nearest pixel."""

    root: Path
    height: int
    width: int
    kind: str = "coco-voc"
    expected: str = "val2017/*.jpg and annotations/instances_val2017.json (COCO 2017)"

    @property
    def _annotations(self) -> Path:
        return self.root / "annotations" / "instances_val2017.json"

    def validation(self) -> Sequence[Path]:
        return images_in(self.root / "val2017")

    def training(self, count: int) -> Sequence[Path]:
        return choose(images_in(self.root / "train2017"), count)

    def labels(self) -> Mapping[str, bytes]:
        try:
            return {self._annotations.name: read_regular(self._annotations)}
        except OSError as error:
            raise SubjectError(
                f"{self._annotations} cannot be read: {error.strerror}; expected {self.expected}"
            ) from error

    def truth(self, pictures: Sequence[Path]) -> Truth:
        masks = self._masks(pictures, _instances(self._content()))
        return Truth("mask", (self.height, self.width), np.uint8, masks)

    def _content(self) -> Mapping[str, Any]:
        (raw,) = self.labels().values()
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise SubjectError(f"{self._annotations} is not JSON: {error}; expected {self.expected}") from error
        parts = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
            raise SubjectError(f"{self._annotations} lacks one of the lists {', '.join(parts)}; is it another file?")
        return content

    def _masks(
        self, pictures: Sequence[Path], instances: Mapping[str, Sequence[Instance]]
    ) -> Iterator[NDArray[np.uint8]]:
        for path in pictures:
            if path.name not in instances:
                raise SubjectError(f"{path.name} is not among the images of {self._annotations}; expected its own set")
            try:
                # Opened for its size alone; the outlines are in pixels of the original.
                require_regular(path)
                with Image.open(path) as image:
                    width, height = image.size
                mask = merge(instances[path.name], height, width)
            except (OSError, ValueError, TypeError) as error:
                raise SubjectError(f"{path.name}: cannot draw its annotations: {error}") from error
            scaled = Image.fromarray(mask).resize((self.width, self.height), Image.Resampling.NEAREST)
            yield np.asarray(scaled)


def merge(instances: Sequence[Instance], height: int, width: int) -> NDArray[np.uint8]:
    """Return one label per pixel: the class of its instance, 0 without one, 255 with several."""
    labels = np.zeros((height, width), np.uint8)
    # A byte would wrap where 256 instances claim one pixel.
    claims = np.zeros((height, width), np.uint16)
    for instance in instances:
        covered = draw(instance.segmentation, height, width)
        labels[covered] = instance.label
        claims += covered
    labels[claims > 1] = IGNORED
    return labels


def _instances(content: Mapping[str, Any]) -> Mapping[str, Sequence[Instance]]:
    """Return the instances of VOC's classes by image file name, with an empty list for an image without any."""
    try:
        voc = {name: number for number, name in enumerate(VOC_CLASSES, start=1)}
        numbers = {entry["id"]: voc[entry["name"]] for entry in content["categories"] if entry["name"] in voc}
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        instances: dict[str, list[Instance]] = {name: [] for name in files.values()}
        for entry in content["annotations"]:
            if entry["category_id"] in numbers and entry["image_id"] in files:
                instances[files[entry["image_id"]]].append(
                    Instance(numbers[entry["category_id"]], entry["segmentation"])
                )
    except (KeyError, TypeError) as error:
        raise SubjectError(f"the annotations do not have COCO's form: {error!r} in an entry") from error
    if len(set(numbers.values())) != len(VOC_CLASSES):
        missing = sorted(set(VOC_CLASSES) - {VOC_CLASSES[number - 1] for number in numbers.values()})
        raise SubjectError(f"the annotations lack the categories {', '.join(missing)}; expected COCO's 80")
    return instances


IMAGENET_CLASSES = 1000
# A noun's offset in WordNet.
_WORDNET = re.compile(r"n\d{8}")
_SEED = 20261129


@dataclass(frozen=True)
class ImageNet:
    """The layout in a folder; `classes` is how many class folders there must be."""

    root: Path
    classes: int = IMAGENET_CLASSES
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


CITYSCAPES_CLASSES = 19
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
    table[list(EVALUATED_IDS)] = np.arange(CITYSCAPES_CLASSES)
    return table


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SubjectError(f"the label image {path} cannot be read: {error.strerror}; expected {expected}") from error
