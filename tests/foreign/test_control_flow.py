"""Exits and cuts of models with If, Loop and Scan around, between and inside blocks; refusals name the nodes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.graph.analysis import analyse
from runner.graph.structure import infinite_tensors
from runner.operators.base import Context, PassRefusal
from runner.operators.early_exit import choose_exit
from runner.operators.partition import choose_cut
from runner.operators.registry import make_pass
from tests.foreign.networks import Network, applied, chained, outputs, relative_error, same_bits, samples

MAP = [1, 16, 8, 8]
SHAPE = (1, 16, 8, 8)
Step = Callable[[Network, str], str]


def _value(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _branch(network: Network, op_type: str, *reads: str) -> onnx.GraphProto:
    """Build the body of one node that reads tensors from outside."""
    out = f"b{len(network.nodes)}_{op_type}"
    return helper.make_graph(
        [helper.make_node(op_type, reads, [out])], op_type, [], [_value(out, TensorProto.FLOAT, None)]
    )


def _condition(network: Network, source: str) -> str:
    mean = network.add("ReduceMean", source, keepdims=0)
    return network.add("Greater", mean, network.weight(np.float32(0)))


def _if(network: Network, *reads: str, condition: str = "", ops: tuple[str, str] = ("Abs", "Neg")) -> str:
    condition = condition or _condition(network, reads[0])
    then_branch, else_branch = (_branch(network, op_type, *reads) for op_type in ops)
    return network.add("If", condition, then_branch=then_branch, else_branch=else_branch)


def _loop(network: Network, source: str) -> str:
    """Halve and bend a tensor three times."""
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("Mul", ["taken", "half"], ["halved"]),
        helper.make_node("Sin", ["halved"], ["given"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    inputs = [_value("round", TensorProto.INT64, []), _value("go", TensorProto.BOOL, [])]
    inputs.append(_value("taken", TensorProto.FLOAT, None))
    body = helper.make_graph(
        nodes, "body", inputs, [_value("on", TensorProto.BOOL, []), _value("given", TensorProto.FLOAT, None)], [half]
    )
    return network.add("Loop", network.weight(np.array(3)), network.weight(np.array(True)), source, body=body)


def _scan(network: Network, source: str) -> str:
    """Sum along the first axis."""
    nodes = [helper.make_node("Add", ["before", "row"], ["sum"]), helper.make_node("Identity", ["sum"], ["shown"])]
    row = [10]
    inputs = [_value(name, TensorProto.FLOAT, row) for name in ("before", "row")]
    body = helper.make_graph(nodes, "body", inputs, [_value(name, TensorProto.FLOAT, row) for name in ("sum", "shown")])
    network.nodes.append(
        helper.make_node(
            "Scan", [network.weight(np.zeros(10)), source], ["last", "sums"], name="Scan", body=body, num_scan_inputs=1
        )
    )
    return "sums"


def _unchanged(_network: Network, current: str) -> str:
    return current


def network_with(
    *, first: Step = _unchanged, between: Step = _unchanged, features: Step = _unchanged, last: Step = _unchanged
) -> Network:
    """Build six residual blocks with a step before the first, after every one, behind the last and behind the head."""
    network = Network()
    current = network.add("Relu", network.conv(first(network, network.input("x", MAP)), 16))
    for _ in range(6):
        inner = network.conv(network.add("Relu", network.conv(current, 16)), 16)
        current = between(network, network.add("Relu", network.add("Add", inner, current)))
    pooled = network.add("Flatten", network.add("GlobalAveragePool", features(network, current)))
    scores = network.add("Gemm", pooled, network.normal(16, 10), network.normal(10))
    network.add("Identity", last(network, scores), out="y")
    network.output("y", [1, 10])
    return network


def _early(network: Network, current: str) -> str:
    """Read what the first convolution gives as well, from inside the bodies."""
    stem = next(node.output[0] for node in network.nodes if node.op_type == "Relu")
    return _if(network, current, stem, ops=("Add", "Sub"))


def _of_input(network: Network, current: str) -> str:
    return _if(network, current, condition=_condition(network, "x"))


def _settled(network: Network, current: str) -> str:
    """Choose a branch by a constant: ONNX Runtime replaces the If by it."""
    return _if(network, current, condition=network.weight(np.array(True)), ops=("Relu", "Neg"))


MODELS: dict[str, Network] = {
    "if on the input": network_with(first=_if),
    "if on the scores": network_with(last=_if),
    "if of known condition": network_with(last=_settled),
    "if on the features": network_with(features=_if),
    "condition that passes by": network_with(features=_of_input),
    "capture that passes by": network_with(features=_early),
    "if in each block": network_with(between=_if),
    "if of known condition in each block": network_with(between=_settled),
    "loop on the input": network_with(first=_loop),
    "loop on the scores": network_with(last=_loop),
    "loop in each block": network_with(between=_loop),
    "scan of the scores": network_with(last=_scan),
}


@pytest.mark.parametrize("name", MODELS)
def test_control_flow_is_cut_around_bit_by_bit(tmp_path: Path, name: str) -> None:
    path = MODELS[name].save(tmp_path / "m.onnx")
    make_pass("partition", {}).apply([path], Context(tmp_path))
    for feed in samples(*SHAPE, count=4).arrays:
        assert same_bits(outputs(path, {"x": feed}), chained(tmp_path, {"x": feed}))


@pytest.mark.parametrize("name", MODELS)
def test_exits_of_models_with_control_flow_equal_a_rewiring(tmp_path: Path, name: str) -> None:
    path = MODELS[name].save(tmp_path / "whole.onnx")
    chosen = choose_exit(analyse(path), 2)
    make_pass("early_exit", {}).apply([path], Context(tmp_path))
    rewired = onnx.load(path)
    _read_instead(rewired.graph, chosen.result.name, chosen.entry.name)
    onnx.save(rewired, tmp_path / "rewired.onnx")
    for feed in samples(*SHAPE, count=4).arrays:
        expected = outputs(tmp_path / "rewired.onnx", {"x": feed})["y"]
        assert relative_error(expected, outputs(tmp_path / "model.onnx", {"x": feed})["y"]) < 1e-5
        assert relative_error(outputs(path, {"x": feed})["y"], expected) > 1e-3


def _read_instead(graph: onnx.GraphProto, result: str, entry: str) -> None:
    """Let all nodes read another tensor, also those inside bodies."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = entry if name == result else name
        for attribute in node.attribute:
            _read_instead(attribute.g, result, entry)


def test_a_large_body_is_copied_where_only_its_input_is_skipped(tmp_path: Path) -> None:
    network = network_with(features=_with_convolutions)
    path = network.save(tmp_path / "m.onnx")
    folder, manifest = applied("early_exit: {blocks: 2}", path, samples(*SHAPE))
    assert manifest["proof"]["early_exit"]["bit_identical"]
    assert (folder / "model.onnx").stat().st_size < path.stat().st_size


def _with_convolutions(network: Network, current: str) -> str:
    branches = []
    for name in ("then", "else"):
        weight = onnx.numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32) / 100, f"{name}_weight")
        node = helper.make_node("Conv", [current, weight.name], [name], kernel_shape=[3, 3], pads=[1] * 4)
        branches.append(helper.make_graph([node], name, [], [_value(name, TensorProto.FLOAT, MAP)], [weight]))
    return network.add("If", _condition(network, current), then_branch=branches[0], else_branch=branches[1])


def test_what_is_inside_control_flow_is_refused_by_name(tmp_path: Path) -> None:
    inner = network_with()
    branches = [
        helper.make_graph(inner.nodes, "then", [], inner.outputs, inner.initializers),
        helper.make_graph(
            [helper.make_node("Constant", [], ["none"], value_floats=[0.0] * 10)],
            "else", [], [_value("none", TensorProto.FLOAT, None)],
        ),
    ]  # fmt: skip
    network = Network()
    condition = _condition(network, network.input("x", MAP))
    network.nodes.append(
        helper.make_node("If", [condition], ["z"], name="which", then_branch=branches[0], else_branch=branches[1])
    )
    network.outputs.append(_value("z", TensorProto.FLOAT, None))
    analysis = analyse(network.save(tmp_path / "m.onnx"))
    with pytest.raises(PassRefusal, match="nothing inside If 'which' is skipped: export the model without"):
        choose_exit(analysis, 2)
    with pytest.raises(PassRefusal, match="nothing inside If 'which' is cut: export the model without"):
        choose_cut(analysis)


def test_what_a_run_shows_behind_a_loop_is_taken_for_the_number_of_axes_alone(tmp_path: Path) -> None:
    network = Network()
    network.add("Softmax", _loop(network, network.input("x", [2, 3])), out="y")
    network.output("y", ["rows", "columns"])
    analysis = analyse(network.save(tmp_path / "m.onnx"))
    assert analysis.unknown_tensors == 0
    (cut,) = analysis.cuts
    assert cut.tensors[0].shape is not None and all(isinstance(size, str) for size in cut.tensors[0].shape)


@pytest.mark.parametrize(("value", "infinite"), [(2.0, False), (float("-inf"), True)])
def test_a_branch_of_ordinary_numbers_gives_such(value: float, infinite: bool) -> None:
    branches = []
    for name, number in (("then", value), ("else", 1.0)):
        nodes = [
            helper.make_node(
                "Constant", [], [f"{name}_c"], value=helper.make_tensor("c", TensorProto.FLOAT, [], [number])
            ),
            helper.make_node("Add", ["x", f"{name}_c"], [name]),
        ]
        branches.append(helper.make_graph(nodes, name, [], [_value(name, TensorProto.FLOAT, None)]))
    nodes = [
        helper.make_node("Log", ["x"], ["doubtful"]),
        helper.make_node("Cast", ["doubtful"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    assert ("y" in infinite_tensors(nodes, {}.get)) is infinite
