"""Rounds that draw their own inputs: weights, certain inputs, intervals and comparisons."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.statistics import pool_percentiles
from catalog.statistics.comparison import Question, compare
from catalog.statistics.input_draw import DrawnInput, Pool, PoolInput, SampleDesign, SystematicDesign
from catalog.statistics.intervals import RefusalKind, percentile_intervals
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.samples import Samples, log_percentiles
from catalog.statistics.variances import variance_shares

POOL_SIZE = 2000
_DRAWS: dict[tuple[str, SystematicDesign, str, int], tuple[DrawnInput, ...]] = {}


@pytest.fixture(scope="module")
def pool() -> Pool:
    sizes = np.random.default_rng(11).lognormal(10, 0.7, POOL_SIZE).astype(int)
    return Pool([PoolInput(f"{index:04d}", int(size)) for index, size in enumerate(sizes)])


def draw(pool: Pool, design: SystematicDesign, subject: str, number: int) -> tuple[DrawnInput, ...]:
    """Draw the inputs of a round once: studies of other latencies with the same seed draw them again."""
    key = (pool.digest, design, subject, number)
    if key not in _DRAWS:
        _DRAWS[key] = design.draw(pool, subject=subject, round_number=number)
    return _DRAWS[key]


class PoolTable:
    """What every study of a pool looks up, made once: the place of each input, and the sizes in ascending order."""

    def __init__(self, pool: Pool) -> None:
        self.place = {entry.id: position for position, entry in enumerate(pool.inputs)}
        self.sizes = np.array([entry.size for entry in pool.inputs], dtype=np.float64)
        self.ascending = np.sort(self.sizes)


_TABLES: dict[str, PoolTable] = {}


def table_of(pool: Pool) -> PoolTable:
    if pool.digest not in _TABLES:
        _TABLES[pool.digest] = PoolTable(pool)
    return _TABLES[pool.digest]


def log_latency(pool: Pool) -> NDArray[np.float64]:
    """Return a smooth curve over size, by index of the pool."""
    return np.log(0.004 + table_of(pool).sizes / 2.5e6)


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
    table, strata = table_of(pool), design.sizes(pool)
    rows: list[tuple[float, int, int, float, bool]] = []
    for number in range(1, rounds + 1):
        for drawn in draw(pool, design, subject, number):
            total, own = strata[drawn.stratum]
            place = table.place[drawn.id]
            value = truth[place] + effect[number - 1] + rng.normal(0, jitter)
            rows.append((factor * np.exp(value), number, place, total / own, drawn.stratum == "certainty"))
    latency, number_of, input_of, weight, is_certain = (list(column) for column in zip(*rows, strict=True))
    sizes = table.sizes[np.array(input_of)]
    sampled = SampleDesign(np.array(weight), np.array(is_certain), sizes, table.ascending)
    return Samples.from_arrays(latency, number_of, input_of, design=sampled)


def test_the_percentiles_of_few_inputs_are_those_of_the_pool(pool: Pool) -> None:
    rng = np.random.default_rng(1)
    truth = np.percentile(log_latency(pool), [50, 90])
    studies = [measured(pool, SystematicDesign(10), rounds=3, rng=rng) for _ in range(200)]
    errors = np.array([log_percentiles(study, [50, 90]).mean(axis=1) - truth for study in studies])
    # Three random rounds of the same thirty inputs err by 0.12 and more at p90.
    assert np.abs(errors.mean(axis=0)).max() < 0.03
    assert errors.std(axis=0).max() < 0.09


def test_an_oversampled_tail_does_not_move_the_percentile(pool: Pool) -> None:
    rng = np.random.default_rng(2)
    truth = np.percentile(log_latency(pool), 90)
    design = SystematicDesign(10, tail=True)
    errors = [
        float(log_percentiles(measured(pool, design, rounds=3, rng=rng), [90]).mean() - truth) for _ in range(200)
    ]
    assert abs(np.mean(errors)) < 0.03


def step(pool: Pool, above: float) -> NDArray[np.float64]:
    """Return the smooth curve with a rise of 65 % beyond a quantile of the sizes, as of another format."""
    truth = log_latency(pool)
    return truth + 0.5 * (truth > np.quantile(truth, above))


def bounds(
    pool: Pool, truth: NDArray[np.float64], *, rounds: int, jitter: float = 0.05, studies: int = 200
) -> tuple[float, float]:
    """Return how often 95 % upper bounds of the p90 hold, and their median margin."""
    rng = np.random.default_rng(3)
    noise = np.random.default_rng(4).normal(0, jitter, (50, POOL_SIZE))
    p90 = float(np.percentile(truth + noise, 90))
    holds, margins = [], []
    for _ in range(studies):
        effects, subject = rng.normal(0, 0.03, rounds), f"net {rng.integers(2**40)}"
        samples = measured_by(pool, SystematicDesign(10), truth, subject, rounds, effects, jitter, 1.0, rng)
        estimate = percentile_intervals(samples, [90], rng=1)[0].estimate
        assert estimate is not None
        holds.append(estimate.upper(0.95) >= p90)
        margins.append(estimate.upper(0.95) - estimate.value)
    return float(np.mean(holds)), float(np.median(margins))


# 0.93 less two standard errors of 200 draws.
HELD = 0.894


@pytest.mark.parametrize("rounds", [3, 12])
def test_bounds_hold_where_latency_is_a_curve_over_size_and_are_narrow(pool: Pool, rounds: int) -> None:
    holding, margin = bounds(pool, log_latency(pool), rounds=rounds)
    assert holding >= HELD
    assert margin <= {3: 0.13, 12: 0.06}[rounds]


@pytest.mark.parametrize("rounds", [3, 12])
@pytest.mark.parametrize("above", [0.88, 0.895])
def test_bounds_hold_beside_a_step_that_few_inputs_straddle(pool: Pool, rounds: int, above: float) -> None:
    holding, margin = bounds(pool, step(pool, above), rounds=rounds)
    assert holding >= HELD
    assert above > 0.88 or margin <= {3: 0.3, 12: 0.12}[rounds]


@pytest.mark.parametrize("rounds", [3, 12])
def test_bounds_hold_where_content_matters_beside_size(pool: Pool, rounds: int) -> None:
    content = np.random.default_rng(9).normal(0, 0.15, POOL_SIZE)
    assert bounds(pool, log_latency(pool) + content, rounds=rounds)[0] >= HELD


def test_bounds_hold_under_jitter_and_do_not_reach_for_the_largest_latency(pool: Pool) -> None:
    holding, margin = bounds(pool, log_latency(pool), rounds=3, jitter=0.3)
    assert holding >= HELD
    assert margin <= 0.3


def test_what_the_curve_misses_is_corrected_with_more_rounds(pool: Pool) -> None:
    truth, rng = step(pool, 0.8), np.random.default_rng(10)
    samples = measured_by(pool, SystematicDesign(10), truth, "net", 60, np.zeros(60), 0.02, 1.0, rng)
    estimates = log_percentiles(samples, [50, 75, 85, 90]).mean(axis=1)
    assert np.abs(estimates - np.percentile(truth, [50, 75, 85, 90])).max() < 0.03


def test_without_sizes_the_samples_stand_for_the_pool_by_their_weights(pool: Pool) -> None:
    samples = measured(pool, SystematicDesign(10), rounds=3, rng=np.random.default_rng(11), between=0.0, jitter=0.0)
    assert samples.design is not None
    design = SampleDesign(samples.design.weight, samples.design.certain)
    unsized = Samples.from_arrays(
        np.exp(samples.log_latency), samples.round_position, samples.input_position, design=design
    )
    by_curve, by_weight = (log_percentiles(entry, [50]).mean() for entry in (samples, unsized))
    truth = np.percentile(log_latency(pool), 50)
    assert abs(by_curve - truth) < 0.01
    assert by_weight != by_curve and abs(by_weight - truth) < 0.1


def test_equal_latencies_are_their_own_percentiles(pool: Pool) -> None:
    rng = np.random.default_rng(12)
    flat = np.zeros(POOL_SIZE)
    samples = measured_by(pool, SystematicDesign(10), flat, "net", 3, np.zeros(3), 0.0, 0.2, rng)
    (interval,) = percentile_intervals(samples, [90], rng=1)
    assert interval.estimate_s == pytest.approx(0.2)
    assert interval.low_s == pytest.approx(0.2) and interval.high_s == pytest.approx(0.2)


def test_a_pool_of_one_size_has_no_curve() -> None:
    pool = Pool([PoolInput(f"{index:03d}", 4096) for index in range(300)])
    truth, rng = np.random.default_rng(13).normal(0, 0.2, 300), np.random.default_rng(14)
    samples = measured_by(pool, SystematicDesign(30), truth, "net", 4, np.zeros(4), 0.0, 1.0, rng)
    assert log_percentiles(samples, [50]).mean() == pytest.approx(np.percentile(truth, 50), abs=0.06)


def test_the_highest_percentiles_need_inputs_where_they_are_decided(pool: Pool) -> None:
    rng = np.random.default_rng(15)
    few, enough = (
        percentile_intervals(measured(pool, SystematicDesign(10, tail=tail), rounds=3, rng=rng), [90, 95, 99], rng=1)
        for tail in (False, True)
    )
    assert [interval.refusal for interval in (*few, *enough)] == [None] * 6
    assert [interval.by_model is None for interval in few] == [True, False, False]
    assert few[1].by_model is not None and "of the 3 % largest inputs were measured, 10 are needed" in few[1].by_model
    assert [interval.by_model for interval in enough] == [None] * 3


def test_a_wide_scatter_of_the_largest_inputs_is_no_curve(pool: Pool) -> None:
    truth = log_latency(pool)
    tail = truth > np.quantile(truth, 0.97)
    scattered = truth + tail * np.random.default_rng(16).normal(0, 0.5, POOL_SIZE)
    rng = np.random.default_rng(17)
    samples = measured_by(pool, SystematicDesign(10, tail=True), scattered, "net", 3, np.zeros(3), 0.02, 1.0, rng)
    (interval,) = percentile_intervals(samples, [99], rng=1)
    assert interval.by_model is not None or interval.refusal is not None


def test_the_next_start_is_less_certain_than_the_typical_one(pool: Pool) -> None:
    samples = measured(pool, SystematicDesign(10), rounds=3, rng=np.random.default_rng(18), between=0.2)
    (interval,) = percentile_intervals(samples, [90], rng=1)
    estimate, upper_s, next_s = interval.estimate, interval.upper_s(0.95), interval.next_start_s(0.95)
    assert estimate is not None and upper_s is not None and next_s is not None
    # The variance of the mean of three starts grows by 3 * (1 + 1 / 3); that of the inputs stays. R: qt(0.95, 2).
    one, typical = (np.log(bound_s) - estimate.value for bound_s in (next_s, upper_s))
    assert one**2 - typical**2 == pytest.approx(3 * 2.919986**2 * estimate.variance_rounds)


def test_a_step_below_the_percentile_does_not_widen_its_upper_bound(pool: Pool) -> None:
    samples = measured_by(
        pool, SystematicDesign(10), step(pool, 0.88), "net", 3, np.zeros(3), 0.02, 1.0, np.random.default_rng(19)
    )
    (interval,) = percentile_intervals(samples, [90], rng=1)
    estimate = interval.estimate
    assert estimate is not None and estimate.variance_inputs_above is not None
    up, down = estimate.upper(0.95) - estimate.value, estimate.value - estimate.upper(0.05)
    assert up < 0.3 < 0.5 < down
    # The same by confidence as by bound, on both sides.
    assert estimate.confidence_below(estimate.value + up) == pytest.approx(0.95)
    assert estimate.confidence_below(estimate.value - down) == pytest.approx(0.05)


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
    thin, enough = (measured(pool, SystematicDesign(10), rounds=rounds, rng=rng, jitter=0.5) for rounds in (2, 3))
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
    # What the samples correct of the curve differs a little by their jitter.
    assert comparison.ratio == pytest.approx(1.2, rel=0.04)
    assert comparison.same_rounds and comparison.rounds == rounds


@pytest.mark.parametrize("percentile", [95, 99])
def test_the_highest_percentiles_are_compared_where_sizes_tell_the_largest_inputs_apart(
    pool: Pool, percentile: float
) -> None:
    truth, rng = log_latency(pool), np.random.default_rng(20)

    def both(tail: bool) -> Any:
        design = SystematicDesign(10, tail=tail)
        one, other = (measured_by(pool, design, truth, "net", 3, np.zeros(3), 0.02, at, rng) for at in (1.0, 2.0))
        return compare(other, one, Question(percentile), rng=1)

    enough, few = both(True), both(False)
    assert enough.refusal is None and enough.verdict is ComparisonOutcome.DIFFERENT
    assert enough.low < 2.0 < enough.high
    # Too few of the largest inputs: the ratio would rest on the curve alone.
    assert few.refusal is not None and few.refusal.kind is RefusalKind.TOO_THIN


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
        ([1.0, 1.0], [False, False], [1.0, 2.0], "come together"),
    ],
)
def test_a_wrong_design_is_refused(
    weight: list[float], certain: list[bool], size: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SampleDesign(np.array(weight), np.array(certain), None if size is None else np.array(size))


@pytest.mark.parametrize("pool_size", [[], [2.0, 1.0], [-1.0, 1.0], [float("nan")]])
def test_wrong_sizes_of_a_pool_are_refused(pool_size: list[float]) -> None:
    with pytest.raises(ValueError, match="the sizes of a pool are"):
        SampleDesign(np.ones(1), np.zeros(1, dtype=np.bool_), np.ones(1), np.array(pool_size))


def test_a_design_of_another_number_of_samples_is_refused() -> None:
    design = SampleDesign(np.ones(3), np.zeros(3, dtype=np.bool_))
    with pytest.raises(ValueError, match="an entry per sample, got 3 for 2"):
        Samples.from_arrays([0.1, 0.2], [1, 1], [0, 1], design=design)


def test_the_curves_are_fitted_once_for_all_percentiles(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = 0
    fit_size_curves = pool_percentiles.fit_size_curves

    def counted(*arguments: Any) -> Any:
        nonlocal fits
        fits += 1
        return fit_size_curves(*arguments)

    monkeypatch.setattr(pool_percentiles, "fit_size_curves", counted)
    samples = measured(pool, SystematicDesign(10), rounds=4, rng=np.random.default_rng(5))
    one_by_one = [samples.pool_percentiles([percentile])[0].by_round for percentile in (50, 90, 95)]
    assert fits == 1
    again = Samples(**{name: getattr(samples, name) for name in _ARRAYS}, design=samples.design)
    together = [percentile.by_round for percentile in again.pool_percentiles([50, 90, 95])]
    assert np.array_equal(one_by_one, together) and fits == 2


_ARRAYS = ("log_latency", "round_position", "input_position", "rounds", "inputs")
