"""From an encoded image to the graph's input. Pure, and safe on hostile bytes: pixels are capped before decoding."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tierserver.errors import RequestError, TooLarge
from tierserver.image_memory import check_before_load, check_before_open, check_before_resize, check_before_transpose
from tierserver.messages import Preprocess

MAX_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Our own cap, checked on the header, replaces Pillow's (which warns first and refuses only at 179 MP).
Image.MAX_IMAGE_PIXELS = None


def preprocess(encoded: bytes | memoryview, spec: Preprocess) -> NDArray[Any]:
    """Decode, resize and normalise one image into the array the graph takes, batch axis included."""
    picture = frame(decode(encoded, spec.color), spec, Image.Resampling.BILINEAR, spec.padding)
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    elif spec.color == "bgr":
        pixels = pixels[:, :, ::-1]
    if spec.layout == "nchw":
        pixels = pixels.transpose(2, 0, 1)
    if spec.dtype == "uint8":
        return np.ascontiguousarray(pixels)[np.newaxis]
    axes = (-1, 1, 1) if spec.layout == "nchw" else (1, 1, -1)
    mean = np.asarray(spec.mean, np.float32).reshape(axes)
    std = np.asarray(spec.std, np.float32).reshape(axes)
    result = np.empty((1, *pixels.shape), np.float32)
    np.multiply(pixels, np.float32(spec.scale), out=result[0])
    plane = (1, 2) if spec.layout == "nchw" else (0, 1)
    result[0] -= result[0].mean(axis=plane, keepdims=True) if spec.center else mean
    result[0] /= std
    return result if spec.dtype == "float32" else result.astype(spec.dtype)


def check(spec: Preprocess) -> None:
    """Refuse a pre-processing that cannot work, when it is loaded."""
    channels = 1 if spec.color == "gray" else 3
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (1, channels):
            raise RequestError(f"preprocess.{name}: got {len(values)} values; allowed: 1 or {channels} ({spec.color})")
    if 0.0 in spec.std or spec.height < 1 or spec.width < 1:
        raise RequestError("preprocess: std must not be 0, height and width must be at least 1")
    if not 0 <= spec.padding <= 255:
        raise RequestError(f"preprocess.padding: got {spec.padding}; allowed: a pixel's value, 0 to 255")
    if spec.shorter_side is None:
        return
    if spec.resize != "shorter_side_crop" or spec.shorter_side < max(spec.height, spec.width):
        raise RequestError(
            f"preprocess.shorter_side: got {spec.shorter_side} with resize {spec.resize}; it goes with "
            f"shorter_side_crop and must cover {spec.height} x {spec.width}"
        )


def decode(encoded: bytes | memoryview, color: str) -> Image.Image:
    """The first picture in an image file, upright, with one channel (gray) or three; refuses what is too large."""
    try:
        check_before_open(encoded)
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise TooLarge(f"the image has {image.width} x {image.height} pixels; allowed: {MAX_PIXELS}")
            mode = "L" if color == "gray" else "RGB"
            check_before_load(image, encoded, mode)
            image.load()
            check_before_transpose(image, encoded, mode)
            ImageOps.exif_transpose(image, in_place=True)
            return _convert(image, mode)
    except TooLarge:
        raise
    except MemoryError as error:
        raise TooLarge(f"the image ({len(encoded)} bytes) takes more memory than this tier has left") from error
    except Exception as error:  # decoders raise anything on damaged files
        reason = str(error).split(" <", 1)[0][:200]  # the rest would be the address of a buffer
        raise RequestError(
            f"not a decodable image ({len(encoded)} bytes): {reason}; allowed: {', '.join(_FORMATS)}"
        ) from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip at 255 where the high byte is meant
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "CMYK" and mode == "L":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def frame(image: Image.Image, spec: Preprocess, resampling: Image.Resampling, around: int) -> Image.Image:
    """Bring a picture, or the mask that belongs to it, to the graph's height and width; `around` fills the padding."""
    size = (spec.width, spec.height)
    check_before_resize(image, size)
    if image.size == size and spec.shorter_side is None:
        return image
    if spec.resize == "stretch":
        return image.resize(size, resampling)
    if spec.resize == "pad":
        return _pad(image, size, resampling, around)
    if spec.shorter_side is None:
        factor = max(spec.width / image.width, spec.height / image.height)
    else:
        factor = spec.shorter_side / min(image.size)
    width, height = spec.width / factor, spec.height / factor
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, resampling, box=box)


def _pad(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling, around: int) -> Image.Image:
    factor = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    framed = Image.new(image.mode, size, (around,) * len(image.getbands()))
    framed.paste(image.resize(inner, resampling), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return framed
