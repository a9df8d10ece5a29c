"""What files declare of their inputs, inner tensors and outputs, where exporters differ or are wrong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.graph.analysis import analyse
from runner.graph.shapes import infer_types
from runner.subjects.model_interface import read_inputs
from tests.foreign.networks import Network, applied, chained, outputs, same_bits, samples


def _residual(folder: Path, *sizes: int | str, name: str = "x") -> Path:
    network = Network()
    last = network.residual(network.input(name, [*sizes]), 16, 4)
    network.add("GlobalAveragePool", last, out="y")
    network.output("y", [sizes[0], 16, 1, 1])
    return network.save(folder / "residual.onnx")


@pytest.mark.parametrize("free", [-1, 0, -7, "", "?", "unk__12", "batch"])
def test_every_way_to_write_a_free_dimension_is_read_alike(tmp_path: Path, free: int | str) -> None:
    path = _residual(tmp_path, free, 16, 8, 8)
    (model_input,) = read_inputs(path)
    assert model_input.shape == (None, 16, 8, 8)
    analysis = analyse(path)
    assert analysis.inputs[0].shape is not None
    assert isinstance(analysis.inputs[0].shape[0], str)
    assert analysis.best_cut() is not None
    assert all(cut.crossing_bytes is None for cut in analysis.cuts)
    assert {exit_.entry.shape for exit_ in analysis.exits} == {analysis.inputs[0].shape}


@pytest.mark.parametrize("free", [-1, "?", "unk__12"])
def test_a_model_with_free_dimensions_is_cut_bit_by_bit(tmp_path: Path, free: int | str) -> None:
    path = _residual(tmp_path, free, 16, free, free)
    folder, _ = applied("partition", path, samples(1, 16, 8, 8))
    feed = {"x": np.random.default_rng(3).normal(size=(2, 16, 12, 9)).astype(np.float32)}
    assert same_bits(outputs(path, feed), chained(folder, feed))


def test_a_nameless_dimension_of_two_inputs_is_not_one_size() -> None:
    network = Network()
    network.add("Neg", network.input("a", ["?", 3]), out="one")
    network.add("Neg", network.input("b", ["?", 3]), out="other")
    network.output("one", ["?", 3])
    network.output("other", ["?", 3])
    types = infer_types(network.model())
    assert types["one"].dims == ("a.0", 3)
    assert types["other"].dims == ("b.0", 3)
    assert infer_types(network.model(), sizes={"a.0": 5})["one"].dims == (5, 3)


def test_a_declaration_that_inference_contradicts_does_not_count() -> None:
    network = Network()
    network.add("Neg", network.add("Relu", network.input("x", [2, 3]), out="inner"), out="y")
    network.output("y", [4, 4, 4])
    model = network.model()
    model.graph.value_info.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, [7, 9]))
    types = infer_types(model)
    assert types["inner"].dims == types["y"].dims == (2, 3)


def test_a_declaration_that_says_more_than_inference_counts() -> None:
    network = Network(com_microsoft=1)
    network.add("Neg", network.add("Mystery", network.input("x", [2, 3]), out="inner", domain="com.microsoft"), out="y")
    network.output("y", ["n", 3])
    model = network.model()
    model.graph.value_info.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, [6, 3]))
    assert infer_types(model)["y"].dims == (6, 3)


def test_nodes_out_of_order_are_sorted_also_within_bodies(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Neg", ["inner"], ["out"]), helper.make_node("Relu", ["x"], ["inner"])],
        "body", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3])],
    )  # fmt: skip
    network = Network()
    network.input("x", [2, 3])
    network.add("Neg", "y", out="z")
    network.add("If", network.weight(np.array(True)), out="y", then_branch=body, else_branch=body)
    network.output("z", [2, 3])
    path = network.save(tmp_path / "if.onnx")
    assert analyse(path).control_flow == ("If 'If_1'",)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Neg", "If"]
