"""COCO 2017 (Lin et al. 2014), labelled with the 21 classes of Pascal VOC as torchvision's segmenters are.

    DIR/val2017/000000000139.jpg
    DIR/annotations/instances_val2017.json
    DIR/train2017/...                                  (optional; calibration)

The twenty categories that COCO shares with VOC become VOC's class numbers, background is 0, other categories are
background too. Pixels that two of these instances claim are 255, which does not count: torchvision's reference
training judges so, and its published mIoU of the COCO_WITH_VOC_LABELS_V1 weights is on these masks.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from catalog.regular_files import read_regular, require_regular
from runner.errors import SubjectError
from runner.subjects.folders import choose, images_in
from runner.subjects.items import Truth


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
CLASSES = 1 + len(VOC_CLASSES)


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
