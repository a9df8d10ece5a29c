"""What `benchmarks.foreign` judges by: a wrong file, a wrong figure and a claim too much must count as failures."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.foreign import journey, numbers
from benchmarks.foreign.models import MODELS, OPERATORS
from benchmarks.foreign.numbers import BuiltOperator, check_numbers

FEEDS = [{"x": np.array([1.0, -2.0, 3.0], np.float32)}]


def chain(path: Path, *op_types: str) -> Path:
    """Write a model that applies the operators one after the other; the last gives `y`."""
    names = ["x", *(f"t{index}" for index in range(1, len(op_types))), "y"]
    nodes = [helper.make_node(op_type, [names[index]], [names[index + 1]]) for index, op_type in enumerate(op_types)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph(nodes, "chain", [ends[0]], [ends[1]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_partition_is_compared_bit_by_bit(tmp_path: Path) -> None:
    whole = chain(tmp_path / "whole.onnx", "Exp", "Neg")
    head, tail = onnx.load(whole), onnx.load(whole)
    del head.graph.node[1], head.graph.output[:], tail.graph.node[0], tail.graph.input[:]
    head.graph.output.append(helper.make_tensor_value_info("t1", TensorProto.FLOAT, [3]))
    tail.graph.input.append(helper.make_tensor_value_info("t1", TensorProto.FLOAT, [3]))
    parts = [tmp_path / "head.onnx", tmp_path / "tail.onnx"]
    for part, path in zip((head, tail), parts, strict=True):
        onnx.save(part, path)
    cut = {"partition": BuiltOperator(parts, {})}
    assert check_numbers("partition", whole, cut, FEEDS).words == "bit-identical to the model"
    renamed = {"partition": BuiltOperator(parts[:1], {})}
    assert not check_numbers("partition", whole, renamed, FEEDS).right
    other = {"partition": BuiltOperator([chain(tmp_path / "other.onnx", "Exp", "Abs")], {})}
    result = check_numbers("partition", whole, other, FEEDS)
    assert not result.right and result.words == "differs from the model by up to 2"


def test_an_early_exit_is_compared_with_a_rewiring(tmp_path: Path) -> None:
    whole = chain(tmp_path / "whole.onnx", "Exp", "Abs", "Sqrt", "Neg")
    manifest = {"did": [{"pass": "early_exit", "entry": "t1", "result": "t3"}]}
    shortened = {"early_exit": BuiltOperator([chain(tmp_path / "short.onnx", "Exp", "Neg")], manifest)}
    assert check_numbers("early_exit", whole, shortened, FEEDS).right
    wrong = {"early_exit": BuiltOperator([chain(tmp_path / "wrong.onnx", "Exp", "Sqrt", "Neg")], manifest)}
    assert not check_numbers("early_exit", whole, wrong, FEEDS).right


def test_a_stated_distance_must_be_the_true_one(tmp_path: Path) -> None:
    whole, other = chain(tmp_path / "whole.onnx", "Exp"), chain(tmp_path / "other.onnx", "Neg")
    result = check_numbers("quantized", whole, {"quantized": BuiltOperator([other], {})}, FEEDS)
    assert result.right and result.distance is not None
    assert journey.as_stated({"distance": {"relative_error": result.distance}}, result)[0]
    assert not journey.as_stated({"distance": {"relative_error": result.distance / 2}}, result)[0]
    # On as many inputs as the manifest says.
    more = [*FEEDS, {"x": np.array([5.0, 5.0, 5.0], np.float32)}]
    first = {"quantized": BuiltOperator([other], {"distance": {"inputs": 1}})}
    assert check_numbers("quantized", whole, first, more).distance == result.distance


def test_outputs_of_other_shapes_are_infinitely_far() -> None:
    one, other = [{"y": np.ones(3, np.float32)}], [{"y": np.ones(2, np.float32)}]
    assert numbers.relative_error(one, other) == math.inf == numbers.largest_difference(one, other)


@pytest.mark.parametrize(
    ("best", "claim"),
    [
        ({"status": "proven", "accuracy": None, "operator": "identity"}, "proven from 5 inputs"),
        (
            {"status": "estimated", "accuracy": None, "operator": "early_exit", "quality": None},
            "nothing about the quality",
        ),
        ({"status": "estimated", "accuracy": {"metric": "top1"}, "operator": "identity"}, "no truth to judge by"),
        ({"status": "estimated", "accuracy": {"metric": "agreement"}, "operator": "quantized"}, None),
        ({"status": "estimated", "accuracy": None, "operator": "quantized", "quality": "outputs differ"}, None),
    ],
)
def test_an_answer_may_claim_no_more_than_five_inputs_show(best: dict[str, object], claim: str | None) -> None:
    said = journey.overclaim(best)
    assert (said is None) if claim is None else (said is not None and claim in said)


def test_a_fill_may_not_contradict_the_operators() -> None:
    row = {"status": "applicable", "measured": "complete", "verdict": "DOUBTFUL", "samples": 5, "reason": None}
    rows = [row | {"operator": operator, "measurement_reason": None} for operator in OPERATORS]
    assert not list(journey.contradictions(rows, {}))
    assert list(journey.contradictions(rows, {"quantized": "refused"})) == ["quantized is applicable"]
    assert list(journey.contradictions(rows[1:], {})) == ["identity is missing"]
    rows[2] |= {"status": "inapplicable", "reason": "no blocks"}
    assert list(journey.contradictions(rows, {})) == ["early_exit is inapplicable here: no blocks"]


def test_there_are_twelve_models_of_pinned_packages_each_named_once() -> None:
    assert len(MODELS) == len({model.name for model in MODELS}) == 12
    assert all(model.version[0].isdigit() and model.member.endswith(".onnx") for model in MODELS)
    assert {operator for model in MODELS for operator in model.limits} <= {*OPERATORS, "init"}
