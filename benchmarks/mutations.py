"""How `fuzz_inputs` spoils catalogs and ONNX files: bytes, text, YAML structure, fields of the protobuf."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

_TOKENS = (
    "&a ", "*a", "<<: *a", "!!python/name:os.system ", "!!binary ", "!!set ", "\t", "{", "}", "[", "]", ": ", "? ",
    "- ", "|\n", ">\n", "%YAML 9.9\n", "---\n", "...\n", "\0", "\x85", "\u2028", "\ufeff", "\U0001f600", "\u00e9",
    "1e999", ".nan", "-.inf",
    "0x" + "f" * 40, "1" * 40, "2026-11-24", "12:30:45", "null", "~", "yes", "''", '""', '"', "'", "#", ",", "@", "`",
    "${HOME}", "../../etc/passwd", "0o7", "-1", "1_000", "0mbit", "999999999999tbit", "1e3m", "p101", "p0",
)  # fmt: skip
_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 0.5, -0.0, float("nan"), float("inf"), "", "0.5", "512m",
    "10mbit", "identity", "static_ptq", "mobile", "mobile-edge-cloud", "-", "--", "a-b", "x" * 300, "\u00e9", [], {},
    [[]], {"a": {}}, [None], {"blocks": 10**9}, {"early_exit": {"blocks": -1}}, "builtin:digits", "./my.onnx",
    "imagenet:/",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 3, 7, 13, 255, 2**31 - 1, -(2**31), 2**32, 2**62, -(2**63), 2**63 - 1)


# -- bytes ----------------------------------------------------------------------------------------------------------


def _flip(content: bytes, other: bytes, source: random.Random) -> bytes:
    spoilt = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 5, 20))):
        spoilt[source.randrange(len(spoilt))] ^= 1 << source.randrange(8)
    return bytes(spoilt)


def _truncate(content: bytes, other: bytes, source: random.Random) -> bytes:
    return content[: source.randrange(len(content))]


def _splice(content: bytes, other: bytes, source: random.Random) -> bytes:
    return content[: source.randrange(len(content))] + other[source.randrange(len(other)) :]


def _repeat(content: bytes, other: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(content))
    piece = content[start : start + source.randrange(1, 200)]
    return content[:start] + piece * source.choice((2, 3, 50)) + content[start:]


def _noise(content: bytes, other: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(content))
    return content[:start] + source.randbytes(source.randrange(1, 16)) + content[start + source.randrange(8) :]


_BYTES = (_flip, _flip, _truncate, _splice, _repeat, _noise)


# -- catalogs -------------------------------------------------------------------------------------------------------


def mutate_catalog(seeds: Sequence[bytes], source: random.Random) -> bytes:
    """One catalog file, spoilt in one of three ways."""
    content, other = source.choice(seeds), source.choice(seeds)
    kind = source.randrange(3)
    if kind == 0:
        return source.choice(_BYTES)(content, other, source)
    if kind == 1:
        return _tokens(content.decode(), source).encode("utf-8", "surrogatepass")
    data = yaml.safe_load(content)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        data = _restructure(data, source)
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=source.choice((None, True, False)))
    return text.encode("utf-8", "surrogatepass")


def _tokens(text: str, source: random.Random) -> str:
    for _ in range(source.choice((1, 1, 2, 4))):
        start = source.randrange(len(text) + 1)
        text = text[:start] + source.choice(_TOKENS) + text[start + source.choice((0, 0, 1, 5)) :]
    return text


def _restructure(data: Any, source: random.Random) -> Any:
    """Change one place of a tree: another value, a key renamed, left out or doubled in depth."""
    places = list(_places(data))
    if not places:
        return source.choice(_SCALARS)
    parent, key = source.choice(places)
    match source.randrange(5):
        case 0 | 1:
            parent[key] = source.choice(_SCALARS)
        case 2:
            del parent[key]
        case 3 if isinstance(parent, dict):
            name = source.choice(("version", "cpu", str(key) + "x", str(key)[1:] or "a", 7, None, True, "a b", ""))
            parent[name] = parent.pop(key)
        case _:
            other, place = source.choice(places)
            parent[key] = other.get(place) if isinstance(other, dict) else source.choice(_SCALARS)
    return data


def _places(data: Any, depth: int = 0) -> Any:
    if depth > 12:
        return
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    for key, value in items:
        yield data, key
        yield from _places(value, depth + 1)


# -- models -----------------------------------------------------------------------------------------------------------


def mutate_model(seed: onnx.ModelProto, other: onnx.ModelProto, source: random.Random) -> bytes:
    """One ONNX file: its bytes spoilt, or fields of its protobuf, one to four."""
    if source.random() < 0.4:
        return source.choice(_BYTES)(seed.SerializeToString(), other.SerializeToString(), source)
    model = onnx.ModelProto.FromString(seed.SerializeToString())
    for _ in range(source.choice((1, 1, 2, 4))):
        source.choice(_FIELDS)(model, source)
    return bytes(model.SerializeToString())


def _dimension(model: onnx.ModelProto, source: random.Random) -> None:
    tensors = model.graph.initializer
    if tensors:
        dims = source.choice(tensors).dims
        if dims:
            dims[source.randrange(len(dims))] = source.choice(_NUMBERS)


def _declared_shape(model: onnx.ModelProto, source: random.Random) -> None:
    value = source.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    dims = value.type.tensor_type.shape.dim
    if dims:
        dims[source.randrange(len(dims))].dim_value = source.choice(_NUMBERS)


def _type(model: onnx.ModelProto, source: random.Random) -> None:
    if model.graph.initializer and source.random() < 0.5:
        source.choice(model.graph.initializer).data_type = source.randrange(30)
    else:
        value = source.choice([*model.graph.input, *model.graph.output])
        value.type.tensor_type.elem_type = source.randrange(30)


def _attribute(model: onnx.ModelProto, source: random.Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if not attributes:
        return
    chosen = source.choice(attributes)
    if chosen.ints:
        chosen.ints[source.randrange(len(chosen.ints))] = source.choice(_NUMBERS)
        if source.random() < 0.3:
            chosen.ints.append(source.choice(_NUMBERS))
    elif chosen.type == onnx.AttributeProto.FLOAT:
        chosen.f = source.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    elif chosen.type == onnx.AttributeProto.STRING:
        chosen.s = source.choice((b"", b"VALID", b"\xff", b"x" * 1000))
    else:
        chosen.i = source.choice(_NUMBERS)
    if source.random() < 0.1:
        chosen.type = source.randrange(15)


def _operator(model: onnx.ModelProto, source: random.Random) -> None:
    node = source.choice(model.graph.node)
    node.op_type = source.choice(
        ("Relu", "Conv", "Gemm", "Reshape", "If", "Loop", "Scan", "Split", "Resize", "", "Nope")
    )


def _edge(model: onnx.ModelProto, source: random.Random) -> None:
    """Another tensor for one input of a node: circles, types and shapes that do not fit."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = source.choice(model.graph.node)
    if node.input and source.random() < 0.8:
        node.input[source.randrange(len(node.input))] = source.choice([*names, "", "nowhere"])
    elif node.output:
        node.output[source.randrange(len(node.output))] = source.choice([*names, ""])


def _nodes(model: onnx.ModelProto, source: random.Random) -> None:
    nodes = model.graph.node
    index = source.randrange(len(nodes))
    if source.random() < 0.5 and len(nodes) > 1:
        del nodes[index]
    else:
        nodes.append(nodes[index])


def _opset(model: onnx.ModelProto, source: random.Random) -> None:
    if source.random() < 0.5:
        model.ir_version = source.choice((0, 1, 3, 4, 99, 2**40))
    elif model.opset_import:
        model.opset_import[0].version = source.choice((0, 1, 5, 6, 9, 11, 12, 13, 20, 99, -1, 2**40))
        model.opset_import[0].domain = source.choice(("", "", "ai.onnx", "com.microsoft", "nowhere"))


def _data(model: onnx.ModelProto, source: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = source.choice(model.graph.initializer)
    match source.randrange(4):
        case 0:
            tensor.raw_data = tensor.raw_data[: source.randrange(len(tensor.raw_data) + 1)]
        case 1:
            tensor.raw_data = source.randbytes(len(tensor.raw_data))
        case 2:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(
                key="location", value=source.choice(("my.onnx", "../x", "/etc/passwd", "", "a\0b"))
            )
            tensor.external_data.add(key="offset", value=source.choice(("-1", "0", "x", "9" * 30)))
            tensor.external_data.add(key="length", value=source.choice(("-1", "0", "x", "9" * 30)))
        case _:
            tensor.float_data.extend([1.0] * source.choice((1, 100)))


def _name(model: onnx.ModelProto, source: random.Random) -> None:
    value = source.choice([*model.graph.input, *model.graph.output, *model.graph.initializer])
    value.name = source.choice(("", "x", "scores", "a/b", "\u00e9", "x" * 5000, "\0"))


def _declarations(model: onnx.ModelProto, source: random.Random) -> None:
    """Change what the file says of an output or an inner tensor: nothing, another type, or another shape."""
    match source.randrange(3):
        case 0:
            source.choice(model.graph.output).type.ClearField("value")
        case 1:
            source.choice(model.graph.output).type.tensor_type.ClearField("shape")
        case _:
            name = source.choice([name for node in model.graph.node for name in node.output] or ["nowhere"])
            sizes = [source.choice((*_NUMBERS, "n", "?", "")) for _ in range(source.randrange(5))]
            model.graph.value_info.append(helper.make_tensor_value_info(name, source.randrange(1, 17), sizes))


def _free_size(model: onnx.ModelProto, source: random.Random) -> None:
    """Leave a dimension free, in one of the ways in which exporters write that."""
    dims = source.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape.dim
    if dims:
        dim = dims[source.randrange(len(dims))]
        dim.ClearField("value")
        match source.choice((-1, 0, "", "?", "unk__0", "n", None)):
            case int(size):
                dim.dim_value = size
            case str(name):
                dim.dim_param = name


def _order(model: onnx.ModelProto, source: random.Random) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    source.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


_FIELDS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _dimension, _declared_shape, _type, _attribute, _attribute, _operator, _edge, _edge, _nodes, _opset, _data, _name,
    _declarations, _free_size, _order,
)  # fmt: skip


# -- seeds ------------------------------------------------------------------------------------------------------------


def model_seeds() -> list[onnx.ModelProto]:
    """Small networks: a residual classifier (several times, for it is what operators work on), one for pixels, one
    for sequences with a loop, one in int8, one of operators that ONNX does not know, one for waveforms."""
    residual = [_residual(), _residual(), _residual(quantized=True)]
    return [*residual, _segmenter(), _attention(), _loop(), _contributed(), _waveform()]


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], input_shape: Any, output_shape: Any
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, output_shape)]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _residual(*, quantized: bool = False) -> onnx.ModelProto:
    random_ = np.random.default_rng(0)
    weights: dict[str, Any] = {"s": np.float32(0.1), "z": np.uint8(128)}
    nodes: list[onnx.NodeProto] = []

    def layer(source: str, name: str, channels: tuple[int, int]) -> str:
        weights[f"{name}.w"] = random_.normal(size=(*channels, 3, 3)).astype(np.float32) / 10
        if quantized:
            nodes.append(helper.make_node("QuantizeLinear", [source, "s", "z"], [f"{name}.q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.d"]))
            source = f"{name}.d"
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [name], name=name, pads=[1, 1, 1, 1]))
        return name

    current = layer("x", "stem", (4, 3))
    for block in range(4):
        nodes.append(helper.make_node("Relu", [layer(current, f"b{block}.1", (4, 4))], [f"b{block}.r"]))
        inner = layer(f"b{block}.r", f"b{block}.2", (4, 4))
        nodes.append(helper.make_node("Add", [inner, current], [f"b{block}.a"]))
        nodes.append(helper.make_node("Relu", [f"b{block}.a"], [f"b{block}"]))
        current = f"b{block}"
    weights["fc"] = random_.normal(size=(4, 5)).astype(np.float32)
    nodes.append(helper.make_node("ReduceMean", [current], ["mean"], axes=[2, 3], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["mean", "fc"], ["scores"]))
    return _model(nodes, weights, (1, 3, 8, 8), (1, 5))


def _segmenter() -> onnx.ModelProto:
    """Down, and up again through a size computed from the input's shape."""
    weights = {
        "w": np.ones((4, 3, 3, 3), np.float32),
        "v": np.ones((5, 4, 1, 1), np.float32),
        "start": np.array([2], np.int64),
        "end": np.array([4], np.int64),
        "nc": np.array([1, 5], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "v"], ["small"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "start", "end"], ["hw"]),
        helper.make_node("Concat", ["nc", "hw"], ["sizes"], axis=0),
        helper.make_node("Resize", ["small", "", "", "sizes"], ["scores"], mode="linear"),
    ]
    return _model(nodes, weights, (1, 3, 8, 8), (1, 5, 8, 8))


def _attention() -> onnx.ModelProto:
    weights = {"w": np.ones((6, 6), np.float32), "pair": np.array([3, 3], np.int64)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["a"]),
        helper.make_node("Softmax", ["a"], ["p"], axis=-1),
        helper.make_node("Split", ["x", "pair"], ["left", "right"], axis=2),
        helper.make_node("Concat", ["right", "left"], ["turned"], axis=2),
        helper.make_node("MatMul", ["p", "turned"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["scores"], axes=[1], keepdims=0),
    ]
    return _model(nodes, weights, (1, "T", 6), (1, 6))


def _contributed() -> onnx.ModelProto:
    """Blocks of operators that ONNX's inference does not know, and a number without axes beside them."""
    weights: dict[str, Any] = {"bias": np.ones(6, np.float32)}
    nodes, current = [], "x"
    for block in range(4):
        weights[f"w{block}"] = np.eye(6, dtype=np.float32)
        nodes.append(helper.make_node("MatMul", [current, f"w{block}"], [f"m{block}"]))
        nodes.append(helper.make_node("BiasGelu", [f"m{block}", "bias"], [f"g{block}"], domain="com.microsoft"))
        nodes.append(helper.make_node("Add", [f"g{block}", current], [f"b{block}"]))
        current = f"b{block}"
    nodes.append(helper.make_node("Div", [current, "temperature"], ["scores"]))
    model = _model(nodes, weights, (1, "T", 6), (1, "T", 6))
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, []))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _waveform() -> onnx.ModelProto:
    weights = {"one": np.array([1, 1, -1], np.int64), "w": np.ones((4, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Reshape", ["x", "one"], ["line"]),
        helper.make_node("Conv", ["line", "w"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["scores"], axes=[2], keepdims=0),
    ]
    return _model(nodes, weights, ("T",), (1, 4))


def _loop() -> onnx.ModelProto:
    """Five rounds of a sub-graph."""
    counted = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    going = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    carried = helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 4])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["more"])],
        "body",
        [counted, going, carried],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 4]),
        ],
    )
    nodes = [helper.make_node("Loop", ["count", "yes", "x"], ["scores"], body=body)]
    return _model(nodes, {"count": np.int64(5), "yes": np.bool_(True)}, (1, 4), (1, 4))
