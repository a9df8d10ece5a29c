"""From an encoded image to the graph's input: pure, and safe on hostile bytes.

Pixels are capped before decoding, and so is the memory that decoding takes, estimated from the first bytes and the
header. The estimates are bytes per pixel at the peak, as Pillow and the libraries under it allocate them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tierserver.errors import RequestError, TooLarge
from tierserver.limits import MEMORY
from tierserver.messages import Preprocess

MAX_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Our own cap, checked on the header, replaces Pillow's (which warns first and refuses only at 179 MP).
Image.MAX_IMAGE_PIXELS = None

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # everything else: 4
_ROW_BYTES = 36  # of up to three pictures: a row's address, and that it is whole words
_WEBP_BYTES = 16  # two canvases, made when the file is opened, the decoder's own picture, and the frame as bytes
_TIFF_BYTES = 8  # a strip or a tile, up to the whole picture, as it is in the file
_PPM_BYTES = 8  # the samples as a bytearray and as bytes
_NUMBER_BYTES = 48  # an element of a tag, as a Python number in a tuple
_STRIP_BYTES = 600  # a strip or tile: its offset, its length, and what Pillow plans for it
_TIFF_PLACES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_TIFF_TILE = (322, 323)
# A progressive JPEG has about ten scans; each takes the decoder once over the whole picture, however few bytes it has.
_MAX_SCANS = 100
_SCAN = b"\xff\xda"
_JPEG_COMPRESSIONS = ("jpeg", "tiff_jpeg")  # what Pillow calls them in a TIFF
_RESIZE_TABLE_BYTES = 32  # per row and column of the input: the filter's weights, as doubles and as integers


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
    """Refuse, when a part is loaded, a pre-processing that cannot work."""
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
    """Return an image file's first picture, upright, with one channel (gray) or three; refuse one that is too large."""
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


# -- what decoding takes of memory -----------------------------------------------------------------------------


def check_before_open(encoded: bytes | memoryview) -> None:
    """Refuse an image file that takes too much memory merely to open."""
    head = bytes(encoded[:32])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        width, height = _webp_size(head)
        _require(width * height * _WEBP_BYTES, width, height)
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        MEMORY.require(_tiff_bytes(encoded, head), "reading the directory and the tiles of this TIFF")


def check_before_load(image: Image.Image, encoded: bytes | memoryview, mode: str) -> None:
    """Refuse a picture whose pixels, decoded and converted to `mode`, take too much memory or minutes to decode."""
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in _JPEG_COMPRESSIONS:
        # The marker cannot occur in compressed data, where a zero follows every byte of 0xff.
        scans = bytes(encoded).count(_SCAN)
        if scans > _MAX_SCANS:
            raise TooLarge(f"the JPEG has {scans} scans; allowed: {_MAX_SCANS}")
    pixel_bytes = _stored(image.mode) + max(_decoder_bytes(image, encoded), _conversion_bytes(image, mode))
    _require(image.height * (image.width * pixel_bytes + _ROW_BYTES), image.width, image.height)


def check_before_transpose(image: Image.Image, encoded: bytes | memoryview, mode: str) -> None:
    """Refuse a picture that takes too much to turn upright and convert, and EXIF data that are no camera's."""
    profile = image.info.get("Raw profile type exif", "")
    exif_bytes = len(image.info.get("exif", b"")) + len(profile)
    MEMORY.require(exif_bytes * _NUMBER_BYTES, "the EXIF data of this image")
    turned = _stored(image.mode) if exif_bytes or image.format == "TIFF" else 0
    pixel_bytes = max(turned, _conversion_bytes(image, mode))
    _require(image.height * (image.width * pixel_bytes + _ROW_BYTES), image.width, image.height)


def check_before_resize(image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a side so long that the picture between the two passes of a resize takes too much."""
    between = image.height * (size[0] * _stored(image.mode) + _ROW_BYTES)
    tables = (image.width + image.height) * _RESIZE_TABLE_BYTES
    _require(between + tables + size[0] * size[1] * 4, image.width, image.height)


def _require(count: int, width: int, height: int) -> None:
    MEMORY.require(count, f"an image of {width} x {height} pixels")


def _stored(mode: str) -> int:
    return _STORED.get(mode, 4)


def _decoder_bytes(image: Image.Image, encoded: bytes | memoryview) -> int:
    """Return what a decoder holds per pixel beside the picture."""
    if image.format == "JPEG":
        return 2 * len(image.getbands()) if _has_many_scans(encoded) else 0
    return {"WEBP": _WEBP_BYTES, "TIFF": _TIFF_BYTES, "PPM": _PPM_BYTES}.get(image.format or "", 1)


def _conversion_bytes(image: Image.Image, mode: str) -> int:
    """Return what `_convert` holds per pixel beside the decoded picture, at most."""
    if image.mode.startswith(("I", "F")):
        return 4 * _stored(image.mode) + 6
    if image.mode == mode:
        return 0
    return _stored(mode) + (4 if image.mode in ("P", "CMYK") else 0)  # these go by way of a third mode


def _has_many_scans(encoded: bytes | memoryview) -> bool:
    """Return whether decoding keeps all coefficients of a JPEG: progressive, or with one scan per component."""
    for marker, start, size in _jpeg_segments(encoded):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = encoded[start + 7] if size > 7 else 0
            if marker not in (0xC0, 0xC1):
                return True
        elif marker == 0xDA:
            return size < 3 or encoded[start + 2] < components
    return True


def _jpeg_segments(encoded: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield marker, position after the marker and size of each segment, up to the first scan."""
    place = 2
    while place + 4 <= len(encoded):
        if encoded[place] != 0xFF:
            place += 1  # Pillow looks for the next marker as well
            continue
        marker = encoded[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            place += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(encoded[place + 2 : place + 4], "big")
        yield marker, place + 2, min(size, len(encoded) - place - 2)
        if marker == 0xDA:
            return
        place += 2 + size


def _webp_size(head: bytes) -> tuple[int, int]:
    """Return width and height of the canvas (https://developers.google.com/speed/webp/docs/riff_container)."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _tiff_bytes(encoded: bytes | memoryview, head: bytes) -> int:
    """Return the bytes of the first directory's numbers and of one tile, which may be larger than the picture."""
    order, is_big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    entry, count, first = (
        (f"{order}HHQ", f"{order}Q", head[8:16]) if is_big else (f"{order}HHI", f"{order}H", head[4:8])
    )
    step, value = (20, f"{order}Q") if is_big else (12, f"{order}I")
    total, sides = 0, [0, 0]
    try:
        (place,) = struct.unpack(value, first)
        (entries,) = struct.unpack_from(count, encoded, place)
        place += struct.calcsize(count)
        for _ in range(min(entries, 4096)):
            tag, kind, length = struct.unpack_from(entry, encoded, place)
            if kind not in (1, 2, 7):  # bytes and text stay what they are
                total += min(length, len(encoded)) * (_STRIP_BYTES if tag in _TIFF_PLACES else _NUMBER_BYTES)
            if tag in _TIFF_TILE:
                small = f"{order}H" if kind == 3 else value
                (sides[_TIFF_TILE.index(tag)],) = struct.unpack_from(
                    small, encoded, place + step - struct.calcsize(value)
                )
            place += step
    except struct.error as error:
        raise RequestError("this TIFF has no whole directory") from error
    return total + sides[0] * sides[1] * _TIFF_BYTES
