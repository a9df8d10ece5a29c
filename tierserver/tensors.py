"""The graph's inputs as one file: .npy arrays one after the other, in the order of the graph's inputs.

For models whose inputs are no images. Reading makes views of the bytes, so that neither a declared size nor pickled
content can do harm (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tierserver.errors import RequestError

_MOST_ARRAYS = 1024
_UNREADABLE = (ValueError, KeyError, TypeError, EOFError, OverflowError, SyntaxError, RecursionError, MemoryError)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_tensors(encoded: bytes | memoryview) -> list[NDArray[Any]]:
    """Every array of the file, in its order; raises RequestError for anything else."""
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
    """The file of these arrays."""
    stream = io.BytesIO()
    for array in arrays:
        npy.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _read(stream: io.BytesIO, encoded: bytes | memoryview) -> NDArray[Any]:
    shape, fortran, dtype = _HEADERS[npy.read_magic(stream)](stream)
    if dtype.hasobject or dtype.kind not in "biuf" or fortran or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype} {list(shape)}; served are numbers in C order")
    count = int(np.prod(shape, dtype=object))
    array = np.frombuffer(encoded, dtype, count, stream.tell()) if count else np.empty(0, dtype)
    stream.seek(array.nbytes, io.SEEK_CUR)
    return array.reshape(shape)
