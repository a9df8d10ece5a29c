"""Models that the quantizing tool fails on, or gets wrong, as they are written: prepared for, or one sentence."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from catalog.artifact_details import output_distance
from runner.artifacts.calibration import Calibration, read_calibration
from runner.graph.analysis import analyse
from runner.operators import static_ptq
from runner.operators.base import PassRefusal
from runner.operators.quantizers import onnx_runtime
from runner.operators.quantizers.normal_form import QUANTIZABLE
from runner.operators.registry import look_ahead
from tests.foreign.networks import Array, Network, applied, outputs, relative_error, samples

_FORMATS = ("qdq", "qoperator")


def _error_of(model: Path, shape: Sequence[int], options: str = "", kind: type[np.generic] = np.float32) -> float:
    """Quantize a model; return the greatest relative error of an output on inputs that it was not calibrated with."""
    calibration = samples(*shape)
    calibration = type(calibration)([array.astype(kind) for array in calibration.arrays], calibration.source)
    folder, _ = applied(f"static_ptq: {{{options}}}" if options else "static_ptq", model, calibration)
    feed: dict[str, Array] = {"x": np.random.default_rng(5).normal(size=shape).astype(kind)}
    expected, actual = outputs(model, feed), outputs(folder / "model.onnx", feed)
    return max(relative_error(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize("format_", _FORMATS)
@pytest.mark.parametrize("bias", [(), (1,), (1, 1), (1, 32), (4, 1), (4, 32)])
@pytest.mark.parametrize("factors", [{}, {"alpha": 0.5, "beta": 3.0, "transB": 1}])
def test_a_bias_of_every_shape_is_added_as_the_model_adds_it(
    tmp_path: Path, format_: str, bias: tuple[int, ...], factors: dict[str, Any]
) -> None:
    network = Network(opset=13)
    weight = network.normal(32, 64) if factors else network.normal(64, 32)
    bias_name = network.weight(np.random.default_rng(2).normal(size=bias) * 2)
    hidden = network.add("Relu", network.add("Gemm", network.input("x", [4, 64]), weight, bias_name, **factors))
    network.output(network.add("MatMul", hidden, network.normal(32, 10), out="y"), [4, 10])
    model = network.save(tmp_path / "bias.onnx")
    assert _error_of(model, (4, 64), f"format: {format_}") < 0.05


@pytest.mark.parametrize("format_", _FORMATS)
@pytest.mark.parametrize("named", [True, False])
def test_a_bias_that_several_layers_share_is_scaled_for_each(tmp_path: Path, format_: str, named: bool) -> None:
    network = Network(opset=13)
    current, bias = network.input("x", [1, 8, 8, 8]), network.weight(np.linspace(-1, 1, 8))
    for spread in (0.02, 0.3, 3.0):
        kernel = network.weight(np.random.default_rng(4).normal(size=(8, 8, 3, 3)) * spread)
        current = network.add("Relu", network.conv(current, 8, weights=(kernel, bias)))
    network.output(network.add("GlobalAveragePool", current, out="y"), [1, 8, 1, 1])
    for node in network.nodes if not named else ():
        node.name = ""
    assert _error_of(network.save(tmp_path / "shared.onnx"), (1, 8, 8, 8), f"format: {format_}") < 0.03


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
def test_a_model_of_halves_is_quantized_at_an_opset_that_scales_halves(tmp_path: Path, opset: int) -> None:
    network = Network(opset=opset)
    current = network.residual(network.input("x", [1, 8, 8, 8], TensorProto.FLOAT16), 8, 3)
    network.output(network.add("GlobalAveragePool", current, out="y"), [1, 8, 1, 1], TensorProto.FLOAT16)
    for tensor in network.initializers:
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        tensor.CopyFrom(half)
    model = network.save(tmp_path / "halves.onnx")
    with pytest.raises(PassRefusal, match="float16, for which there are no integer operators; declare `format: qdq`"):
        _error_of(model, (1, 8, 8, 8), "format: qoperator", kind=np.float16)
    assert _error_of(model, (1, 8, 8, 8), kind=np.float16) < 0.05


@pytest.mark.parametrize("opset", [10, 12, 17])
@pytest.mark.parametrize("nested", [False, True])
def test_functions_are_inlined_and_what_they_hold_is_quantized(tmp_path: Path, opset: int, nested: bool) -> None:
    network = Network(opset=opset, local=1)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    layer = [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Relu", ["m"], ["b"])]
    network.functions.append(helper.make_function("local", "Layer", ["a", "w"], ["b"], layer, imports))
    two = [helper.make_node("Layer", [name, "w"], [result], domain="local") for name, result in ("ac", "cb")]
    network.functions.append(helper.make_function("local", "Two", ["a", "w"], ["b"], two, imports))
    current = network.input("x", [1, 64])
    for _ in range(3):
        current = network.add("Two" if nested else "Layer", current, network.normal(64, 64), domain="local")
    network.output(network.add("Identity", current, out="y"), [1, 64])
    model = network.save(tmp_path / "functions.onnx")
    assert _error_of(model, (1, 64)) < 0.1
    made = onnx.load(tmp_path / "functions-made" / "model.onnx")
    assert sum(node.op_type == "MatMul" for node in made.graph.node) == (6 if nested else 3)


@pytest.mark.parametrize("opset", [12, 17])
def test_functions_of_another_opset_are_inlined_where_their_operators_are_the_same(tmp_path: Path, opset: int) -> None:
    network = Network(opset=opset, local=1)
    layer = [helper.make_node("MatMul", ["a", "w"], ["b"])]
    imports = [helper.make_opsetid("", opset - 1)]
    network.functions.append(helper.make_function("local", "Layer", ["a", "w"], ["b"], layer, imports))
    current = network.add("Layer", network.input("x", [1, 16]), network.normal(16, 16), domain="local")
    network.output(network.add("Relu", current, out="y"), [1, 16])
    assert _error_of(network.save(tmp_path / "functions.onnx"), (1, 16)) < 0.05


@pytest.mark.parametrize("place", ["inner", "initializer", "output"])
@pytest.mark.parametrize(
    "name", ["x_scale", "w_scale", "w_quantized", "b0", "b_quantized_scale", "r_zero_point", "x_QuantizeLinear_Output",
             "w_DequantizeLinear_Output", "r_ReduceMax"],
)  # fmt: skip
def test_a_tensor_with_a_name_that_the_tool_gives_is_kept_apart(tmp_path: Path, place: str, name: str) -> None:
    network = Network(opset=13)
    kernel, bias = network.normal(8, 8, 3, 3, name="w"), network.normal(8, name="b")
    first = network.conv(network.input("x", [1, 8, 8, 8]), 8, weights=(kernel, bias), out=name * (place == "inner"))
    if place == "initializer":
        first = network.add("Add", first, network.normal(8, 1, 1, name=name))
    current = network.conv(network.add("Relu", first, out="r"), 8, weights=(network.normal(8, 8, 3, 3), bias))
    if place == "output":
        network.output(network.conv(current, 8, out=name), [1, 8, 8, 8])
    network.output(network.add("GlobalAveragePool", current, out="y"), [1, 8, 1, 1])
    assert _error_of(network.save(tmp_path / "names.onnx"), (1, 8, 8, 8)) < 0.05


@pytest.mark.parametrize("group", [1, 2, 4])
def test_grouped_transposed_convolutions_keep_their_bias(tmp_path: Path, group: int) -> None:
    network = Network(opset=13)
    hidden = network.add("Relu", network.conv(network.input("x", [1, 8, 8, 8]), 8))
    weights = network.normal(8, 12 // group, 3, 3), network.weight(np.linspace(-2, 2, 12))
    result = network.add("ConvTranspose", hidden, *weights, out="y", group=group, strides=[2, 2], kernel_shape=[3, 3])
    network.output(result, [1, 12, 17, 17])
    assert _error_of(network.save(tmp_path / "transposed.onnx"), (1, 8, 8, 8)) < 0.03


@pytest.mark.parametrize("format_", _FORMATS)
def test_biases_in_constant_nodes_are_quantized(tmp_path: Path, format_: str) -> None:
    network = Network(opset=13)
    network.output(network.residual(network.input("x", [1, 8, 8, 8]), 8, 2), [1, 8, 8, 8])
    network.in_constants()
    network.nodes[1].CopyFrom(
        helper.make_node("Constant", [], list(network.nodes[1].output), value_floats=[0.1 * k for k in range(8)])
    )
    network.outputs[0].name = network.nodes[-1].output[0]
    assert _error_of(network.save(tmp_path / "constants.onnx"), (1, 8, 8, 8), f"format: {format_}") < 0.05


def test_a_node_that_the_tool_fails_on_stays_in_floats_and_is_named(tmp_path: Path) -> None:
    network = Network(opset=13)
    hidden = network.add("Relu", network.add("MatMul", network.input("x", [1, 16]), network.normal(16, 16)))
    network.output(network.add("MatMul", hidden, network.weight(np.linspace(-1, 1, 16)), out="y"), [1])
    model = network.save(tmp_path / "vector.onnx")
    # ONNX Runtime has no integer product with a vector.
    _, manifest = applied("static_ptq: {format: qoperator}", model, samples(1, 16))
    assert manifest["did"][0]["quantized"][0]["left_in_float"] == ["MatMul_2"]
    assert manifest["did"][0]["quantized"][0]["nodes"]["QLinearMatMul"] == 1
    distance = output_distance(manifest)
    assert distance is not None and distance.relative_error is not None and distance.relative_error < 0.05


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_said_with_the_node_that_has_them(tmp_path: Path, number: float) -> None:
    network = Network(opset=13)
    weights = np.eye(8)
    weights[0, 0] = number
    hidden = network.add("MatMul", network.input("x", [1, 8]), network.weight(weights))
    network.output(network.add("Relu", hidden, out="y"), [1, 8])
    with pytest.raises(PassRefusal, match=r"nothing left to quantize: 'MatMul_0' .* not finite"):
        applied("static_ptq", network.save(tmp_path / "odd.onnx"), samples(1, 8))


_ERRORS = [IndexError("list index out of range"), KeyError("w"), AssertionError(), RecursionError("too deep")]


@pytest.mark.parametrize("error", _ERRORS)
def test_an_inner_error_of_the_tool_is_a_refusal_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    network = Network(opset=13)
    network.output(network.add("MatMul", network.input("x", [1, 8]), network.normal(8, 8), out="y"), [1, 8])

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("onnxruntime.quantization"), "quantize_static", fail)
    with pytest.raises(PassRefusal) as refusal:
        applied("static_ptq", network.save(tmp_path / "one.onnx"), samples(1, 8))
    assert f"{type(error).__name__}: " in str(refusal.value)
    assert str(refusal.value).endswith("for this model, or export it at another opset")


def test_a_result_that_the_next_pass_would_read_runs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(opset=13)
    network.output(network.add("MatMul", network.input("x", [1, 8]), network.normal(8, 8), out="y"), [1, 8])
    model = network.save(tmp_path / "one.onnx")

    def damaged(source: Path, target: Path, *arguments: object, **options: object) -> None:
        graph = onnx.load(source)
        graph.graph.node[0].op_type = "NoSuchOperator"
        onnx.save(graph, target)

    monkeypatch.setattr(onnx_runtime, "quantize", damaged)
    with pytest.raises(PassRefusal, match=r"made of the model does not run: .*NoSuchOperator"):
        applied("static_ptq, early_exit", model, samples(1, 8))


@pytest.mark.parametrize("inside", ["graph", "body", "function"])
@pytest.mark.parametrize(
    "op_type", ["MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "GatherBlockQuantized",
                "MatMulBnb4", "QAttention", "QOrderedMatMul", "MatMulFpQ4", "QLinearWhere"],
)  # fmt: skip
def test_models_that_other_makers_quantized_are_recognized(tmp_path: Path, op_type: str, inside: str) -> None:
    network = Network(com_microsoft=1, local=1)
    source, weight = network.input("x", [1, 32]), network.weight(np.zeros((32, 1, 16), np.uint8))
    node = helper.make_node(op_type, [source, weight], ["inner"], domain="com.microsoft")
    if inside == "graph":
        network.nodes.append(node)
    elif inside == "body":
        body = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])
        condition = network.weight(np.array(True))
        network.nodes.append(helper.make_node("If", [condition], ["inner"], then_branch=body, else_branch=body))
    else:
        imports = [helper.make_opsetid("com.microsoft", 1)]
        network.functions.append(helper.make_function("local", "F", [source, weight], ["inner"], [node], imports))
        network.nodes.append(helper.make_node("F", [source, weight], ["inner"], domain="local"))
    network.output(network.add("Add", "inner", source, out="y"), [1, 32])
    refusal = look_ahead(analyse(network.save(tmp_path / "quantized.onnx"))).quantization_refusal
    assert refusal is not None and f"quantized already ({2 if inside == 'body' else 1} {op_type})" in refusal


@pytest.mark.parametrize("format_", _FORMATS)
def test_a_model_too_large_for_one_message_is_calibrated_and_quantized_with_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    network = Network(opset=13)
    hidden = network.add("Relu", network.add("MatMul", network.input("x", [1, 64]), network.normal(64, 128)))
    network.output(network.add("MatMul", hidden, network.normal(128, 64), out="y"), [1, 64])
    model = tmp_path / "large.onnx"
    onnx.save(network.model(), model, save_as_external_data=True, location="large.bin", size_threshold=0)
    save = onnx.ModelProto.SerializeToString

    def limited(message: onnx.ModelProto, *arguments: object, **options: object) -> bytes:
        """Serialize as protobuf does, with a limit that the float model passes."""
        content = save(message, *arguments, **options)
        if len(content) > 50_000:
            raise ValueError("Failed to serialize proto")
        return bytes(content)

    monkeypatch.setattr(onnx.ModelProto, "SerializeToString", limited)
    monkeypatch.setattr(static_ptq, "_EXTERNAL_DATA_BYTES", 40_000)
    assert _error_of(model, (1, 64), f"format: {format_}") < 0.05


def test_a_model_without_the_domain_of_onnx_has_nothing_to_quantize(tmp_path: Path) -> None:
    network = Network(ai_onnx_ml=3)
    del network.opsets[0]
    scaled = network.add("Scaler", network.input("x", [1, 4]), domain="ai.onnx.ml", offset=[0.0] * 4, scale=[1.0] * 4)
    network.add("LinearRegressor", scaled, out="y", domain="ai.onnx.ml", coefficients=[1.0] * 4, intercepts=[0.0])
    network.output("y", [1, 1])
    model = network.save(tmp_path / "learned.onnx")
    said = "static_ptq found no operator that onnxruntime quantizes among: LinearRegressor, Scaler"
    assert look_ahead(analyse(model)).quantization_refusal == said
    with pytest.raises(PassRefusal, match=said):
        applied("static_ptq", model, samples(1, 4))


def test_a_model_in_the_layout_of_one_cpu_is_refused_before_the_tool_fails_on_it(tmp_path: Path) -> None:
    network = Network()
    network.output(network.residual(network.input("x", [1, 16, 8, 8]), 16, 2), [1, 16, 8, 8])
    model, saved = network.save(tmp_path / "model.onnx"), tmp_path / "saved.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(saved)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    if "com.microsoft.nchwc" not in {node.domain for node in onnx.load(saved).graph.node}:
        pytest.skip("the engine has no blocked layout for this CPU")
    said = look_ahead(analyse(saved)).refusals["static_ptq"]
    assert "of com.microsoft.nchwc), which no quantizer reads; take the model from before that" in said
    with pytest.raises(PassRefusal, match="no quantizer reads"):
        applied("static_ptq", saved, samples(1, 16, 8, 8))


def test_a_model_of_whole_numbers_is_refused_by_the_analysis_as_by_the_pass(tmp_path: Path) -> None:
    network = Network()
    added = network.add("Add", network.input("x", [1, 8], TensorProto.INT32), network.weight(np.ones(8, np.int32)))
    network.output(network.add("Add", added, added, out="y"), [1, 8], TensorProto.INT32)
    model = network.save(tmp_path / "model.onnx")
    assert "neither inputs nor weights of this model are such" in look_ahead(analyse(model)).refusals["static_ptq"]
    with pytest.raises(PassRefusal, match="quantizes real numbers"):
        applied("static_ptq", model, Calibration([np.ones((1, 8), np.int32)]))


def test_what_can_be_quantized_is_what_the_library_registers() -> None:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    assert {*QDQRegistry, *QLinearOpsRegistry} == QUANTIZABLE


def test_nodes_stay_sorted_by_what_bodies_capture(tmp_path: Path) -> None:
    network = Network()
    source, is_doubled = network.input("x", [1, 16]), network.input("is_doubled", [1], TensorProto.BOOL)
    inner = network.add("MatMul", source, network.normal(16, 16))
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, 16])
    bodies = {
        f"{name}_branch": helper.make_graph([helper.make_node("Add", [inner, other], ["row"])], name, [], [row])
        for name, other in (("then", inner), ("else", source))
    }
    network.add("MatMul", network.add("If", is_doubled, **bodies), network.normal(16, 4), out="y")
    network.output("y", [1, 4])
    model = network.save(tmp_path / "body.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((8, 16), np.float32), is_doubled=np.array([True]))
    folder, _ = applied("static_ptq", model, read_calibration(tmp_path / "data.npz", model))
    feed = {"x": np.ones((1, 16), np.float32), "is_doubled": np.array([False])}
    assert relative_error(outputs(model, feed)["y"], outputs(folder / "model.onnx", feed)["y"]) < 0.1
