"""COCO's segmentations as masks: polygons, and run lengths plain or packed into text.

Run lengths go down the columns, starting with the uncovered pixels. The packed form writes each count with five bits
a character from "0" on, least significant first, the sixth bit telling that more follow; from the fourth count on it
holds the difference to the count two places before.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def draw(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels an annotation covers; raises ValueError or TypeError where it is not one."""
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
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise ValueError(f"{character!r} does not belong into packed run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
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
        pen.polygon([float(each) for each in points], fill=1)
    return np.asarray(canvas)


def _runs(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    lengths = np.asarray(counts, np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths must be positive and add up to {height * width} pixels")
    covered = np.arange(len(lengths)) % 2 == 1
    return np.repeat(covered, lengths).reshape(width, height).T
