"""Models that draw random numbers: exits and cuts are compared with seeds, and the nodes are named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.artifacts.calibration import Calibration
from runner.graph.analysis import analyse
from runner.operators.base import PassRefusal
from runner.operators.partition import choose_cut
from tests.foreign.networks import Network, applied, chained, outputs, same_bits, samples

MAP = [1, 16, 8, 8]


def _noisy(op_type: str, *, seed: float | None = None) -> Network:
    network = Network()
    current = network.add("Relu", network.conv(network.input("x", MAP), 16))
    seeds = {} if seed is None else {"seed": seed}
    noise = network.add(op_type, network.add("Sigmoid", current), **seeds)
    current = network.add("Add", current, noise)
    for _ in range(5):
        inner = network.conv(network.add("Relu", network.conv(current, 16)), 16)
        current = network.add("Relu", network.add("Add", inner, current))
    network.add("ReduceMean", current, axes=[2, 3], keepdims=0, out="y")
    network.output("y", [1, 16])
    return network


def _looped() -> Network:
    """Draw in a loop that depends on nothing, once for the first and the last block."""
    network = Network()
    nodes = [helper.make_node("RandomNormal", [], ["noise"], shape=MAP), helper.make_node("Identity", ["go"], ["on"])]
    nodes.append(helper.make_node("Add", ["taken", "noise"], ["given"]))
    inputs = [helper.make_tensor_value_info("round", TensorProto.INT64, [])]
    inputs += [helper.make_tensor_value_info(name, kind, None) for name, kind in (("go", 9), ("taken", 1))]
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("on", 9), ("given", 1))]
    body = helper.make_graph(nodes, "body", inputs, results)
    zeros = network.weight(np.zeros(MAP))
    noise = network.add("Loop", network.weight(np.array(2)), network.weight(np.array(True)), zeros, body=body)
    current = network.add("Add", network.conv(network.input("x", MAP), 16), noise)
    for _ in range(5):
        current = network.add("Add", network.conv(network.add("Relu", current), 16), current)
    network.add("ReduceMean", network.add("Mul", current, noise), axes=[2, 3], keepdims=0, out="y")
    network.output("y", [1, 16])
    return network


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
@pytest.mark.parametrize("seed", [None, 3.0])
def test_parts_and_exits_of_a_random_model_are_compared_with_seeds(
    tmp_path: Path, op_type: str, seed: float | None
) -> None:
    path = _noisy(op_type, seed=seed).save(tmp_path / "m.onnx")
    label = f"{op_type} '{op_type}_3'"
    assert analyse(path).random_nodes == (label,)
    folder, manifest = applied("static_ptq, early_exit, partition", path, samples(*MAP))
    proof = manifest["proof"]
    assert proof["random"] == [label]
    assert proof["early_exit"]["bit_identical"] and proof["composition"]["bit_identical"]
    assert proof["composition"]["extremes"] == 0
    # The seeds are those of the copies that were compared, and not of what is used.
    seeds = [
        attribute.f
        for node in onnx.load(folder / "head.onnx").graph.node
        for attribute in node.attribute
        if attribute.name == "seed"
    ]
    assert seeds == ([] if seed is None else [seed])


def test_what_draws_inside_a_loop_draws_once(tmp_path: Path) -> None:
    path = _looped().save(tmp_path / "m.onnx")
    folder, manifest = applied("partition: {cut: any}", path, Calibration())
    assert manifest["proof"]["random"] == ["Loop 'Loop_0'"]
    assert manifest["proof"]["composition"]["bit_identical"]
    kinds = [[node.op_type for node in onnx.load(folder / f"{part}.onnx").graph.node] for part in ("head", "tail")]
    assert sum(nodes.count("Loop") for nodes in kinds) == 1


def _dropping(training: bool) -> Network:
    """Build residual perceptrons with a Dropout behind each."""
    network = Network()
    current = network.add("Relu", network.add("MatMul", network.input("x", [4, 16]), network.normal(16, 16)))
    for _ in range(5):
        mode = network.weight(np.array(training))
        inner = network.add("Relu", network.add("MatMul", current, network.normal(16, 16)))
        dropped = network.add("Dropout", inner, network.weight(np.float32(0.5)), mode)
        current = network.add("Add", dropped, current)
    network.add("ReduceMean", current, axes=[1], keepdims=0, out="y")
    network.output("y", [4])
    return network


@pytest.mark.parametrize("training", [True, False])
def test_no_cut_wakes_a_dropout_that_the_engine_drops(tmp_path: Path, training: bool) -> None:
    """ONNX Runtime drops a Dropout behind another node, and lets it draw where it reads the input of a part."""
    path = _dropping(training).save(tmp_path / "m.onnx")
    assert len(analyse(path).random_nodes) == 5 * training
    folder, manifest = applied("partition: {cut: any}", path, samples(4, 16))
    assert manifest["proof"]["composition"]["bit_identical"]
    feed = {"x": samples(4, 16).arrays[0]}
    assert same_bits(outputs(path, feed), chained(folder, feed))


def test_a_model_in_which_every_cut_would_wake_a_dropout_is_refused_by_its_name(tmp_path: Path) -> None:
    network = Network()
    current = network.input("x", [4, 16])
    for _ in range(3):
        product = network.add("MatMul", current, network.normal(16, 16))
        current = network.add("Dropout", product, network.weight(np.float32(0.5)), network.weight(np.array(True)))
    network.add("Neg", current, out="y")
    network.output("y", [4, 16])
    analysis = analyse(network.save(tmp_path / "m.onnx"))
    with pytest.raises(PassRefusal, match=r"Dropout 'Dropout_1', Dropout 'Dropout_3', Dropout 'Dropout_5' may train"):
        choose_cut(analysis)
