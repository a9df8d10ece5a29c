"""How tensors are written into a body: `raw`, `base64-json` (as the study sent them) and `shuffle-zlib` (lossless).

`shuffle-zlib` puts the first bytes of all numbers first, then all second bytes and so on, which brings the sign and
exponent bytes of floats together, and deflates that with run lengths and Huffman codes only: on activations after a
ReLU about half the bytes, at a third of the time that a search for matches takes (which finds none there). zlib's
checksum is verified on the way out. What does not shrink by a tenth is sent raw.
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tierserver.errors import RequestError
from tierserver.messages import Codec

CODECS: tuple[Codec, ...] = get_args(Codec)
_LARGEST_RATIO = 0.9
_TRIAL_BYTES = 65536
_SMALLEST_BYTES = 512


class CodecError(ValueError):
    """Bytes that this codec has not written."""


def compress(array: NDArray[Any]) -> bytes | None:
    """Return the array's bytes, shuffled and deflated; None if that does not save enough."""
    if array.nbytes < _SMALLEST_BYTES:
        return None
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    # A sample from the middle spares what cannot be compressed the whole deflate; short arrays are tried whole.
    if array.nbytes > 2 * _TRIAL_BYTES:
        middle = len(octets) // 2
        trial = octets[middle : middle + _TRIAL_BYTES // array.itemsize]
        if len(_deflated(trial)) > _LARGEST_RATIO * trial.nbytes:
            return None
    packed = _deflated(octets)
    return packed if len(packed) <= _LARGEST_RATIO * array.nbytes else None


def decompress(packed: memoryview, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Return the `count` numbers of a compressed array; never allocate more bytes than they take."""
    expected = count * dtype.itemsize
    inflater = zlib.decompressobj()
    try:
        # One byte more than fits is enough to see that there is too much, without inflating a bomb.
        plain = inflater.decompress(packed, expected + 1)
    except zlib.error as error:
        raise CodecError(f"not shuffle-zlib data: {error}") from error
    if len(plain) != expected or not inflater.eof or inflater.unused_data:
        raise CodecError(f"shuffle-zlib data does not hold exactly {expected} bytes")
    octets = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, count).T
    return np.ascontiguousarray(octets).reshape(-1).view(dtype)


def to_base64(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode("ascii")


def from_base64(text: object) -> memoryview:
    """Decode a strictly written Base64 text."""
    if not isinstance(text, str):
        raise CodecError(f"Base64 is a string, got {type(text).__name__}")
    try:
        return memoryview(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise CodecError(f"not Base64: {error}") from error


def _deflated(octets: NDArray[np.uint8]) -> bytes:
    deflater = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return deflater.compress(np.ascontiguousarray(octets.T).data) + deflater.flush()


_MOST_ARRAYS = 1024
# numpy reads a header with `ast.literal_eval`, which also raises SyntaxError, RecursionError and MemoryError.
_UNREADABLE = (ValueError, KeyError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, MemoryError)
# Version 3.0 of the format differs only in the encoding of field names, and records are refused anyway.
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_tensors(encoded: bytes | memoryview) -> list[NDArray[Any]]:
    """Read every array of the file, in order; raise RequestError for any other content."""
    stream = io.BytesIO(encoded)
    arrays: list[NDArray[Any]] = []
    try:
        while stream.tell() < len(encoded):
            if len(arrays) == _MOST_ARRAYS:
                raise ValueError(f"more than {_MOST_ARRAYS} arrays")
            arrays.append(_read(stream, encoded))
    except _UNREADABLE as error:
        raise RequestError(f"not a file of tensors: {str(error)[:200]}; it holds .npy arrays one by one") from error
    return arrays


def write_tensors(arrays: Sequence[NDArray[Any]]) -> bytes:
    """Write these arrays as one file."""
    stream = io.BytesIO()
    for array in arrays:
        # Not `ascontiguousarray`, which makes an array of one number out of a number without axes.
        npy.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _read(stream: io.BytesIO, encoded: bytes | memoryview) -> NDArray[Any]:
    shape, fortran, dtype = _HEADERS[npy.read_magic(stream)](stream)
    if dtype.hasobject or dtype.kind not in "biuf" or fortran or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype} {list(shape)}; served are numbers in C order")
    # Python's integers: a product of hostile sizes would wrap around in int64.
    count = int(np.prod(shape, dtype=object))
    array = np.frombuffer(encoded, dtype, count, stream.tell()) if count else np.empty(0, dtype)
    stream.seek(array.nbytes, io.SEEK_CUR)
    return array.reshape(shape)
