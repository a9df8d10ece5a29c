"""Canvases: grayscale scenes composed from Fashion-MNIST garments, with the exact class of every pixel.

Everything is deterministic and integer: ``numpy.random.RandomState`` because NumPy froze its streams for good
(``Generator`` may change them between releases, NEP 19), and fixed-point resizing because a validation set whose
hash is pinned must not depend on an imaging library's version.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

SIZE = 64
CLASSES = 11  # 0 is the background, 1 + c the garment class c
MOST_GARMENTS = 4
TRAINING_CANVASES, TEST_CANVASES = 16_000, 1_000
VISIBLE = 16  # a garment's pixel belongs to the garment from this intensity on; below it the scan was empty


@dataclass(frozen=True)
class Canvas:
    """A scene and its labels, both [height, width]."""

    image: Bytes
    mask: Bytes


def compose_canvas(garments: Bytes, labels: NDArray[np.int64], random: RandomState, size: int = SIZE) -> Canvas:
    """Place one to four garments [n, h, w] in different quarters of a textured canvas; they hardly overlap."""
    if not 1 <= len(garments) <= MOST_GARMENTS:
        raise ValueError(f"a canvas takes 1 to {MOST_GARMENTS} garments, got {len(garments)}")
    image, mask = texture(random, size, size), np.zeros((size, size), np.uint8)
    quarters = random.permutation(MOST_GARMENTS)
    # Four quarters, and as many of them as there are garments.
    for garment, label, quarter in zip(garments, labels, quarters, strict=False):
        # Whole thousandths of the canvas: floats might round differently on another machine.
        side = size * random.randint(400, 525) // 1000
        shift = size * random.randint(-60, 61, 2) // 1000
        row = _start(int(quarter) // 2, size, side, int(shift[0]))
        column = _start(int(quarter) % 2, size, side, int(shift[1]))
        scaled = resize(garment[:, ::-1] if random.randint(2) else garment, side, side)
        window = slice(row, row + side), slice(column, column + side)
        inside = scaled >= VISIBLE
        image[window][inside] = scaled[inside]
        mask[window][inside] = int(label) + 1
    return Canvas(image, mask)


def compose_canvases(
    garments: Bytes, labels: NDArray[np.int64], *, count: int, seed: int, size: int = SIZE
) -> Iterator[Canvas]:
    """Compose `count` canvases of garments drawn with replacement; one seed is one endless sequence."""
    random = RandomState(seed)
    for _ in range(count):
        chosen = random.randint(0, len(garments), random.randint(1, MOST_GARMENTS + 1))
        yield compose_canvas(garments[chosen], labels[chosen], random, size)


def texture(random: RandomState, height: int, width: int) -> Bytes:
    """Return a mild background: a smooth random field with a little grain."""
    level = random.randint(16, 112)
    field = resize(random.randint(0, 41, (5, 5)).astype(np.uint8), height, width)
    grain = random.randint(0, 9, (SIZE, SIZE))
    tiled = np.tile(grain, (-(-height // SIZE), -(-width // SIZE)))[:height, :width]
    return (level + field + tiled).astype(np.uint8)


def resize(image: Bytes, height: int, width: int) -> Bytes:
    """Return the image resized bilinearly in 8-bit fixed point, pixel centres aligned."""
    rows, columns = _taps(image.shape[0], height), _taps(image.shape[1], width)
    # 8 bits of intensity and twice 8 of weight fit into 32.
    wide = image.astype(np.int32)
    wide = wide[rows.low] * (256 - rows.weight)[:, None] + wide[rows.high] * rows.weight[:, None]
    wide = wide[:, columns.low] * (256 - columns.weight) + wide[:, columns.high] * columns.weight
    # Half of the last bit that remains, so that the shift rounds.
    return ((wide + (1 << 15)) >> 16).astype(np.uint8)


@dataclass(frozen=True)
class _Taps:
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.int32]


def _taps(source: int, target: int) -> _Taps:
    # (2 i + 1) source / (2 target) - 1/2, in units of 1/256: the centres of pixels are aligned.
    centre = (2 * np.arange(target, dtype=np.int64) + 1) * source * 128 // target - 128
    centre = np.clip(centre, 0, (source - 1) * 256)
    low = centre >> 8
    return _Taps(low, np.minimum(low + 1, source - 1), (centre & 255).astype(np.int32))


def _start(half: int, size: int, side: int, shift: int) -> int:
    middle = size // 4 + half * (size // 2)
    return min(max(middle + shift - side // 2, 0), size - side)


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
    # The encoder decides the bytes, and it comes with Pillow.
    return f"pictures {VERSION}, quality {QUALITY}, Pillow {PIL.__version__}"


def fashion_pictures(garments: Bytes, indices: range = range(POOL)) -> Iterator[bytes]:
    """Compose RGB JPEGs of 0.05 to 1 megapixel, one garment in the middle of a textured background."""
    # A state for each index, so that any picture can be composed without those before it.
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
    # Rounding may step over either end by one.
    return min(max(value, low), high)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
