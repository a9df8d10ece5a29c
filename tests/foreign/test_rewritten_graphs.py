"""Cuts and exits of graphs whose outputs, weights or types are written in unusual ways, checked by their numbers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.graph.analysis import analyse
from runner.operators.base import PassRefusal
from runner.operators.early_exit import choose_exit
from runner.operators.registry import look_ahead
from tests.foreign.networks import Network, applied, chained, outputs, same_bits, samples


@pytest.mark.parametrize("steps", ["shape", "slice", "size", "inner"])
def test_an_output_computed_from_shapes_alone_crosses_a_cut(tmp_path: Path, steps: str) -> None:
    network = Network()
    source = network.input("x", ["n", 16, "h", "w"])
    last = network.residual(source, 16, 4)
    inner = network.nodes[5].output[0] if steps == "inner" else source
    if steps == "size":
        network.add("Size", source, out="counts")
        network.output("counts", [], TensorProto.INT64)
    elif steps == "shape":
        network.add("Shape", source, out="counts")
        network.output("counts", [4], TensorProto.INT64)
    else:
        ends = (network.weight(np.array([2])), network.weight(np.array([4])))
        network.add("Slice", network.add("Shape", inner), *ends, out="counts")
        network.output("counts", [2], TensorProto.INT64)
    network.add("GlobalAveragePool", last, out="y")
    network.output("y", ["n", 16, 1, 1])
    model = network.save(tmp_path / "counts.onnx")
    folder, _ = applied("partition", model, samples(1, 16, 8, 12))
    for shape in ((1, 16, 8, 12), (2, 16, 20, 9)):
        feed = {"x": np.random.default_rng(3).normal(size=shape).astype(np.float32)}
        assert same_bits(outputs(model, feed), chained(folder, feed))


@pytest.mark.parametrize("steps", [["BiasGelu"], ["BiasGelu", "Mul"], ["BiasGelu", "BiasGelu"]])
def test_a_shape_value_of_unknown_type_is_computed_again_behind_the_cut(tmp_path: Path, steps: list[str]) -> None:
    network = Network(com_microsoft=1)
    source = network.input("x", ["n", 16, "h", "w"])
    last = network.residual(source, 16, 6)
    factor = network.add("Cast", network.add("Shape", source, start=2, end=3), to=TensorProto.FLOAT)
    for step in steps:
        domain = "com.microsoft" if step == "BiasGelu" else ""
        factor = network.add(step, factor, network.weight(np.full(1, 50.0)), domain=domain)
    network.add("GlobalAveragePool", network.add("Div", last, factor), out="y")
    network.output("y", ["n", 16, 1, 1])
    model = network.save(tmp_path / "factor.onnx")
    folder, _ = applied("partition", model, samples(1, 16, 8, 8))
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 8, 10)).astype(np.float32)}
    assert same_bits(outputs(model, feed), chained(folder, feed))


def test_a_dynamically_quantized_model_is_cut_at_a_float_between_its_layers(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    network = Network()
    network.add("Identity", network.perceptrons(network.input("x", [1, 16, 32]), 32, 6), out="y")
    network.output("y", [1, 16, 32])
    quantize_dynamic(network.save(tmp_path / "float.onnx"), tmp_path / "dynamic.onnx")
    cut = look_ahead(analyse(tmp_path / "dynamic.onnx")).cut
    assert cut is not None and cut.balanced
    assert [tensor.dtype for tensor in cut.tensors] == ["float32"]
    folder, manifest = applied("partition", tmp_path / "dynamic.onnx", samples(1, 16, 32))
    assert manifest["proof"]["composition"]["bit_identical"]
    feed = {"x": samples(1, 16, 32).arrays[0]}
    assert same_bits(outputs(tmp_path / "dynamic.onnx", feed), chained(folder, feed))


def _tied(tmp_path: Path, *, own: str) -> Path:
    """Write four residual blocks with one convolution's weights; `own` is what each has for itself."""
    network = Network(opset=13)
    current = network.input("x", [1, 8, 8, 8])
    kernel, bias = network.normal(8, 8, 3, 3), network.normal(8)
    for _ in range(4):
        inner = network.conv(current, 8, weights=(kernel, network.normal(8) if own == "bias" else bias))
        if own == "kernel":
            inner = network.conv(inner, 8)
        current = network.add("Relu", network.add("Add", inner, current))
    network.add("GlobalAveragePool", current, out="y")
    network.output("y", [1, 8, 1, 1])
    return network.save(tmp_path / "tied.onnx")


@pytest.mark.parametrize("own", ["nothing", "bias"])
@pytest.mark.parametrize("operator", ["early_exit", "static_ptq, early_exit"])
def test_blocks_whose_weights_the_rest_uses_are_not_skipped_before_or_after_quantization(
    tmp_path: Path, own: str, operator: str
) -> None:
    model = _tied(tmp_path, own=own)
    refusal = look_ahead(analyse(model)).exit_refusal
    assert refusal is not None and "the rest of the model uses the same weights" in refusal
    with pytest.raises(PassRefusal, match="the rest of the model uses the same weights"):
        applied(operator, model, samples(1, 8, 8, 8))


@pytest.mark.parametrize("operator", ["early_exit", "static_ptq, early_exit"])
def test_blocks_that_own_a_part_of_their_weights_are_skipped(tmp_path: Path, operator: str) -> None:
    model = _tied(tmp_path, own="kernel")
    exit_ = choose_exit(analyse(model), 2)
    assert exit_.weight_bytes == pytest.approx(2 * 8 * 8 * 9 * 4, rel=0.01)
    _, manifest = applied(operator, model, samples(1, 8, 8, 8))
    assert manifest["did"][-1]["run_length"] >= 2


def _skipped_by_hand(model: Path, entry: str, result: str, target: Path) -> Path:
    """Let every reader of `result` read `entry`; the engine drops what nothing reads."""
    graph = (copy := onnx.load(model)).graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = entry if name == result else name
    onnx.save(copy, target)
    return target


@pytest.mark.parametrize("external", [False, True])
def test_weights_in_constant_nodes_are_weights(tmp_path: Path, external: bool) -> None:
    network = Network()
    network.add("GlobalAveragePool", network.residual(network.input("x", [1, 16, 8, 8]), 16, 6), out="y")
    network.output("y", [1, 16, 1, 1])
    plain = analyse(network.save(tmp_path / "plain.onnx"))
    network.in_constants()
    model = tmp_path / "constants.onnx"
    onnx.save(network.model(), model, save_as_external_data=external, size_threshold=0, convert_attribute=external)
    analysis = analyse(model)
    assert [len(run.blocks) for run in analysis.runs] == [len(run.blocks) for run in plain.runs] == [6]
    assert analysis.exits[1].saved_bytes == pytest.approx(plain.exits[1].saved_bytes, rel=0.05)
    assert look_ahead(analysis).quantizable == look_ahead(plain).quantizable
    folder, manifest = applied("early_exit", model, samples(1, 16, 8, 8))
    did = manifest["did"][0]
    by_hand = _skipped_by_hand(tmp_path / "plain.onnx", did["entry"], did["result"], tmp_path / "by_hand.onnx")
    feed = {"x": samples(1, 16, 8, 8).arrays[0]}
    np.testing.assert_allclose(
        outputs(folder / "model.onnx", feed)["y"], outputs(by_hand, feed)["y"], rtol=1e-5, atol=1e-7
    )


def test_a_weight_in_a_constant_node_that_two_blocks_share_counts_once(tmp_path: Path) -> None:
    network = Network()
    current = network.input("x", [1, 8, 8, 8])
    network.normal(8, 8, 3, 3)
    network.nodes.append(helper.make_node("Constant", [], ["shared"], value=network.initializers.pop()))
    for _ in range(4):
        current = network.add("Relu", network.add("Add", network.conv(current, 8, weights=("shared",)), current))
    network.output(network.add("GlobalAveragePool", current, out="y"), [1, 8, 1, 1])
    analysis = analyse(network.save(tmp_path / "shared.onnx"))
    assert "same weights" in (look_ahead(analysis).exit_refusal or "")
    # Both parts of a cut need the whole of it.
    cut = analysis.best_cut()
    assert cut is not None and cut.head_bytes + cut.tail_bytes > analysis.size_bytes + 8 * 8 * 9 * 3
