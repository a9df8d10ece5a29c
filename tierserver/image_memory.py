"""What decoding an image takes of memory, from what its first bytes and its header say; refused before it is done.

The figures are bytes per pixel at the peak, as Pillow and the libraries under it allocate them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image

from tierserver.errors import RequestError
from tierserver.limits import MEMORY

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # everything else: 4
_ROW_BYTES = 36  # of up to three pictures: a row's address, and that it is whole words
_WEBP_BYTES = 16  # two canvases, made when the file is opened, the decoder's own picture, and the frame as bytes
_TIFF_BYTES = 8  # a strip or a tile, up to the whole picture, as it is in the file
_PPM_BYTES = 8  # the samples as a bytearray and as bytes
_NUMBER_BYTES = 48  # an element of a tag, as a Python number in a tuple
_STRIP_BYTES = 600  # a strip or tile: its offset, its length, and what Pillow plans for it
_TIFF_PLACES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_TIFF_TILE = (322, 323)
_RESIZE_TABLE_BYTES = 32  # per row and column of the input: the filter's weights, as doubles and as integers


def check_before_open(encoded: bytes | memoryview) -> None:
    """Refuse what already opening an image file would take too much for."""
    head = bytes(encoded[:32])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        width, height = _webp_size(head)
        _require(width * height * _WEBP_BYTES, width, height)
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        MEMORY.require(_tiff_bytes(encoded, head), "reading the directory and the tiles of this TIFF")


def check_before_load(image: Image.Image, encoded: bytes | memoryview, mode: str) -> None:
    """Refuse a picture whose pixels, decoded and converted to `mode`, take too much."""
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
    """Refuse what has a side so long that the picture between the two passes of a resize takes too much."""
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
    """Return what `imaging._convert` holds per pixel beside the decoded picture, at most."""
    if image.mode.startswith(("I", "F")):
        return 4 * _stored(image.mode) + 6
    if image.mode == mode:
        return 0
    return _stored(mode) + (4 if image.mode in ("P", "CMYK") else 0)  # these go by way of a third mode


def _has_many_scans(encoded: bytes | memoryview) -> bool:
    """Whether a JPEG's coefficients are all held until its last scan: progressive, or its components one by one."""
    for marker, start, size in _jpeg_segments(encoded):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = encoded[start + 7] if size > 7 else 0
            if marker not in (0xC0, 0xC1):
                return True
        elif marker == 0xDA:
            return size < 3 or encoded[start + 2] < components
    return True


def _jpeg_segments(encoded: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Marker, place after the marker and size of each segment, up to the first scan."""
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
    """Width and height of the canvas (https://developers.google.com/speed/webp/docs/riff_container)."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _tiff_bytes(encoded: bytes | memoryview, head: bytes) -> int:
    """What the first directory's numbers become, and one tile, whose size need not be that of the picture."""
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
