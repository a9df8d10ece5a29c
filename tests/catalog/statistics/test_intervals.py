import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from catalog.statistics.intervals import RefusalKind, inputs_needed, percentile_estimate, percentile_intervals
from catalog.statistics.log_estimate import WIDEST, LogEstimate
from catalog.statistics.samples import Samples, draw_inputs, log_percentiles, seeded_draws


def crossed(log_latency: np.ndarray) -> Samples:
    """Return samples from log latencies of shape (rounds, inputs)."""
    number, index = (index.ravel() for index in np.indices(log_latency.shape))
    return Samples.from_arrays(np.exp(log_latency).ravel(), number, index)


def test_inputs_that_all_behave_alike_leave_students_interval() -> None:
    of_round = np.array([-1.0, -0.8, -1.3, -0.9])
    samples = crossed(np.repeat(of_round[:, None], 40, axis=1))
    for level in (0.8, 0.95, 0.99):
        for percentile_interval in percentile_intervals(samples, [50, 90], confidence_level=level, rng=1):
            expected = stats.ttest_1samp(of_round, 0.0).confidence_interval(level)
            assert (percentile_interval.low_s, percentile_interval.high_s) == pytest.approx(
                np.exp([expected.low, expected.high])
            )
            assert percentile_interval.estimate is not None
            assert percentile_interval.estimate.df == pytest.approx(3)


def test_the_variance_from_the_inputs_is_scipys_bootstrap() -> None:
    rng = np.random.default_rng(2)
    # Without rest the rounds move together: the covariance between them is the variance of their mean.
    values = rng.exponential(0.3, size=60) + np.array([[0.0], [0.1], [-0.2]])
    [interval] = percentile_intervals(crossed(values), [90], n_resamples=20_000, rng=3)
    independent = stats.bootstrap((values[0],), _p90, n_resamples=20_000, method="percentile", rng=4)
    assert interval.estimate is not None
    assert interval.estimate.variance_inputs == pytest.approx(independent.standard_error**2 * 60 / 59, rel=0.05)
    assert interval.estimate.variance_rounds == pytest.approx(np.var([0.0, 0.1, -0.2], ddof=1) / 3)


def _p90(values: np.ndarray, axis: int) -> np.ndarray:
    return np.percentile(values, 90, axis=axis)


def test_what_rounds_do_not_share_is_not_counted_among_the_inputs() -> None:
    rng = np.random.default_rng(9)
    estimates = [
        percentile_intervals(crossed(rng.standard_normal((5, 100))), [50], n_resamples=300, rng=rng)[0].estimate
        for _ in range(100)
    ]
    # The median of 100 normal values has variance pi / 200; five independent rounds have it once, not twice.
    rounds = np.mean([estimate.variance_rounds for estimate in estimates if estimate is not None])
    inputs = np.mean([estimate.variance_inputs for estimate in estimates if estimate is not None])
    assert rounds == pytest.approx(math.pi / 200 / 5, rel=0.25)
    assert inputs < 0.4 * rounds  # not zero: negative covariances are cut off


def test_satterthwaite_between_its_ends() -> None:
    # R: qt(0.975, 2.5) is 3.574655; equal variances with 1 and 5 df make 4 / (1/1 + 1/5) = 10/3
    estimate = LogEstimate(0.0, variance_rounds=1.0, variance_inputs=1.0, df_rounds=1, df_inputs=5)
    assert estimate.df == pytest.approx(10 / 3)
    alone = LogEstimate(0.0, variance_rounds=0.0, variance_inputs=4.0, df_rounds=1, df_inputs=2.5)
    assert alone.margin(0.95) == pytest.approx(2 * 3.574655, rel=1e-6)


@pytest.mark.parametrize(("share", "df_rounds", "df_inputs"), [(0.95, 2, 8.9), (0.5, 2, 4.9), (0.9, 4, 8.9)])
def test_the_interval_that_decides_holds_its_level_far_out(share: float, df_rounds: float, df_inputs: float) -> None:
    rng = np.random.default_rng(1)
    of_rounds = share * rng.chisquare(df_rounds, 20_000) / df_rounds
    of_inputs = (1 - share) * rng.chisquare(df_inputs, 20_000) / df_inputs
    level = 0.95 ** (1 / 28)
    missed = described = 0
    for error, rounds, inputs in zip(rng.standard_normal(20_000), of_rounds, of_inputs, strict=True):
        if abs(error) < 3 * math.sqrt(rounds + inputs):
            continue  # both quantiles at this level are above 3
        estimate = LogEstimate(0.0, rounds, inputs, df_rounds, df_inputs)
        missed += abs(error) > estimate.guarded_margin(level)
        described += abs(error) > estimate.margin(level)
    assert missed / 20_000 <= (1 - level) * 1.3
    if share == 0.95:
        assert described / 20_000 > (1 - level) * 3  # Satterthwaite, which the deciding interval must not use


def test_the_guarded_margin_gives_each_variance_its_quantile() -> None:
    # R: sqrt(qt(0.975, 2)^2 * 0.01 + qt(0.975, 2.5)^2 * 0.04) is 0.8344187
    estimate = LogEstimate(1.0, variance_rounds=0.01, variance_inputs=0.04, df_rounds=2, df_inputs=2.5)
    assert estimate.guarded_margin(0.95) == pytest.approx(0.8344187, rel=1e-6)
    assert estimate.upper(0.975) == pytest.approx(1.8344187, rel=1e-6)
    assert estimate.upper(0.025) == pytest.approx(1 - 0.8344187, rel=1e-6)
    assert estimate.guarded_margin(0.95) > estimate.margin(0.95)


def test_the_confidence_of_a_limit_is_the_level_whose_bound_is_the_limit() -> None:
    estimate = LogEstimate(0.3, variance_rounds=0.01, variance_inputs=0.02, df_rounds=2, df_inputs=5)
    for level in (0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9):
        assert estimate.confidence_below(estimate.upper(level)) == pytest.approx(level)


@pytest.mark.parametrize(("percentile", "needed"), [(50, 5), (90, 29), (95, 59), (99, 299)])
def test_one_input_too_few_is_too_thin_and_says_the_number(percentile: float, needed: int) -> None:
    assert inputs_needed(percentile) == needed
    rng = np.random.default_rng(5)
    [enough] = percentile_intervals(crossed(rng.random((2, needed))), [percentile], rng=1)
    assert enough.refusal is None
    [thin] = percentile_intervals(crossed(rng.random((2, needed - 1))), [percentile], rng=1)
    assert thin.low_s is thin.high_s is thin.estimate is thin.upper_s(0.95) is None
    assert thin.refusal is not None
    assert thin.refusal.kind is RefusalKind.TOO_THIN
    assert thin.refusal.inputs_needed == needed
    assert f"needs {needed} inputs" in thin.refusal.reason


def test_repetitions_do_not_make_inputs() -> None:
    rng = np.random.default_rng(6)
    number, index, _ = (index.ravel() for index in np.indices((2, 10, 50)))
    samples = Samples.from_arrays(rng.random(1000) + 0.1, number, index)
    [p90] = percentile_intervals(samples, [90], rng=1)
    assert (p90.samples, p90.inputs) == (1000, 10)
    assert p90.refusal is not None
    assert p90.refusal.kind is RefusalKind.TOO_THIN


def test_a_low_percentile_needs_inputs_for_its_lower_bound() -> None:
    [p10] = percentile_intervals(crossed(np.random.default_rng(1).random((2, 28))), [10], rng=1)
    assert p10.refusal is not None
    assert p10.refusal.inputs_needed == 29


def test_one_round_describes_only() -> None:
    values = np.linspace(0, 1, 41)[None, :]
    [p50] = percentile_intervals(crossed(values), [50], rng=1)
    assert p50.estimate_s == pytest.approx(math.exp(0.5))
    assert p50.low_s is None
    assert p50.refusal is not None
    assert (p50.refusal.kind, p50.refusal.rounds_needed) == (RefusalKind.ONE_ROUND, 2)


def test_one_input_and_constant_latencies() -> None:
    [one] = percentile_intervals(crossed(np.array([[0.1], [0.2]])), [50], rng=1)
    assert one.refusal is not None
    [constant] = percentile_intervals(crossed(np.full((3, 30), math.log(0.25))), [90], rng=1)
    assert (constant.low_s, constant.estimate_s, constant.high_s) == pytest.approx((0.25, 0.25, 0.25))
    assert constant.upper_s(0.999) == pytest.approx(0.25)


def test_missing_cells_are_left_out_of_their_round_alone() -> None:
    rng = np.random.default_rng(8)
    values = rng.random((3, 60))
    number, index = (index.ravel() for index in np.indices(values.shape))
    kept = ~((number == 1) & (index >= 40))
    samples = Samples.from_arrays(np.exp(values.ravel()[kept]), number[kept], index[kept])
    [interval] = percentile_intervals(samples, [50], rng=1)
    assert interval.inputs == 40
    assert np.log(interval.by_round_s) == pytest.approx(
        [np.median(values[0]), np.median(values[1, :40]), np.median(values[2])]
    )
    assert interval.low_s is not None and interval.high_s is not None
    assert interval.low_s < interval.estimate_s < interval.high_s


@given(
    seed=st.integers(0, 2**32),
    rounds=st.integers(2, 5),
    inputs=st.integers(29, 60),
    level=st.floats(0.5, 0.999),
    factor=st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=40)
def test_intervals_hold_their_estimate_and_scale_with_the_unit(
    seed: int, rounds: int, inputs: int, level: float, factor: float
) -> None:
    values = np.random.default_rng(seed).standard_normal((rounds, inputs))
    intervals = percentile_intervals(crossed(values), [50, 90], confidence_level=level, n_resamples=200, rng=1)
    scaled = percentile_intervals(
        crossed(values + math.log(factor)), [50, 90], confidence_level=level, n_resamples=200, rng=1
    )
    for one, other in zip(intervals, scaled, strict=True):
        assert one.estimate is not None
        assert one.estimate_s == pytest.approx(math.exp(log_percentiles(crossed(values), [one.percentile]).mean()))
        # Bounds more than tenfold away are none, whatever the unit.
        if one.estimate.margin(level) > math.log(WIDEST):
            assert (one.low_s, one.high_s) == (other.low_s, other.high_s) == (None, None)
            continue
        assert one.low_s is not None and one.high_s is not None and one.low_s <= one.estimate_s <= one.high_s
        assert (other.low_s, other.high_s) == pytest.approx((one.low_s * factor, one.high_s * factor))


@pytest.mark.parametrize("level", [0.0, 1.0, float("nan")])
def test_levels_out_of_range_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="confidence level"):
        percentile_intervals(crossed(np.zeros((2, 30))), [50], confidence_level=level)
    with pytest.raises(ValueError, match="confidence level"):
        inputs_needed(50, confidence_level=level)


def test_a_models_error_is_a_third_source() -> None:
    measured = LogEstimate(0.3, variance_rounds=0.01, variance_inputs=0.02, df_rounds=2, df_inputs=5)
    foreseen = dataclasses.replace(measured, variance_model=0.04, df_model=5)
    assert foreseen.standard_error == pytest.approx(math.sqrt(0.07))
    assert foreseen.df == pytest.approx(0.07**2 / (0.01**2 / 2 + 0.02**2 / 5 + 0.04**2 / 5))
    model_alone = LogEstimate(0.3, 0.0, 0.0, df_rounds=2, df_inputs=5, variance_model=0.04, df_model=5)
    assert model_alone.guarded_margin(0.95) == pytest.approx(2.5706 * 0.2, rel=1e-4)  # R: qt(0.975, 5) * 0.2
    assert foreseen.guarded_margin(0.99) ** 2 == pytest.approx(
        measured.guarded_margin(0.99) ** 2 + model_alone.guarded_margin(0.99) ** 2
    )
    for level in (0.6, 0.95, 0.9999):
        assert foreseen.confidence_below(foreseen.upper(level)) == pytest.approx(level)
        assert model_alone.confidence_below(model_alone.upper(level)) == pytest.approx(level)


def test_an_estimate_alone_is_the_estimate_of_the_interval() -> None:
    rng = np.random.default_rng(3)
    samples = Samples.from_arrays(rng.lognormal(size=60), np.repeat([1, 2, 3], 20), np.tile(np.arange(20), 3))
    for percentile in (50, 90, 99.9):
        (interval,) = percentile_intervals(samples, [percentile], rng=1)
        assert percentile_estimate(samples, percentile) == interval.estimate_s


def test_a_seed_draws_what_its_generator_draws() -> None:
    drawn = seeded_draws(20, 100, 1)
    assert np.array_equal(drawn, draw_inputs(20, n_resamples=100, rng=np.random.default_rng(1)))
    with pytest.raises(ValueError, match="read-only"):
        drawn[0, 0] = 1


@pytest.mark.parametrize("tests", [2, 6, 18, 400])
def test_what_strategies_share_is_bounded_at_the_level_of_half_their_joint_error(tests: int) -> None:
    level = 0.95 ** (1 / tests)
    shared = LogEstimate(0.0, 0.0, 0.0, df_rounds=2, df_inputs=5, variance_shared=0.01, df_shared=2)
    # R: qt(sqrt(0.95), 2) * 0.1
    assert shared.upper(level, tests=tests) == pytest.approx(0.1 * stats.t(2).ppf(0.95**0.5))
    assert shared.upper(level) == pytest.approx(0.1 * stats.t(2).ppf(level))
    both = LogEstimate(0.0, 0.02, 0.001, df_rounds=7, df_inputs=5, variance_shared=0.01, df_shared=2)
    parts = (
        0.02 * stats.t(7).ppf(level) ** 2 + 0.001 * stats.t(5).ppf(level) ** 2 + 0.01 * stats.t(2).ppf(0.95**0.5) ** 2
    )
    assert both.upper(level, tests=tests) == pytest.approx(parts**0.5)


@given(
    st.floats(min_value=1e-4, max_value=3),
    st.integers(min_value=1, max_value=200),
    st.floats(min_value=1e-6, max_value=1),
    st.floats(min_value=1e-6, max_value=1),
    st.floats(min_value=1, max_value=40),
)
def test_the_confidence_of_shared_variances_inverts_their_bound(
    limit: float, tests: int, rounds: float, shared: float, df: float
) -> None:
    estimate = LogEstimate(0.0, rounds, 0.0, df_rounds=df, df_inputs=5, variance_shared=shared, df_shared=2)
    confidence = estimate.confidence_below(limit, tests=tests)
    assert 0.5 <= confidence <= 1
    if confidence < 1 - 1e-12:
        assert estimate.upper(confidence, tests=tests) == pytest.approx(limit, rel=1e-6)
    # More tests at one level leave less to what is shared: the level that a limit allows can only be higher.
    assert estimate.confidence_below(limit, tests=tests + 1) >= confidence - 1e-9


def test_two_rounds_that_disagree_leave_the_interval_unknown() -> None:
    [median] = percentile_intervals(crossed(np.repeat([[0.0], [1.0]], 30, axis=1)), [50], rng=1)
    assert (median.low_s, median.high_s, median.refusal) == (None, None, None)
    assert median.unknown == "unknown after 2 rounds"
    # What decides still knows the bound, however far it is.
    assert median.estimate is not None and median.estimate.upper(0.975) > math.log(100)
    [alike] = percentile_intervals(crossed(np.repeat([[0.0], [0.01]], 30, axis=1)), [50], rng=1)
    assert alike.unknown is None and alike.low_s is not None
