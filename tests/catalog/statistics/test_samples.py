import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.samples import Samples, draw_inputs, log_percentiles, resampled_log_percentiles


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


def table(rng: np.random.Generator, rounds: int, inputs: int, repetitions: int, keep: float) -> Samples:
    """Draw ties, missing cells and unequal repetitions; every round keeps an input."""
    number, index, _ = (index.ravel() for index in np.indices((rounds, inputs, repetitions)))
    kept = (rng.random(number.size) < keep) | (index == 0)
    latency = rng.integers(1, 9, size=number.size) / 8
    return Samples.from_arrays(latency[kept], number[kept], index[kept])


@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3)),
    keep=st.sampled_from([0.3, 0.8, 1.0]),
    percentile=st.floats(1, 99),
)
@settings(deadline=None, max_examples=60)
def test_a_draw_is_the_percentile_of_the_drawn_sample(
    seed: int, shape: tuple[int, int, int], keep: float, percentile: float
) -> None:
    rng = np.random.default_rng(seed)
    samples = table(rng, *shape, keep=keep)
    counts = draw_inputs(samples.inputs.size, n_resamples=5, rng=rng)
    drawn = resampled_log_percentiles(samples, [percentile, 50], counts=counts)
    for round_position in range(samples.rounds.size):
        own = samples.round_position == round_position
        for column in range(counts.shape[1]):
            repeats = counts[samples.input_position[own], column]
            values = np.repeat(samples.log_latency[own], repeats)
            expected = np.percentile(values, [percentile, 50]) if values.size else [np.nan, np.nan]
            np.testing.assert_allclose(drawn[:, round_position, column], expected, atol=1e-12)


def test_memory_is_bounded_without_changing_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    samples = table(rng, 3, 20, 2, keep=0.8)
    counts = draw_inputs(20, n_resamples=50, rng=rng)
    at_once = resampled_log_percentiles(samples, [90], counts=counts)
    monkeypatch.setattr("catalog.statistics.samples._CHUNK", 100)
    np.testing.assert_array_equal(resampled_log_percentiles(samples, [90], counts=counts), at_once)


def test_draws_are_uniform_and_reproducible() -> None:
    counts = draw_inputs(4, n_resamples=20_000, rng=np.random.default_rng(1))
    assert counts.shape == (4, 20_000)
    assert set(counts.sum(axis=0).tolist()) == {4}
    # Multinomial: mean 1, variance 4 * 1/4 * 3/4.
    np.testing.assert_allclose(counts.mean(axis=1), 1.0, atol=0.03)
    np.testing.assert_allclose(counts.var(axis=1), 0.75, atol=0.04)
    np.testing.assert_array_equal(counts, draw_inputs(4, n_resamples=20_000, rng=np.random.default_rng(1)))


@pytest.mark.parametrize("percentile", [0, 100, -1, float("nan")])
def test_percentiles_without_an_interval_are_refused(percentile: float) -> None:
    samples = Samples.from_arrays([0.1], [1], [0])
    with pytest.raises(ValueError, match="above 0 and below 100"):
        log_percentiles(samples, [percentile])


def test_counts_of_other_inputs_are_refused() -> None:
    samples = Samples.from_arrays([0.1], [1], [0])
    with pytest.raises(ValueError, match=r"each of 1 inputs, got shape \(2, 3\)"):
        resampled_log_percentiles(samples, [50], counts=np.ones((2, 3), dtype=int))
    with pytest.raises(ValueError, match="at least 1 input and 2 resamples"):
        draw_inputs(0, n_resamples=3, rng=np.random.default_rng(1))
