"""Small requests that become large in a tier: each made once, by name, with a model that takes it."""

from __future__ import annotations

import functools
import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tierserver.messages import PartSpec, Preprocess

SIDE = 8000
Request = tuple[str, bytes, int | None]  # the model's name, the body, and the length of its JSON part


def image(encoded: bytes, model: str = "rgb") -> Request:
    """One image as binary data."""
    data = struct.pack("<I", len(encoded)) + encoded
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    return binary(model, entry, data)


def binary(model: str, entry: dict[str, Any], data: bytes, **parameters: Any) -> Request:
    head = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    return model, head + data, len(head)


def plain(model: str, text: str | bytes) -> Request:
    return model, text if isinstance(text, bytes) else text.encode(), None


def drawn(mode: str, kind: str, color: Any = None, **options: Any) -> Request:
    """A plain picture of 64 million pixels in a format."""
    stream = io.BytesIO()
    Image.new(mode, (SIDE, SIDE), color or 0).save(stream, kind, **options)
    return image(stream.getvalue())


# Eight rows of blocks, after which the numbers of the restart markers begin again: a strip may follow itself.
_STRIP = 64


def tall_jpeg(mode: str) -> bytes:
    """A plain progressive JPEG of 64 million pixels, encoded as one strip that every scan repeats."""
    stream = io.BytesIO()
    options = {"progressive": True, "subsampling": 0, "restart_marker_rows": 1}
    Image.new(mode, (SIDE, _STRIP)).save(stream, "JPEG", **options)
    encoded, place, pieces = stream.getvalue(), 2, [b"\xff\xd8"]
    while encoded[place + 1] != 0xD9:
        kind, length = encoded[place + 1], 2 + int.from_bytes(encoded[place + 2 : place + 4])
        segment = encoded[place : place + length]
        if kind == 0xC2:  # the frame, which has the height after its precision
            segment = segment[:5] + SIDE.to_bytes(2) + segment[7:]
        place += length
        pieces.append(segment)
        if kind == 0xDA:
            end = _next_marker(encoded, place)
            pieces.append(b"\xff\xd7".join([encoded[place:end]] * (SIDE // _STRIP)))
            place = end
    return b"".join(pieces) + b"\xff\xd9"


def _next_marker(encoded: bytes, place: int) -> int:
    """Return where the data of a scan end: at a marker that is neither a stuffed zero nor a restart."""
    while True:
        place = encoded.index(b"\xff", place)
        if encoded[place + 1] != 0 and not 0xD0 <= encoded[place + 1] <= 0xD7:
            return place
        place += 2


def jpeg_of_scans(count: int) -> bytes:
    """Repeat the last scan of a progressive JPEG: a decoder goes over the whole picture for each."""
    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(stream, "JPEG", progressive=True)
    encoded = stream.getvalue()
    return encoded[:-2] + count * encoded[encoded.rindex(b"\xff\xda") : -2] + encoded[-2:]


def deflated(runs: Sequence[tuple[bytes, int]]) -> bytes:
    """Pack blocks that are repeated: each is compressed once, and its compressed bytes are repeated."""
    pieces, checksum = [b"\x78\xda"], 1
    for block, count in runs:
        packer = zlib.compressobj(9, wbits=-15)
        # A full flush ends on a byte and forgets what came before, so that the piece may follow itself.
        pieces.append((packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)) * count)
        for _ in range(count):
            checksum = zlib.adler32(block, checksum)
    return b"".join(pieces) + b"\x03\x00" + struct.pack(">I", checksum)


def png(width: int, height: int, *, bits: int, color: int, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A black PNG, compressed row by row so that making it takes little memory."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    passes = [(width, height)]
    if interlaced:
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in steps]
    runs: list[tuple[bytes, int]] = []
    for columns, rows in passes:
        row = bytes(1 + (columns * channels * bits + 7) // 8)
        block = row * max(1, min(rows, 2**20 // len(row)))
        count, rest = divmod(rows * len(row), len(block))
        runs += [(block, count), (block[:rest], 1)]
    data = deflated(runs)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(tags: dict[int, tuple[int, int, int]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF whose directory comes first: tag, type, count and value."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tail


def gray_tiff(side: int) -> dict[int, tuple[int, int, int]]:
    return {256: (4, 1, side), 257: (4, 1, side), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}


def tiff_of_one_tile(side: int) -> bytes:
    """A picture of 8 x 8 pixels in a tile of side x side."""
    packed = deflated([(bytes(side * 1000), side // 1000)])
    place = 8 + 2 + 10 * 12 + 4
    tags = gray_tiff(8) | {322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, place), 325: (4, 1, len(packed))}
    return tiff(tags, packed)


def deflated_tiff(bits: int, samples: int, *, photometric: int, sample_format: int) -> bytes:
    """A plain TIFF of 64 million pixels whose strips are all the same bytes."""
    strips = SIDE // _STRIP
    strip = deflated([(bytes(SIDE * samples * bits // 8), _STRIP)])
    tail = 8 + 2 + 11 * 12 + 4
    offsets, lengths, depths = tail, tail + 4 * strips, tail + 8 * strips
    place = depths + 2 * samples
    tags = gray_tiff(SIDE) | {
        258: (3, samples, bits if samples == 1 else depths),
        262: (3, 1, photometric),
        273: (4, strips, offsets),
        277: (3, 1, samples),
        278: (4, 1, _STRIP),
        279: (4, strips, lengths),
        284: (3, 1, 1),
        339: (3, 1, sample_format),
    }
    numbers = struct.pack(
        f"<{strips}I{strips}I{samples}H", *[place] * strips, *[len(strip)] * strips, *[bits] * samples
    )
    return tiff(tags, numbers + strip)


def tiff_of_many_strips(count: int) -> bytes:
    place = 8 + 2 + 9 * 12 + 4
    tags = gray_tiff(8) | {273: (4, count, place), 278: (4, 1, 1), 279: (4, count, place)}
    return tiff(tags, bytes(4 * count))


def exif_of_many_numbers(count: int) -> bytes:
    tags = {274: (3, 1, 6), 40000: (3, count, 8 + 2 + 2 * 12 + 4)}
    return tiff(tags, b"\x12\x34" * count)


def nested(depth: int, what: str) -> Request:
    deep = "[" * depth + "]" * depth
    entry = {"name": '"x"', "shape": "[1]", "datatype": '"FP32"', "data": "[0.5]", "parameters": "{}"} | {what: deep}
    return plain("any", '{"inputs":[{' + ",".join(f'"{key}":{value}' for key, value in entry.items()) + "}]}")


def tensor(shape: list[int], data: bytes, datatype: str = "FP32", **parameters: Any) -> Request:
    parameters = {"binary_data_size": len(data), **parameters}
    return binary("any", {"name": "x", "shape": shape, "datatype": datatype, "parameters": parameters}, data)


def grown(shape: list[int], **parameters: Any) -> Request:
    """The model's output has the shape that its input says."""
    data = struct.pack(f"<{len(shape)}q", *shape)
    size = {"binary_data_size": len(data)}
    return binary(
        "grow", {"name": "shape", "shape": [len(shape)], "datatype": "INT64", "parameters": size}, data, **parameters
    )


def of_json(data: Any) -> Request:
    return plain("any", json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": data}]}))


def packed(size: int) -> bytes:
    return deflated([(bytes(2**20), size // 2**20)])


def base64_elements(count: int) -> Request:
    codec = {"tierwise_codec": "base64-json"}
    entry = {"name": "image", "shape": [count], "datatype": "BYTES", "parameters": codec, "data": [""] * count}
    return plain("rgb", json.dumps({"inputs": [entry]}))


def animated() -> Request:
    stream = io.BytesIO()
    frames = [Image.new("P", (SIDE, SIDE), value) for value in (1, 2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return image(stream.getvalue())


REQUESTS: dict[str, Callable[[], Request]] = {
    "PNG in RGB": lambda: image(png(SIDE, SIDE, bits=8, color=2)),
    "PNG in RGB of 16 bits": lambda: image(png(SIDE, SIDE, bits=16, color=2)),
    "PNG in gray of 16 bits": lambda: image(png(SIDE, SIDE, bits=16, color=0)),
    "PNG in gray of 16 bits for gray": lambda: image(png(SIDE, SIDE, bits=16, color=0), "gray"),
    "PNG with alpha": lambda: image(png(SIDE, SIDE, bits=16, color=6)),
    "PNG interlaced": lambda: image(png(SIDE, SIDE, bits=8, color=2, interlaced=True)),
    "PNG of one bit": lambda: image(png(SIDE, SIDE, bits=1, color=0)),
    "PNG that is tall": lambda: image(png(1, 60_000_000, bits=8, color=0)),
    "PNG that is wide": lambda: image(png(60_000_000, 1, bits=8, color=0)),
    "PNG with EXIF of many numbers": lambda: image(
        png(8, 8, bits=8, color=2, extra=_chunk(b"eXIf", exif_of_many_numbers(20_000_000)))
    ),
    "PNG with a palette and transparency": lambda: drawn("P", "PNG", transparency=0),
    "JPEG": lambda: drawn("RGB", "JPEG"),
    "JPEG progressive": lambda: image(tall_jpeg("RGB")),
    "JPEG in CMYK": lambda: image(tall_jpeg("CMYK")),
    "JPEG of endless scans": lambda: image(jpeg_of_scans(20_000)),
    "WebP": lambda: drawn("RGB", "WEBP", lossless=True, quality=0, method=0),
    "TIFF": lambda: image(deflated_tiff(8, 3, photometric=2, sample_format=1)),
    "TIFF of floats": lambda: image(deflated_tiff(32, 1, photometric=1, sample_format=3)),
    "TIFF of one tile": lambda: image(tiff_of_one_tile(25_000)),
    "TIFF of many strips": lambda: image(tiff_of_many_strips(10_000_000)),
    "GIF animated": animated,
    "JSON of one wide text among short ones": lambda: of_json(["x" * 65000] + ["a"] * 30000),
    "JSON of a wide text, nested": lambda: of_json([[["x" * 65000]] + [["a"]] * 20000]),
    "JSON of a million objects": lambda: plain(
        "any", b'{"inputs":[' + b",".join(b'{"k%d":0}' % n for n in range(500_000)) + b"]}"
    ),
    "JSON with one character of four bytes": lambda: plain(
        "any", b'{"inputs":[{"name":"\\ud83d\\ude00' + b"a" * 30_000_000 + b'"}]}'
    ),
    "JSON deep in data": lambda: nested(900, "data"),
    "JSON deep in a shape": lambda: nested(900, "shape"),
    "JSON deep in a datatype": lambda: nested(900, "datatype"),
    "JSON deep in parameters": lambda: nested(900, "parameters"),
    "JSON deeper than Python": lambda: nested(200_000, "data"),
    "4 million empty elements": lambda: tensor([2**22], bytes(2**24), "BYTES"),
    "empty elements in Base64": lambda: base64_elements(500_000),
    "a shape beyond numpy": lambda: tensor([2**39, 2**39, 0], b""),
    "a shape that is negative": lambda: tensor([-1, 0], b""),
    "elements without end": lambda: tensor([2**39], b"", "BYTES"),
    "a packed tensor": lambda: tensor([63 * 2**18], packed(63 * 2**20), tierwise_codec="shuffle-zlib"),
    "an output of a gigabyte": lambda: grown([2**28], binary_data_output=True),
    "an output of 300 megabytes": lambda: grown([300 * 2**18], binary_data_output=True),
    "an output of 200 megabytes, packed": lambda: grown([200 * 2**18], tierwise_codec="shuffle-zlib"),
    "an output of a terabyte": lambda: grown([2**38], binary_data_output=True),
    "an output of many numbers in JSON": lambda: grown([2**23]),
    "an output of many numbers in Base64": lambda: grown([2**26], tierwise_codec="base64-json"),
}


@functools.cache
def request(name: str) -> Request:
    return REQUESTS[name]()


def raw(name: str) -> bytes:
    """The whole request as it goes over a connection."""
    model, body, header_length = request(name)
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: tier", f"Content-Length: {len(body)}"]
    if header_length is not None:
        lines.append(f"Inference-Header-Content-Length: {header_length}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def models() -> dict[str, onnx.ModelProto]:
    """By name: `rgb` and `gray` take images of 8 x 8, `any` takes numbers, `grow` returns as many as requested."""
    values = {"rgb": [1, 3, 8, 8], "gray": [1, 1, 8, 8], "any": [None]}
    made = {name: _model(_identity(), [("x", TensorProto.FLOAT, shape)], shape) for name, shape in values.items()}
    constant = numpy_helper.from_array(np.ones(1, np.float32))
    grow = helper.make_node("ConstantOfShape", ["shape"], ["y"], value=constant)
    return made | {"grow": _model(grow, [("shape", TensorProto.INT64, [None])], [None])}


def _identity() -> onnx.NodeProto:
    return helper.make_node("Identity", ["x"], ["y"])


def _model(node: onnx.NodeProto, inputs: list[tuple[str, int, list[int | None]]], shape: Any) -> onnx.ModelProto:
    taken = [helper.make_tensor_value_info(*model_input) for model_input in inputs]
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "greedy", taken, [gives])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def parts(directory: str) -> tuple[PartSpec, ...]:
    """What a tier loads, of files in a directory of its own."""
    images = {name: Preprocess(name, 8, 8) for name in ("rgb", "gray")}
    return tuple(PartSpec(name, f"{directory}/{name}.onnx", preprocess=images.get(name)) for name in models())
