"""What ONNX allows and few files have: outputs that are inputs, sparse weights, layers that are functions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.artifacts.calibration import Calibration
from runner.graph.analysis import analyse
from runner.operators.registry import look_ahead
from tests.foreign.networks import Network, applied, outputs, relative_error, same_bits, samples

FEED = {"x": np.random.default_rng(2).normal(size=(1, 16)).astype(np.float32)}


def _perceptrons(path: Path, *, passed_on: bool = False, sparse: bool = False) -> Path:
    network = Network()
    source = network.input("x", [1, 16])
    weights = "sparse" if sparse else network.normal(16, 16)
    current = network.perceptrons(network.add("MatMul", source, weights), 16, 4)
    network.add("MatMul", current, network.normal(16, 3), out="y")
    if passed_on:
        network.output(source, [1, 16])
    network.output("y", [1, 3])
    model = network.model()
    if sparse:
        values = helper.make_tensor("sparse", TensorProto.FLOAT, [20], np.linspace(-1, 1, 20))
        places = helper.make_tensor("sparse_places", TensorProto.INT64, [20], range(3, 243, 12))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [16, 16]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("passed_on", "static_ptq, early_exit"), ("passed_on", "static_ptq"), ("sparse", "static_ptq")],
)
def test_outputs_that_are_inputs_and_sparse_weights_are_quantized(tmp_path: Path, kind: str, operator: str) -> None:
    model = _perceptrons(tmp_path / f"{kind}.onnx", **{kind: True})
    folder, _ = applied(operator, model, samples(1, 16))
    made, expected = outputs(folder / "model.onnx", FEED), outputs(model, FEED)
    assert list(made) == list(expected)
    if kind == "passed_on":
        assert made["x"].tobytes() == FEED["x"].tobytes()
    if operator == "static_ptq":
        assert relative_error(expected["y"], made["y"]) < 0.2


def test_a_file_of_ir_version_3_that_lists_no_weight_among_its_inputs_is_converted(tmp_path: Path) -> None:
    network = Network(opset=7)
    current = network.add("MatMul", network.input("x", [1, 16]), network.normal(16, 16))
    network.add("MatMul", network.add("Relu", current), network.normal(16, 16), out="y")
    network.output("y", [1, 16])
    onnx.save(network.model(ir_version=3), tmp_path / "old.onnx")
    folder, _ = applied("static_ptq", tmp_path / "old.onnx", samples(1, 16))
    expected, made = outputs(tmp_path / "old.onnx", FEED), outputs(folder / "model.onnx", FEED)
    assert relative_error(expected["y"], made["y"]) < 0.2


def test_types_that_only_a_run_shows_are_told_to_the_quantizer(tmp_path: Path) -> None:
    """ONNX infers no types behind FusedConv, and the tool leaves everything behind an unknown type in floats."""
    network = Network(com_microsoft=1)
    weights = [network.input("x", [1, 16, 8, 8]), network.normal(16, 16, 3, 3), network.normal(16)]
    attributes = {"domain": "com.microsoft", "activation": "Relu", "pads": [1] * 4}
    current = network.conv(network.conv(network.add("FusedConv", *weights, **attributes), 16), 16)
    network.add("GlobalAveragePool", current, out="y")
    network.output("y", [1, 16, 1, 1])
    model = network.save(tmp_path / "fused.onnx")
    folder, _ = applied("static_ptq", model, samples(1, 16, 8, 8))
    quantized = onnx.load(folder / "model.onnx").graph
    int8 = {tensor.name for tensor in quantized.initializer if tensor.data_type == TensorProto.INT8 and tensor.dims[1:]}
    assert len(int8) == 2


def _layers_as_functions(path: Path) -> Path:
    """Write four layers that are calls of one function, which calls another, as exporters of modules do."""
    network = Network(opset=18, my_lib=1)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.lib", 1)]
    dense = [helper.make_node("MatMul", ["a", "w"], ["product"]), helper.make_node("Relu", ["product"], ["result"])]
    layer = [
        helper.make_node("dense", ["a", "w"], ["inner"], domain="my.lib"),
        helper.make_node("MatMul", ["inner", "v"], ["outer"]),
        helper.make_node("Add", ["outer", "a"], ["result"]),
    ]
    network.functions.append(helper.make_function("my.lib", "dense", ["a", "w"], ["result"], dense, opsets))
    network.functions.append(helper.make_function("my.lib", "layer", ["a", "w", "v"], ["result"], layer, opsets))
    current = network.input("x", [1, 16])
    for _ in range(4):
        current = network.add("layer", current, network.normal(16, 32), network.normal(32, 16), domain="my.lib")
    network.add("MatMul", current, network.normal(16, 3), out="y")
    network.output("y", [1, 3])
    onnx.save(network.model(ir_version=9), path)
    return path


def test_layers_that_are_functions_repeat(tmp_path: Path) -> None:
    model = _layers_as_functions(tmp_path / "functions.onnx")
    analysis = analyse(model)
    assert [[block.name for block in run.blocks] for run in analysis.runs] == [[f"layer_{index}" for index in range(4)]]
    folder, _ = applied("early_exit", model, Calibration())
    shorter = onnx.load(model)
    shorter.graph.node[4].input[0] = shorter.graph.node[1].output[0]
    onnx.save(shorter, tmp_path / "shorter.onnx")
    assert same_bits(outputs(tmp_path / "shorter.onnx", FEED), outputs(folder / "model.onnx", FEED))


def test_a_function_without_branches_is_a_link_of_a_chain(tmp_path: Path) -> None:
    network = Network(opset=18, my_lib=1)
    dense = [helper.make_node("MatMul", ["a", "w"], ["product"]), helper.make_node("Relu", ["product"], ["result"])]
    opsets = [helper.make_opsetid("", 18)]
    network.functions.append(helper.make_function("my.lib", "dense", ["a", "w"], ["result"], dense, opsets))
    current = network.input("x", [1, 16])
    for _ in range(4):
        current = network.add("dense", current, network.normal(16, 16), domain="my.lib")
    network.output(current, [1, 16])
    onnx.save(network.model(ir_version=9), tmp_path / "chain.onnx")
    assert not analyse(tmp_path / "chain.onnx").runs


def test_a_model_in_doubles_is_refused_beforehand(tmp_path: Path) -> None:
    network = Network()
    weights = helper.make_tensor("w", TensorProto.DOUBLE, [16, 4], np.linspace(-1, 1, 64))
    network.initializers.append(weights)
    network.add("MatMul", network.input("x", [1, 16], TensorProto.DOUBLE), "w", out="y")
    network.output("y", [1, 4], TensorProto.DOUBLE)
    prospects = look_ahead(analyse(network.save(tmp_path / "doubles.onnx")))
    assert prospects.refusals["static_ptq"].endswith("the weights of this model are float64; export it in float32")
