"""Latency inputs: the encoded pictures an app would send, composed from validation garments.

Each picture depends on its index alone, so any subset of the pool can be written without the rest. The ranges
below were fixed before anything was measured; the model cards state them.
"""

import io
import math
from collections.abc import Iterator

import numpy as np
import PIL
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image

from runner.subjects.embedded.images import MOST_GARMENTS, VISIBLE, Bytes, compose_canvas

VERSION = 1  # part of the inputs' fingerprint: raise it with any change to what is generated
POOL = 200
QUALITY = 85
PIXELS = (50_000, 1_000_000)
RATIOS = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16))
CANVAS_SIDES_PX = (64, 512)
_SEED = 20261126
_GRAIN = 128


def generator() -> str:
    """Name everything besides the garments that decides the pictures' bytes."""
    return f"pictures {VERSION}, quality {QUALITY}, Pillow {PIL.__version__}"


def fashion_pictures(garments: Bytes, indices: range = range(POOL)) -> Iterator[bytes]:
    """Compose RGB JPEGs of 0.05 to 1 megapixel, one garment in the middle of a textured background."""
    return (_fashion_picture(garments, RandomState([_SEED, index])) for index in indices)


def canvas_pictures(garments: Bytes, labels: NDArray[np.int64], indices: range = range(POOL)) -> Iterator[bytes]:
    """Compose square grayscale JPEGs of 64 to 512 pixels a side; the garments grow with the canvas."""
    return (_canvas_picture(garments, labels, RandomState([_SEED + 1, index])) for index in indices)


def _fashion_picture(garments: Bytes, random: RandomState) -> bytes:
    pixels = _log_uniform(random, *PIXELS)
    wide, high = RATIOS[random.randint(len(RATIOS))]
    width = math.isqrt(pixels * wide // high)
    height = pixels // width
    picture = Image.fromarray(_background(random, height, width))
    side = min(height, width) * random.randint(80, 100) // 100
    garment = Image.fromarray(garments[random.randint(len(garments))])
    shape = garment.resize((side, side), Image.Resampling.BILINEAR)
    tint = random.randint(176, 256, 3)
    bands = [shape.point([level * int(share) // 255 for level in range(256)]) for share in tint]
    corner = ((width - side) // 2, (height - side) // 2)
    picture.paste(Image.merge("RGB", bands), corner, shape.point([255 * (level >= VISIBLE) for level in range(256)]))
    return _jpeg(picture)


def _canvas_picture(garments: Bytes, labels: NDArray[np.int64], random: RandomState) -> bytes:
    size = _log_uniform(random, *CANVAS_SIDES_PX)
    chosen = random.randint(0, len(garments), random.randint(1, MOST_GARMENTS + 1))
    return _jpeg(Image.fromarray(compose_canvas(garments[chosen], labels[chosen], random, size).image))


def _background(random: RandomState, height: int, width: int) -> Bytes:
    field = (random.randint(0, 64, (6, 6, 3)) + random.randint(16, 96, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))
    grain = random.randint(0, 24, (_GRAIN, _GRAIN, 1)).astype(np.uint8)
    tiles = np.tile(grain, (-(-height // _GRAIN), -(-width // _GRAIN), 1))[:height, :width]
    return smooth + tiles


def _log_uniform(random: RandomState, low: int, high: int) -> int:
    value = round(math.exp(random.uniform(math.log(low), math.log(high))))
    return min(max(value, low), high)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
