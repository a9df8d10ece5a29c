"""Small forms for long lists: lists of ids by their hash, booleans as packed bits in Base64."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

import numpy as np


def ids_name(ids: Sequence[str]) -> str:
    """What a list of ids is called in a document: the start of its hash, so that equal lists are said once."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]


def pack_bits(values: Sequence[bool]) -> str:
    """Base64 of the bits, first value first, most significant bit first, the last byte filled with zeros.

    Examples
    --------
    >>> pack_bits([True, False, True])
    'oA=='
    """
    return base64.b64encode(np.packbits(np.array(values, dtype=np.bool_)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> list[bool]:
    """The first `count` bits; raises ValueError when there are fewer, or more than fill the last byte.

    Examples
    --------
    >>> unpack_bits('oA==', 3)
    [True, False, True]
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not Base64 ({error})") from error
    if packed.size != -(-count // 8):
        raise ValueError(f"holds {packed.size} bytes where {count} items make {-(-count // 8)}")
    return [bool(bit) for bit in np.unpackbits(packed, count=count)] if count else []
