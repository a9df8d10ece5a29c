"""static_ptq: what it makes in both formats, what it leaves alone, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runner.errors import OperatorError
from runner.graph.analysis import analyse
from runner.operators.base import Context, PassRefusal
from runner.operators.registry import look_ahead, make_pass

_SHAPE = [1, 3, 12, 12]


def images(count: int, seed: int = 0) -> list[NDArray[np.generic]]:
    random = np.random.default_rng(seed)
    return [random.normal(size=_SHAPE).astype(np.float32) for _ in range(count)]


def weight(name: str, *shape: int) -> TensorProto:
    random = np.random.default_rng(len(name))
    return numpy_helper.from_array((random.normal(size=shape) / shape[1]).astype(np.float32), name)


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: object, outputs: object, *weights: object, opset: int = 17
) -> Path:
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def tensor(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


_HEAD = [helper.make_node("Conv", ["input", "first"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["cut"])]
_TAIL = [helper.make_node("Conv", ["cut", "second"], ["b"], pads=[1] * 4), helper.make_node("Relu", ["b"], ["scores"])]


def whole(path: Path, *, opset: int = 17) -> Path:
    weights = weight("first", 8, 3, 3, 3), weight("second", 8, 8, 3, 3)
    return save(
        path, _HEAD + _TAIL, [tensor("input", *_SHAPE)], [tensor("scores", 1, 8, 12, 12)], *weights, opset=opset
    )


def run(parts: Sequence[Path], image: NDArray[np.generic]) -> NDArray[np.float32]:
    value = image
    for part in parts:
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        (value,) = session.run(None, {session.get_inputs()[0].name: value})
    return np.asarray(value, np.float32)


def quantize(parts: Sequence[Path], workdir: Path, **options: object) -> tuple[Path, ...]:
    workdir.mkdir(exist_ok=True)
    return make_pass("static_ptq", options).apply(parts, Context(workdir, images(16))).parts


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.abs(one - other).max() < 0.05 * np.abs(other).max())


def int8_weights(model: Path) -> list[NDArray[np.int8]]:
    initializers = onnx.load(model).graph.initializer
    return [numpy_helper.to_array(w) for w in initializers if w.data_type == TensorProto.INT8 and len(w.dims) == 4]


@pytest.mark.parametrize(("format", "op_type"), [("qdq", "Conv"), ("qoperator", "QLinearConv")])
def test_both_formats_keep_signature_and_meaning(tmp_path: Path, format: str, op_type: str) -> None:
    model = whole(tmp_path / "m.onnx")
    (quantized,) = quantize([model], tmp_path / "work", format=format)
    result = onnx.load(quantized)
    onnx.checker.check_model(result, full_check=True)
    assert sum(node.op_type == op_type for node in result.graph.node) == 2
    assert result.graph.input == onnx.load(model).graph.input
    assert result.graph.output == onnx.load(model).graph.output
    image = images(1, seed=9)[0]
    assert close(run([quantized], image), run([model], image))


def test_activations_are_uint8_and_weights_int8(tmp_path: Path) -> None:
    (quantized,) = quantize([whole(tmp_path / "m.onnx")], tmp_path / "work")
    result = onnx.load(quantized)
    kinds = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    points = {kinds[node.input[2]] for node in result.graph.node if node.op_type == "QuantizeLinear"}
    assert points == {TensorProto.UINT8}
    assert [tuple(w.shape) for w in int8_weights(quantized)] == [(8, 3, 3, 3), (8, 8, 3, 3)]


def test_reduced_range_keeps_weights_in_seven_bits(tmp_path: Path) -> None:
    model = whole(tmp_path / "m.onnx")
    (full,) = quantize([model], tmp_path / "full", reduce_range=False)
    (reduced,) = quantize([model], tmp_path / "reduced", reduce_range=True)
    assert max(np.abs(w.astype(int)).max() for w in int8_weights(full)) == 127
    assert max(np.abs(w.astype(int)).max() for w in int8_weights(reduced)) <= 64


def test_one_scale_per_channel_or_one_per_weight(tmp_path: Path) -> None:
    model = whole(tmp_path / "m.onnx")

    def scales(**options: object) -> set[int]:
        (quantized,) = quantize([model], tmp_path / f"work{options}", **options)
        result = onnx.load(quantized).graph
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in result.initializer}
        weights = {tensor.name for tensor in result.initializer if len(tensor.dims) == 4}
        return {sizes[node.input[1]] for node in result.node if node.input[0] in weights}

    assert scales(per_channel=True) == {8}
    assert scales(per_channel=False) == {1}


def test_an_old_opset_is_converted_first(tmp_path: Path) -> None:
    model = whole(tmp_path / "m.onnx", opset=11)
    (quantized,) = quantize([model], tmp_path / "work")
    onnx.checker.check_model(onnx.load(quantized), full_check=True)
    assert onnx.load(quantized).opset_import[0].version >= 13
    image = images(1, seed=9)[0]
    assert close(run([quantized], image), run([model], image))


def old_squeezenet(path: Path) -> Path:
    """SqueezeNet as the onnx package ships it (IR version 3, opset 9), its constant fills replaced by random weights.

    As everything of that age, it names its initializers among its inputs.
    """
    model = onnx.load(Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx")
    assert (model.ir_version, model.opset_import[0].version) == (3, 9)
    shapes = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    fills = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    random = np.random.default_rng(5)
    for node in fills:
        size = tuple(map(int, shapes[node.input[0]]))
        values = (random.normal(size=size) / np.sqrt(max(1, np.prod(size[1:])))).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.input.append(tensor(node.output[0], *size))
        model.graph.node.remove(node)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_a_network_of_the_first_onnx_release_is_quantized(tmp_path: Path, format: str) -> None:
    model = old_squeezenet(tmp_path / "m.onnx")
    taken = [np.random.default_rng(seed).random((1, 3, 224, 224), np.float32) for seed in range(3)]
    (tmp_path / "work").mkdir()
    applied = make_pass("static_ptq", {"format": format}).apply([model], Context(tmp_path / "work", taken[:2]))
    (quantized,) = applied.parts
    assert applied.details["warnings"] == [] and quantized.stat().st_size < 0.3 * model.stat().st_size
    result = onnx.load(quantized)
    onnx.checker.check_model(result, full_check=True)
    assert [model_input.name for model_input in result.graph.input] == ["data_0"]
    assert len(int8_weights(quantized)) == 26
    one, other = run([quantized], taken[2]).ravel(), run([model], taken[2]).ravel()
    # A softmax in whole numbers answers in steps of 1/256, of which the largest score here has fifteen.
    assert one.argmax() == other.argmax() and np.abs(one - other).max() < 1 / 256


def test_an_old_ir_version_at_a_new_opset_is_raised(tmp_path: Path) -> None:
    path = whole(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = 3
    model.graph.input.extend(tensor(weight.name, *weight.dims) for weight in model.graph.initializer)
    onnx.save(model, path)
    (quantized,) = quantize([path], tmp_path / "work")
    assert onnx.load(quantized).ir_version >= 7
    image = images(1, seed=9)[0]
    assert close(run([quantized], image), run([path], image))


def test_weights_in_constants_are_quantized_too(tmp_path: Path) -> None:
    constants = [helper.make_node("Constant", [], [w.name], value=w) for w in (weight("first", 64, 3, 3, 3),)]
    outputs = [tensor("scores", 1, 64, 12, 12)]
    node = helper.make_node("Conv", ["input", "first"], ["scores"], pads=[1] * 4)
    model = save(tmp_path / "m.onnx", [*constants, node], [tensor("input", *_SHAPE)], outputs)
    (quantized,) = quantize([model], tmp_path / "work")
    assert [tuple(w.shape) for w in int8_weights(quantized)] == [(64, 3, 3, 3)]
    image = images(1, seed=9)[0]
    assert close(run([quantized], image), run([model], image))


def test_a_model_that_stays_as_large_is_warned_of(tmp_path: Path) -> None:
    table = numpy_helper.from_array(np.ones((100, 100), np.float32), "table")
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["a"], ["m"]),
        helper.make_node("Erf", ["table"], ["e"]),
        helper.make_node("Pow", ["m", "e"], ["out"]),
    ]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        [tensor("input", *_SHAPE)],
        [tensor("out", 1, 1, 100, 100)],
        table,
        weight("first", 2, 3, 3, 3),
    )
    (tmp_path / "work").mkdir()
    details = make_pass("static_ptq", {}).apply([model], Context(tmp_path / "work", images(4))).details
    (warning,) = details["warnings"]  # type: ignore[misc]
    assert "m.onnx grew to 10" in warning and "take more than int8 weights save" in warning


def test_an_old_opset_above_2_gib_is_one_clear_error(tmp_path: Path) -> None:
    with (tmp_path / "table.bin").open("wb") as stream:
        stream.truncate(2**31)  # sparse, and never read
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[2**29], data_location=TensorProto.EXTERNAL)
    table.external_data.add(key="location", value="table.bin")
    node = helper.make_node("Gather", ["table", "input"], ["out"])
    taken = helper.make_tensor_value_info("input", TensorProto.INT64, [1])
    model = save(tmp_path / "m.onnx", [node], [taken], [tensor("out", 1)], table, opset=11)
    with pytest.raises(OperatorError, match=r"opset 11, IR version 8 and 2\.00 GiB: static_ptq needs opset 13"):
        quantize([model], tmp_path / "work")


def test_external_data_are_found_and_the_source_directory_stays_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = whole(source / "m.onnx")
    image = images(1, seed=9)[0]
    expected = run([model], image)
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = sorted((file.name, file.stat().st_mtime_ns) for file in source.iterdir())
    (quantized,) = quantize([model], tmp_path / "work")
    assert sorted((file.name, file.stat().st_mtime_ns) for file in source.iterdir()) == before
    assert close(run([quantized], image), expected)


def test_parts_are_quantized_each_with_what_the_part_before_makes(tmp_path: Path) -> None:
    head = save(
        tmp_path / "head.onnx",
        _HEAD,
        [tensor("input", *_SHAPE)],
        [tensor("cut", 1, 8, 12, 12)],
        weight("first", 8, 3, 3, 3),
    )
    tail = save(
        tmp_path / "tail.onnx",
        _TAIL,
        [tensor("cut", 1, 8, 12, 12)],
        [tensor("scores", 1, 8, 12, 12)],
        weight("second", 8, 8, 3, 3),
    )
    parts = quantize([head, tail], tmp_path / "work")
    image = images(1, seed=9)[0]
    assert len(parts) == 2 and len(set(parts)) == 2
    assert close(run(parts, image), run([head, tail], image))
    assert close(run(parts, image), run([whole(tmp_path / "m.onnx")], image))


def test_what_onnx_runtime_warns_of_in_a_model_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A weight that is listed among the inputs as well, as old exporters did."""
    model = onnx.load(whole(tmp_path / "m.onnx"))
    stored = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(stored.name, stored.data_type, list(stored.dims)))
    onnx.save(model, tmp_path / "listed.onnx")
    quantize([tmp_path / "listed.onnx"], tmp_path / "work")
    assert capfd.readouterr().err == ""


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    (quantized,) = quantize([whole(tmp_path / "m.onnx")], tmp_path / "one")
    with pytest.raises(PassRefusal, match=r"quantized already .*QuantizeLinear"):
        quantize([quantized], tmp_path / "two")


def text_encoder(path: Path) -> Path:
    """Tokens and a mask of free length into numbers: two inputs, one of them read at the end."""
    random = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("table", (50, 16)), ("first", (16, 32)), ("second", (32, 16)))
    ]
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("MatMul", ["rows", "first"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["narrow"]),
        helper.make_node("Mul", ["narrow", "mask"], ["out"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "T"]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", "T", 1]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", "T", 16])]
    graph = helper.make_graph(nodes, "text", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_of_several_inputs_is_calibrated_with_all_of_them(tmp_path: Path) -> None:
    random, model = np.random.default_rng(3), text_encoder(tmp_path / "m.onnx")
    # Texts of several lengths, as a user brings them.
    texts = [
        (random.integers(0, 50, (1, length)), random.integers(0, 2, (1, length, 1)).astype(np.float32))
        for length in (5, 9, 12, 7)
    ]
    step = make_pass("static_ptq", {})
    (tmp_path / "work").mkdir()
    (quantized,) = step.apply([model], Context(tmp_path / "work", texts)).parts
    before, after = (onnxruntime.InferenceSession(str(path)) for path in (model, quantized))
    for tokens, mask in texts:
        feed = {"tokens": tokens, "mask": mask}
        expected, made = before.run(None, feed)[0], after.run(None, feed)[0]
        assert np.linalg.norm(expected - made) < 0.03 * np.linalg.norm(expected)
    assert quantized.stat().st_size < 0.75 * model.stat().st_size
    (tmp_path / "less").mkdir()
    with pytest.raises(OperatorError, match=r"an array for each input of the model \(tokens, mask\).* have 1"):
        step.apply([model], Context(tmp_path / "less", [tokens for tokens, _ in texts]))


def test_control_flow_around_everything_is_the_reason_why_nothing_is_quantized(tmp_path: Path) -> None:
    """Convolutions in the branches of an If, as a model for two sample rates has them."""
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    branches = [
        helper.make_graph(
            [helper.make_node("Conv", ["input", "w"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
            [weight],
        )
        for name in ("low", "high")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["loud"], to=TensorProto.BOOL),
        helper.make_node("If", ["loud"], ["out"], then_branch=branches[0], else_branch=branches[1]),
    ]
    model = save(tmp_path / "m.onnx", nodes, [tensor("input", *_SHAPE)], [tensor("out", *([None] * len(_SHAPE)))])
    said = "what onnxruntime could quantize is inside If, whose bodies it leaves as they are"
    with pytest.raises(PassRefusal, match=said):
        quantize([model], tmp_path / "work")
    assert said in look_ahead(analyse(model)).refusals["static_ptq"]


def test_nothing_to_quantize_is_a_refusal(tmp_path: Path) -> None:
    node = helper.make_node("Erf", ["input"], ["out"])
    model = save(tmp_path / "m.onnx", [node], [tensor("input", *_SHAPE)], [tensor("out", *_SHAPE)])
    with pytest.raises(PassRefusal, match="no operator that onnxruntime quantizes among: Erf"):
        quantize([model], tmp_path / "work")


def test_calibration_inputs_of_another_shape_are_one_line(tmp_path: Path) -> None:
    model = whole(tmp_path / "m.onnx")
    wrong = [np.zeros((1, 5, 12, 12), np.float32)]
    with pytest.raises(OperatorError, match=r"could not quantize the model: .*dimensions") as caught:
        make_pass("static_ptq", {}).apply([model], Context(tmp_path, wrong))
    assert "\n" not in str(caught.value)


def test_without_calibration_inputs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="needs calibration inputs"):
        make_pass("static_ptq", {}).apply([whole(tmp_path / "m.onnx")], Context(tmp_path))


def test_options_are_resolved_and_name_the_tools_release() -> None:
    plain = make_pass("static_ptq", {}).options()
    assert plain["tool"] == "onnxruntime" and plain["reduce_range"] in (True, False)
    other = make_pass("static_ptq", {"tool": "neural-compressor"}).options()
    versions = other["tool_versions"]
    assert isinstance(versions, dict)
    assert versions["neural-compressor"] == "2.6" and len(versions["pins_sha256"]) == 64


def test_an_unknown_tool_names_those_that_there_are() -> None:
    with pytest.raises(OperatorError, match="'onnxruntime' or 'neural-compressor'"):
        make_pass("static_ptq", {"tool": "tensorrt"})
