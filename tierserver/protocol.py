"""Bodies of the Open Inference Protocol v2 with the binary tensor extension: encoding and decoding, pure.

A tensor in another codec than `raw` names the codec in its parameter `tierwise_codec`; the request's parameter of that
name requests outputs in it. `base64-json`: `data` is a list of Base64 texts, one per BYTES element, or one that holds
all the numbers. `shuffle-zlib`: the binary data is compressed.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierserver import encoding
from tierserver.encoding import CodecError
from tierserver.errors import RequestError, TooLarge
from tierserver.limits import MEMORY
from tierserver.messages import Codec

HEADER_LENGTH = "inference-header-content-length"
# Binary tensor data is little-endian on every machine, as the extension prescribes.
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
# numpy's own limit before its version 2, which allows 64.
_MAX_RANK = 32
_MAX_JSON_VALUES = 2**20
_JSON_VALUE_BYTES = 200  # what one takes in memory, at most: an object with one key
_ELEMENT_BYTES = 256  # what an element of a BYTES tensor takes beside its bytes
_MAX_TENSORS = 1024
_MAX_NAME = 1024
_MAX_TENSOR_BYTES = 2**63 - 1  # numpy's sizes, even of tensors without elements
_WIDEST = max(dtype.itemsize for dtype in DATATYPES.values())
_NO_LIMIT = 2**31
_CODEC = "tierwise_codec"


@dataclass(frozen=True)
class Tensor:
    """A decoded input or output: an array, or for BYTES the elements as views into the body."""

    name: str
    array: NDArray[Any] | None
    elements: tuple[memoryview, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.elements)) if self.array is None else self.array.nbytes


@dataclass(frozen=True)
class InferRequest:
    """A client's request: its tensors, and the outputs to send, with whether each is binary (None: all of them)."""

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: Mapping[str, bool] | None
    binary: bool
    codec: Codec = "raw"


@dataclass(frozen=True)
class InferResponse:
    outputs: Mapping[str, NDArray[Any]]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Body:
    """An encoded body in pieces, so that no tensor is copied to be sent."""

    header_length: int | None
    pieces: tuple[bytes | memoryview, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(piece) for piece in self.pieces)


def datatype_of(dtype: np.dtype[Any]) -> str:
    return _NAMES[dtype.newbyteorder("<")]


def encode_image_request(encoded: bytes, how: Codec = "raw") -> Body:
    """Encode a request that sends one image as the BYTES input `image`; an image is compressed already."""
    tensor: dict[str, Any] = {"name": "image", "shape": [1], "datatype": "BYTES"}
    if how == "base64-json":
        tensor |= {"parameters": {_CODEC: how}, "data": [encoding.to_base64(encoded)]}
        return Body(None, (_request_head([tensor], how),))
    # In binary data each BYTES element follows its own length in 4 bytes.
    tensor["parameters"] = {"binary_data_size": len(encoded) + 4}
    head = _request_head([tensor], how)
    return Body(len(head), (head + struct.pack("<I", len(encoded)), encoded))


def encode_tensor_request(tensors: Mapping[str, NDArray[Any]], how: Codec = "raw") -> Body:
    """Encode a request that sends arrays."""
    described, pieces = _describe(tensors, None, how)
    head = _request_head(described, how)
    return Body(None if how == "base64-json" else len(head), (head, *pieces))


def _request_head(described: list[dict[str, Any]], how: Codec) -> bytes:
    """Return the JSON of a request for outputs in the same codec."""
    parameters: dict[str, Any] = {} if how == "base64-json" else {"binary_data_output": True}
    if how != "raw":
        parameters[_CODEC] = how
    return json.dumps({"inputs": described, "parameters": parameters}).encode()


def decode_request(
    body: memoryview, header_length: str | None, *, max_bytes: int = _NO_LIMIT, max_json_bytes: int = _NO_LIMIT
) -> InferRequest:
    """Decode a request in any codec; `max_bytes` limits the decompressed size of its tensors."""
    head, rest = _split(body, header_length)
    if len(head) > max_json_bytes:
        raise TooLarge(f"the JSON part has {len(head)} bytes; allowed: {max_json_bytes}, send tensors as binary data")
    try:
        return _request(read_object(head, "the request"), rest, max_bytes)
    except RecursionError as error:  # nested less deeply than JSON allows, but too deeply to print in a message
        raise RequestError("the request nests too deeply; expected: lists as deep as a tensor's shape") from error
    except MemoryError as error:
        raise TooLarge("the request takes more memory than this tier has left") from error


def _request(request: dict[str, Any], rest: memoryview, max_bytes: int) -> InferRequest:
    outputs, parameters = request.get("outputs"), _parameters(request, "the request")
    return InferRequest(
        id=_short(request["id"], "id") if isinstance(request.get("id"), str) else None,
        inputs=_tensors(request.get("inputs"), rest, "inputs", max_bytes),
        outputs=None if not outputs else _requested(outputs),
        binary=parameters.get("binary_data_output") is True,
        codec=_codec_of(parameters, "the request"),
    )


def encode_response(
    model: str,
    request: InferRequest,
    outputs: Mapping[str, NDArray[Any]],
    parameters: Callable[[], Mapping[str, str]],
) -> Body:
    """Encode the answer with the outputs that the request names, each as binary data or JSON as requested.

    `parameters` is called once the outputs are serialised, so that it can hold the time that took.
    """
    requested = request.outputs if request.outputs is not None else dict.fromkeys(outputs, False)
    if unknown := sorted(set(requested) - set(outputs)):
        raise RequestError(f"unknown outputs {unknown[:5]}; the model gives {sorted(outputs)}")
    binary = {name for name, flag in requested.items() if flag or request.binary}
    described, pieces = _describe({name: outputs[name] for name in requested}, binary, request.codec)
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    answer["parameters"] = dict(parameters())
    head = json.dumps(answer).encode()
    # An answer without binary data is plain JSON, which has no length of a head.
    return Body(len(head) if pieces else None, (head, *pieces))


def decode_response(body: memoryview, header_length: str | None) -> InferResponse:
    head, rest = _split(body, header_length)
    answer = read_object(head, "the response")
    tensors = _tensors(answer.get("outputs"), rest, "outputs", _NO_LIMIT)
    arrays = {tensor.name: tensor.array for tensor in tensors if tensor.array is not None}
    return InferResponse(outputs=arrays, parameters=_parameters(answer, "the response"))


# -- encoding ---------------------------------------------------------------------------------------------------


def _describe(
    tensors: Mapping[str, NDArray[Any]], binary: set[str] | None, how: Codec
) -> tuple[list[dict[str, Any]], list[bytes | memoryview]]:
    described: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    for name, array in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype)}
        MEMORY.require(
            _encoded_bytes(array, how, binary is None or name in binary), f"output {name!r} in this encoding"
        )
        if how == "base64-json":
            entry |= {"parameters": {_CODEC: how}, "data": [encoding.to_base64(np.ascontiguousarray(array).data)]}
        elif binary is None or name in binary:
            packed = encoding.compress(array) if how == "shuffle-zlib" else None
            piece = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if packed is None else packed
            entry["parameters"] = {"binary_data_size": len(piece)} | ({} if packed is None else {_CODEC: how})
            if len(piece):
                pieces.append(piece)
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise RequestError(f"output {name!r} holds NaN or infinity, which JSON cannot; ask for binary data")
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    return described, pieces


def _encoded_bytes(array: NDArray[Any], how: Codec, is_binary: bool) -> int:
    """Estimate the memory that an output takes beside itself while it is written."""
    if how == "base64-json":
        return 5 * array.nbytes
    if is_binary:
        return 3 * array.nbytes if how == "shuffle-zlib" else 0 if array.flags.c_contiguous else array.nbytes
    return array.size * (20 if array.itemsize == 1 else 90)  # as numbers in a list, and twice as text


# -- decoding ---------------------------------------------------------------------------------------------------


def _split(body: memoryview, header_length: str | None) -> tuple[memoryview, memoryview]:
    if header_length is None:
        return body, body[len(body) :]
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 18:
        raise RequestError(f"{HEADER_LENGTH}: got {header_length[:40]!r}, expected the JSON part's length in bytes")
    length = int(header_length)
    if length > len(body):
        raise RequestError(f"{HEADER_LENGTH} is {length}, but the body has only {len(body)} bytes")
    return body[:length], body[length:]


def read_object(head: memoryview, what: str) -> dict[str, Any]:
    """Parse a JSON object whose values fit into the memory that is left; raise RequestError."""
    text = bytes(head)
    # Before parsing: each further value costs a comma or a bracket, so the text itself bounds their number.
    if (count := sum(map(text.count, (b",", b"[", b"{")))) > _MAX_JSON_VALUES:
        raise TooLarge(f"{what} has {count} JSON values; allowed: {_MAX_JSON_VALUES}, send tensors as binary data")
    wide = not text.isascii() or b"\\u" in text  # then one character may make all of a text four bytes each
    MEMORY.require(count * _JSON_VALUE_BYTES + len(text) * (12 if wide else 3), f"the JSON of {what}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{what} is not JSON ({type(error).__name__}); expected: a JSON object") from error
    if not isinstance(value, dict):
        raise RequestError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value


def _parameters(holder: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    value = holder.get("parameters", {})
    if not isinstance(value, dict):
        raise RequestError(f"parameters of {what} must be an object, got {type(value).__name__}")
    return value


def _requested(outputs: Any) -> Mapping[str, bool]:
    if not isinstance(outputs, list):
        raise RequestError(f"outputs must be a list, got {type(outputs).__name__}")
    requested: dict[str, bool] = {}
    _count_tensors(outputs, "outputs")
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise RequestError("each of outputs must be an object with a name")
        _short(output["name"], "the name of an output")
        parameters = _parameters(output, f"output {output['name']!r}")
        if "classification" in parameters:
            raise RequestError("the classification extension is not spoken here; the tier's own post-processing is")
        requested[output["name"]] = parameters.get("binary_data") is True
    return requested


def _codec_of(parameters: Mapping[str, Any], what: str) -> Codec:
    value = parameters.get(_CODEC, "raw")
    for codec in encoding.CODECS:
        if value == codec:
            return codec
    raise RequestError(f"{what}: {_CODEC} is {str(value)[:40]!r}; known: {', '.join(encoding.CODECS)}")


def _tensors(described: Any, rest: memoryview, what: str, max_bytes: int) -> tuple[Tensor, ...]:
    if not isinstance(described, list) or not described:
        raise RequestError(f"{what} must be a list of at least one tensor")
    _count_tensors(described, what)
    tensors: dict[str, Tensor] = {}
    for entry in described:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise RequestError(f"each of {what} must be an object with a name")
        name = _short(entry["name"], f"the name of one of {what}")
        if name in tensors:
            raise RequestError(f"tensor {name!r} is there twice")
        shape = _shape(name, entry.get("shape"))
        parameters = _parameters(entry, f"tensor {name!r}")
        how, size = _codec_of(parameters, f"tensor {name!r}"), parameters.get("binary_data_size")
        if size is None:
            read = _from_base64 if how == "base64-json" else _from_json
            tensors[name] = read(name, entry, shape)
            continue
        # True is an int to Python and would pass for a size of 1.
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
            raise RequestError(f"tensor {name!r}: binary_data_size is {str(size)[:40]}, {len(rest)} bytes are left")
        if how == "shuffle-zlib":
            tensors[name] = _from_packed(name, entry.get("datatype"), shape, rest[:size], max_bytes)
            # The limit is for all packed tensors of a request together: many small bombs are a large one.
            max_bytes -= tensors[name].size_bytes
        else:
            tensors[name] = _from_binary(name, entry.get("datatype"), shape, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise RequestError(f"{len(rest)} bytes follow the last tensor; check the binary_data_size of each")
    return tuple(tensors.values())


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    sizes_ok = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    if not sizes_ok or len(shape) > _MAX_RANK:
        raise RequestError(f"tensor {name!r}: shape must be a list of at most {_MAX_RANK} sizes of 0 or more")
    # Zeros count as 1 because numpy refuses such a shape too: it multiplies the other sizes.
    if math.prod(max(size, 1) for size in shape) * _WIDEST > _MAX_TENSOR_BYTES:
        raise RequestError(
            f"tensor {name!r}: shape {shape} is larger than any tensor; allowed: {_MAX_TENSOR_BYTES} bytes"
        )
    return tuple(shape)


def _short(text: str, what: str) -> str:
    if len(text) > _MAX_NAME:
        raise RequestError(f"{what} has {len(text)} characters; allowed: {_MAX_NAME}")
    return text


def _count_tensors(described: list[Any], what: str) -> None:
    if len(described) > _MAX_TENSORS:
        raise RequestError(f"{what} has {len(described)} tensors; allowed: {_MAX_TENSORS}")


def _dtype(name: str, datatype: Any) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise RequestError(f"tensor {name!r}: datatype {str(datatype)[:40]!r}; known: BYTES, {', '.join(DATATYPES)}")
    return DATATYPES[datatype]


def _from_binary(name: str, datatype: Any, shape: tuple[int, ...], data: memoryview) -> Tensor:
    if datatype == "BYTES":
        return Tensor(name, None, _elements(name, shape, data))
    dtype = _dtype(name, datatype)
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data):
        raise RequestError(f"tensor {name!r}: {datatype} {list(shape)} is {expected} bytes, got {len(data)}")
    return Tensor(name, np.frombuffer(data, dtype).reshape(shape))


def _from_packed(name: str, datatype: Any, shape: tuple[int, ...], data: memoryview, max_bytes: int) -> Tensor:
    dtype = _dtype(name, datatype)
    count = math.prod(shape)
    if count * dtype.itemsize > max_bytes:
        raise TooLarge(f"tensor {name!r}: {datatype} {list(shape)} unpacked is more than the {max_bytes} bytes allowed")
    MEMORY.require(3 * count * dtype.itemsize + len(data), f"unpacking tensor {name!r}")
    try:
        return Tensor(name, encoding.decompress(data, dtype, count).reshape(shape))
    except CodecError as error:
        raise RequestError(f"tensor {name!r}: {error}") from error


def _from_base64(name: str, entry: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor:
    texts = entry.get("data")
    try:
        if not isinstance(texts, list):
            raise CodecError(f"data is a list of Base64 texts, got {type(texts).__name__}")
        length = sum(len(text) for text in texts if isinstance(text, str))
        MEMORY.require(len(texts) * _ELEMENT_BYTES + 2 * length, f"tensor {name!r}")
        decoded = tuple(map(encoding.from_base64, texts))
    except CodecError as error:
        raise RequestError(f"tensor {name!r}: {error}") from error
    if entry.get("datatype") == "BYTES":
        if len(decoded) != math.prod(shape):
            count = math.prod(shape)
            raise RequestError(f"tensor {name!r}: shape {list(shape)} has {count} elements, data {len(decoded)}")
        return Tensor(name, None, decoded)
    if len(decoded) != 1:
        raise RequestError(f"tensor {name!r}: one Base64 text holds all the numbers, got {len(decoded)}")
    return _from_binary(name, entry.get("datatype"), shape, decoded[0])


def _elements(name: str, shape: tuple[int, ...], data: memoryview) -> tuple[memoryview, ...]:
    count = math.prod(shape)
    # The claimed count is checked against the bytes before anything is allocated for it.
    if 4 * count > len(data):
        raise RequestError(f"tensor {name!r}: BYTES {list(shape)} takes {4 * count} bytes or more, got {len(data)}")
    MEMORY.require(count * _ELEMENT_BYTES, f"tensor {name!r} of {count} elements")
    elements: list[memoryview] = []
    while len(data):
        length = struct.unpack_from("<I", data)[0] if len(data) >= 4 else -1
        if not 0 <= length <= len(data) - 4 or len(elements) == count:
            raise RequestError(f"tensor {name!r}: BYTES needs {count} elements, each after its 4-byte length")
        elements.append(data[4 : 4 + length])
        data = data[4 + length :]
    if len(elements) != count:
        raise RequestError(f"tensor {name!r}: shape {list(shape)} has {count} elements, the data {len(elements)}")
    return tuple(elements)


def _from_json(name: str, entry: Mapping[str, Any], shape: tuple[int, ...]) -> Tensor:
    if entry.get("datatype") == "BYTES":
        raise RequestError(f"tensor {name!r}: BYTES is taken as binary data only (JSON text cannot hold an image)")
    dtype = _dtype(name, entry.get("datatype"))
    try:
        _check_numbers(entry.get("data"))
        # First without a type: with one, numpy would turn 1.7 into the integer 1 without a word.
        loose = np.asarray(entry.get("data"))
        if dtype.kind == "u" and loose.dtype.kind == "f":  # numpy finds no common integer type above 2**63
            loose = np.asarray(entry.get("data"), dtype=object)
            if all(type(value) is int for value in loose.flat):
                loose = loose.astype(np.uint64)
        if loose.dtype.kind not in ("biuf" if dtype.kind == "f" else "b" if dtype.kind == "b" else "iu") and loose.size:
            raise ValueError(f"numbers expected, got {loose.dtype}")
        # A number too large for half or single precision would otherwise become infinity.
        with np.errstate(over="raise"):
            array = np.asarray(entry.get("data"), dtype=dtype)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise RequestError(f"tensor {name!r}: data does not fit {entry.get('datatype')}: {str(error)[:120]}") from error
    if array.size != math.prod(shape):
        raise RequestError(f"tensor {name!r}: shape {list(shape)} has {math.prod(shape)} elements, data {array.size}")
    return Tensor(name, array.reshape(shape))


def _check_numbers(data: Any) -> None:
    """Refuse non-numbers before numpy sees them: it would make every text as wide as the widest."""
    level = data if isinstance(data, list) else [data]
    while kinds := set(map(type, level)):
        if kinds == {list}:
            level = list(itertools.chain.from_iterable(level))
        elif strange := kinds - {int, float, bool}:
            raise ValueError(f"numbers expected, got {', '.join(sorted(kind.__name__ for kind in strange))}")
        else:
            return


def array_inputs(tensors: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    """Return the inputs as arrays, for a graph; refuse BYTES."""
    if text := [tensor.name for tensor in tensors if tensor.array is None]:
        raise RequestError(f"inputs {text[:5]}: BYTES was sent where the model takes numbers")
    return {tensor.name: tensor.array for tensor in tensors if tensor.array is not None}
