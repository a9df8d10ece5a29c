"""The distance of outputs to the model's own, against figures worked out by hand and the exact interval of scipy."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy import stats

from runner.artifacts.model_runs import Outputs, Trial, as_array, measure_distance, try_model


def trial(outputs: list[Outputs]) -> Trial:
    return Trial(tuple({} for _ in outputs), tuple(outputs), "calibration")


def scores(*rows: list[float]) -> list[Outputs]:
    return [{"scores": np.array([row], np.float32)} for row in rows]


def test_error_and_cosine_over_all_inputs() -> None:
    distance = measure_distance(trial(scores([3, 4], [0, 5])), scores([3, 4], [5, 0]))
    assert distance.relative_error == pytest.approx(1.0)  # sqrt(50 / 50)
    assert distance.cosine == pytest.approx(0.5)  # 25 / 50
    assert (distance.inputs, distance.finite) == (2, True)
    assert distance.warning == "outputs differ from identity's by 100 % (relative error over 2 inputs)"


def test_agreement_has_the_exact_interval() -> None:
    expected = scores(*([0.0, 1.0] for _ in range(20)))
    made = scores(*([0.0, 1.0] for _ in range(17)), *([1.0, 0.0] for _ in range(3)))
    agreement = measure_distance(trial(expected), made).agreement
    exact = stats.binomtest(17, 20).proportion_ci(0.95, method="exact")
    assert agreement is not None
    assert (agreement.agreeing, agreement.items) == (17, 20)
    assert (agreement.low, agreement.high) == pytest.approx((exact.low, exact.high))


def test_the_worst_output_is_the_figure() -> None:
    expected: list[Outputs] = [{"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)}]
    made: list[Outputs] = [{"a": np.ones(4, np.float32), "b": np.full(4, 3, np.float32)}]
    assert measure_distance(trial(expected), made).relative_error == pytest.approx(2.0)
    made = [{"a": np.full(4, np.nan, np.float32), "b": np.full(4, 30, np.float32)}]
    distance = measure_distance(trial(expected), made)
    assert (distance.relative_error, distance.finite) == (None, False)


def test_what_is_infinite_in_the_model_counts_nowhere() -> None:
    expected: list[Outputs] = [{"a": np.array([-np.inf, 1.0])}]
    assert measure_distance(trial(expected), [{"a": np.array([0.0, 1.0])}]).relative_error == 0.0


@pytest.mark.parametrize(
    ("expected", "made", "error"),
    [
        (np.zeros(3), np.zeros(3), 0.0),
        (np.zeros(3), np.ones(3), 1.0),
        (np.ones(3), np.ones(4), 1.0),
        (np.array(["cat"]), np.array(["cat"]), 0.0),
        (np.array(["cat"]), np.array(["dog"]), 1.0),
        ([{1: 0.5}], [{1: 0.5}], 0.0),
        ([{1: 0.5}], [{1: 0.25}], 0.5),
        ([{1: 3.0, 2: 4.0}], [{2: 4.0, 1: 3.0}], 0.0),
        ([{1: 0.5}], [], 1.0),
        ([np.full((2, 2), 1.0), np.full(3, 1.0)], [np.full((2, 2), 1.0), np.full(3, 1.0)], 0.0),
    ],
)  # fmt: skip
def test_zeros_other_shapes_and_outputs_without_numbers(expected: object, made: object, error: float) -> None:
    original, changed = as_array(expected), as_array(made)
    assert measure_distance(trial([{"out": original}]), [{"out": changed}]).relative_error == error


def test_a_model_of_several_inputs_runs_on_its_own(tmp_path: Path) -> None:
    shape = [1, 4]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("a", "b")]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    node = onnx.helper.make_node("Sub", ["a", "b"], ["y"])
    graph = onnx.helper.make_graph([node], "g", inputs, [output])
    path = tmp_path / "two.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    own = (np.full(shape, 5, np.float32), np.full(shape, 3, np.float32))
    attempt = try_model(path, [own] * 4)
    assert attempt.source == "calibration"
    assert [output["y"].tolist() for output in attempt.outputs] == [[[2.0] * 4]] * 4
    assert try_model(path, [own[0]] * 4).source == "random"
