import numpy as np
import pytest

from catalog.statistics.samples import Samples


def test_flat_arrays_in_any_order_become_rounds_and_inputs() -> None:
    samples = Samples.from_arrays([0.4, 0.1, 0.3, 0.2, 0.2], [7, 2, 7, 2, 7], [30, 10, 10, 20, 30])
    assert samples.rounds.tolist() == [2, 7]
    assert samples.inputs.tolist() == [10, 20, 30]
    assert samples.cells.tolist() == [[1, 1, 0], [1, 0, 2]]
    assert samples.fewest_inputs == 2
    np.testing.assert_array_equal(np.exp(samples.log_latency).round(12), [0.4, 0.1, 0.3, 0.2, 0.2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -0.1])
def test_a_latency_that_is_none_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"above zero, got .* at position 1 \(round 4, input 8\); 1 of 3 samples"):
        Samples.from_arrays([0.1, bad, 0.2], [3, 4, 5], [7, 8, 9])


@pytest.mark.parametrize(
    ("latency", "rounds", "inputs", "said"),
    [
        ([], np.array([], dtype=int), np.array([], dtype=int), "no samples"),
        ([0.1, 0.2], [1], [1], "one length"),
        ([[0.1]], [[1]], [[1]], "one-dimensional"),
        ([0.1], [1.5], [0], "round_number holds whole numbers, got float64"),
        ([0.1], [1], ["a"], "input_index holds whole numbers"),
    ],
)
def test_what_is_no_table_is_refused(latency: object, rounds: object, inputs: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Samples.from_arrays(latency, rounds, inputs)  # type: ignore[arg-type]


def test_restriction_keeps_numbers_and_refuses_to_keep_nothing() -> None:
    samples = Samples.from_arrays([0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2], [5, 6, 5, 6])
    only = samples.restricted(rounds=[2], inputs=[6, 99])
    assert (only.rounds.tolist(), only.inputs.tolist()) == ([2], [6])
    assert np.exp(only.log_latency) == pytest.approx([0.4])
    with pytest.raises(ValueError, match="no sample"):
        samples.restricted(rounds=[3], inputs=[5])
