"""Rounds that draw their own inputs: weights, certain inputs, intervals and comparisons."""

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.statistics.comparison import Question, compare
from catalog.statistics.intervals import RefusalKind, percentile_intervals
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.pooled_rounds import Pool, PoolInput, SampleDesign, SystematicDesign
from catalog.statistics.samples import Samples, log_percentiles
from catalog.statistics.variance_shares import variance_shares

POOL_SIZE = 2000


@pytest.fixture(scope="module")
def pool() -> Pool:
    sizes = np.random.default_rng(11).lognormal(10, 0.7, POOL_SIZE).astype(int)
    return Pool([PoolInput(f"{index:04d}", int(size)) for index, size in enumerate(sizes)])


def log_latency(pool: Pool) -> NDArray[np.float64]:
    """Return a smooth curve over size, by index of the pool."""
    return np.log(0.004 + np.array([entry.size for entry in pool.inputs]) / 2.5e6)


def measured(
    pool: Pool,
    design: SystematicDesign,
    *,
    rounds: int,
    rng: np.random.Generator,
    between: float = 0.03,
    jitter: float = 0.05,
    factor: float = 1.0,
) -> Samples:
    """Measure rounds of one strategy; the draws start from a random subject, so that repetitions are independent."""
    truth, subject = log_latency(pool), f"net {rng.integers(2**40)}"
    return measured_by(pool, design, truth, subject, rounds, rng.normal(0, between, rounds), jitter, factor, rng)


def measured_by(
    pool: Pool,
    design: SystematicDesign,
    truth: NDArray[np.float64],
    subject: str,
    rounds: int,
    effect: NDArray[np.float64],
    jitter: float,
    factor: float,
    rng: np.random.Generator,
) -> Samples:
    index = {entry.id: position for position, entry in enumerate(pool.inputs)}
    sizes = design.sizes(pool)
    rows: list[tuple[float, int, int, float, bool, int]] = []
    for number in range(1, rounds + 1):
        for drawn in design.draw(pool, subject=subject, round_number=number):
            total, own = sizes[drawn.stratum]
            value = truth[index[drawn.id]] + effect[number - 1] + rng.normal(0, jitter)
            place = index[drawn.id]
            certain = drawn.stratum == "certainty"
            rows.append((factor * np.exp(value), number, place, total / own, certain, pool.inputs[place].size))
    latency, number_of, input_of, weight, is_certain, size = (list(column) for column in zip(*rows, strict=True))
    design = SampleDesign(np.array(weight), np.array(is_certain), np.array(size, dtype=np.float64))
    return Samples.from_arrays(latency, number_of, input_of, design=design)


@pytest.mark.parametrize("percentile", [50, 90])
def test_the_percentile_of_few_inputs_is_that_of_the_pool(pool: Pool, percentile: float) -> None:
    rng = np.random.default_rng(1)
    truth = np.percentile(log_latency(pool), percentile)
    errors = [
        float(log_percentiles(measured(pool, SystematicDesign(10), rounds=3, rng=rng), [percentile]).mean() - truth)
        for _ in range(200)
    ]
    # Three random rounds of the same thirty inputs err by 0.12 and more at p90.
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.09


def test_an_oversampled_tail_does_not_move_the_percentile(pool: Pool) -> None:
    rng = np.random.default_rng(2)
    truth = np.percentile(log_latency(pool), 90)
    design = SystematicDesign(10, tail=True)
    errors = [
        float(log_percentiles(measured(pool, design, rounds=3, rng=rng), [90]).mean() - truth) for _ in range(200)
    ]
    assert abs(np.mean(errors)) < 0.03


def test_bounds_hold_as_often_as_they_promise(pool: Pool) -> None:
    rng = np.random.default_rng(3)
    noise = np.random.default_rng(4).normal(0, 0.05, (50, POOL_SIZE))
    truth = float(np.percentile(log_latency(pool) + noise, 90))
    intervals = [
        percentile_intervals(measured(pool, SystematicDesign(10), rounds=3, rng=rng), [90], rng=1)[0]
        for _ in range(400)
    ]
    holds = [interval.estimate is not None and interval.estimate.upper(0.95) >= truth for interval in intervals]
    # 0.95 less three standard errors of 400 draws.
    assert np.mean(holds) >= 0.917


def test_certain_inputs_count_in_every_round_as_themselves_alone() -> None:
    latency = [1.0, 2.0, 100.0, 1.0, 2.0]
    certain = np.array([False, False, True, False, False])
    design = SampleDesign(np.array([20.0, 20.0, 1.0, 20.0, 20.0]), certain)
    samples = Samples.from_arrays(latency, [1, 1, 1, 2, 2], [0, 1, 9, 2, 3], design=design)
    by_round = log_percentiles(samples, [80, 99.9])
    # The certain input is a forty-first of the pool: all beyond its 98th percentile, and nothing to the 80th.
    assert np.exp(by_round[0].mean()) == pytest.approx(2.0)
    assert np.exp(by_round[1].mean()) == pytest.approx(100.0)
    assert (samples.supporting_inputs, samples.fewest_inputs) == (5, 2)


def test_a_refusal_counts_the_inputs_of_all_rounds(pool: Pool) -> None:
    rng = np.random.default_rng(5)
    thin, enough = (measured(pool, SystematicDesign(10), rounds=rounds, rng=rng) for rounds in (2, 3))
    refusal = percentile_intervals(thin, [90], rng=1)[0].refusal
    assert refusal is not None and refusal.kind is RefusalKind.TOO_THIN
    assert refusal.reason == "too thin: p90 needs 29 inputs over all rounds, got 25; 3 rounds bring them"
    assert refusal.rounds_needed == 3
    assert percentile_intervals(enough, [90], rng=1)[0].refusal is None


def test_strategies_that_share_the_draw_are_compared_round_by_round(pool: Pool) -> None:
    design, rounds, rng = SystematicDesign(10), 4, np.random.default_rng(6)
    truth, drift = log_latency(pool), rng.normal(0, 0.2, rounds)
    one, other = (measured_by(pool, design, truth, "net", rounds, drift, 0.01, factor, rng) for factor in (1.0, 1.2))
    comparison = compare(other, one, Question(90), rng=1)
    # Inputs and drift are shared, so that they cancel in the ratio.
    assert comparison.verdict is ComparisonOutcome.DIFFERENT
    assert comparison.ratio == pytest.approx(1.2, rel=0.02)
    assert comparison.same_rounds and comparison.rounds == rounds


def test_designs_that_differ_are_not_compared(pool: Pool) -> None:
    rng = np.random.default_rng(7)
    drawn = measured(pool, SystematicDesign(10), rounds=3, rng=rng)
    crossed = Samples.from_arrays(np.exp(drawn.log_latency), drawn.round_position, drawn.input_position)
    comparison = compare(drawn, crossed, Question(50), rng=1)
    assert comparison.refusal is not None and "by the same protocol" in comparison.refusal.reason


def test_rounds_with_inputs_of_their_own_have_no_variance_shares(pool: Pool) -> None:
    shares = variance_shares(measured(pool, SystematicDesign(10), rounds=3, rng=np.random.default_rng(8)))
    assert shares.inputs is None and shares.reason is not None


@pytest.mark.parametrize(
    ("weight", "certain", "size", "message"),
    [
        ([1.0, 0.0], [False, False], None, "a weight is"),
        ([1.0, float("nan")], [False, False], None, "a weight is"),
        ([1.0], [False, False], None, "one weight, certainty and size"),
        ([1.0, 1.0], [False, False], [1.0], "one weight, certainty and size"),
        ([1.0, 1.0], [False, False], [1.0, -1.0], "a size is"),
    ],
)
def test_a_wrong_design_is_refused(
    weight: list[float], certain: list[bool], size: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SampleDesign(np.array(weight), np.array(certain), None if size is None else np.array(size))


def test_a_design_of_another_number_of_samples_is_refused() -> None:
    design = SampleDesign(np.ones(3), np.zeros(3, dtype=np.bool_))
    with pytest.raises(ValueError, match="an entry per sample, got 3 for 2"):
        Samples.from_arrays([0.1, 0.2], [1, 1], [0, 1], design=design)
