"""That typical repetitions give the figures of all of them, in a time that does not grow with their number."""

import numpy as np
import pytest

from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.intervals import percentile_intervals
from catalog.statistics.samples import Samples, typical_positions
from recommender.ranking import Budgets, Candidate, LatencyBudget, recommend
from recommender.ranking.candidates import estimate, samples_of


def repeated(rounds: int, inputs: int, repetitions: int, *, design: SampleDesign | None = None) -> Candidate:
    """Inputs of different sizes, repetitions with a long tail."""
    rng = np.random.default_rng(7)
    index = np.tile(np.arange(inputs), repetitions)
    latency_s = tuple(np.exp(0.02 * index - 3) + rng.exponential(0.01, index.size) for _ in range(rounds))
    return Candidate(
        "identity", "edge", ("edge",), latency_s, inputs=inputs, input_index=(index,) * rounds, design=design
    )


def test_no_ordinary_study_changes() -> None:
    values, index = [np.linspace(1, 2, 120)] * 12, [np.arange(120)] * 12
    assert [kept.tolist() for kept in typical_positions(values, index)] == [list(range(120))] * 12


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_percentiles_and_intervals_are_those_of_all_repetitions(percentile: float) -> None:
    many = repeated(4, 30, 500)
    numbers = np.repeat(np.arange(4), 15_000)
    assert many.input_index is not None
    everything = Samples.from_arrays(np.concatenate(many.latency_s), numbers, np.concatenate(many.input_index))
    [exact] = percentile_intervals(everything, [percentile], rng=1)
    typical = estimate(many, percentile).interval
    assert 9_000 < samples_of(many).log_latency.size <= 10_000
    assert typical.estimate_s == pytest.approx(exact.estimate_s, rel=0.005)
    if exact.refusal is None:
        assert typical.low_s == pytest.approx(exact.low_s, rel=0.01)
        assert typical.high_s == pytest.approx(exact.high_s, rel=0.01)


def test_an_input_with_few_repetitions_keeps_one() -> None:
    values, index = np.arange(1.0, 1004.0), np.append(np.zeros(1000, dtype=np.int64), [1, 1, 1])
    [kept] = typical_positions([values], [index], most=10)
    assert index[kept].tolist() == [0] * 10 + [1]


def test_of_too_many_inputs_the_same_ones_stay_in_every_round() -> None:
    index = np.arange(50_000)
    first, second = typical_positions([np.ones(50_000)] * 2, [index, index[::-1]], most=10_000)
    assert set(index[first]) == set(index[::-1][second]) and first.size <= 10_000


def test_inputs_that_stand_for_a_pool_all_stay() -> None:
    weight = np.full(240_000, 1 / 30)
    design = SampleDesign(weight, np.zeros(240_000, dtype=np.bool_), np.tile(np.arange(30.0), 8000), np.arange(30.0))
    samples = samples_of(repeated(4, 30, 2000, design=design))
    assert samples.inputs.size == 30 and samples.design is not None and samples.design.size is not None
    # Each sample keeps the weight and the size of its own input.
    assert np.array_equal(samples.design.size, samples.inputs[samples.input_position])


def test_a_million_samples_are_answered_from_typical_ones() -> None:
    huge = repeated(5, 30, 6667)
    few = [repeated(5, 30, 1) for _ in range(3)]
    answer = recommend([huge, *few], Budgets(latency=(LatencyBudget(90, 1.0),)))
    assert len(answer.considered) == 4
    # What is resampled is bounded; minutes passed when every repetition was.
    assert samples_of(huge).log_latency.size <= 10_000
