import math
import random as random_module
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from catalog.statistics.comparison import Question, rank_strategies
from catalog.statistics.intervals import RefusalKind
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.samples import Samples
from catalog.statistics.variances import UsualVariance, moderated, strategy_variances, variance_prior

LOG_LATENCY = [-4.2, -4.0, -3.7, -3.5, -3.1, -2.8, -2.2, -2.0, -1.5, -1.1]
VARIANCE = [0.012, 0.31, 0.0004, 0.009, 0.20, 0.0001, 0.032, 0.00009, 0.0021, 0.00004]


def estimates(variances: list[float], *, df: float = 2) -> list[LogEstimate]:
    """Return estimates of strategies whose latencies are evenly apart."""
    places = np.linspace(-4, -1, len(variances)).tolist()
    return [LogEstimate(place, variance, 0.001, df, 5.0) for place, variance in zip(places, variances, strict=True)]


@pytest.mark.parametrize(
    ("standard_errors", "df", "first", "last"),
    [
        (0, 0.836110817, 0.010902082, 6.9501998e-05),
        (1, 0.59100052, 0.0050156224, 3.1975158e-05),
        (2, 0.4816235, 0.00267641395, 1.706244e-05),
    ],
)
def test_the_prior_is_the_one_that_r_finds(standard_errors: float, df: float, first: float, last: float) -> None:
    # R 4.2.2, d <- 2:
    #   e <- log(s2) - digamma(d/2) + log(d/2); fit <- lm(e ~ x); v <- sum(resid(fit)^2) / fit$df.residual
    #   err <- sqrt(2 / fit$df.residual + psigamma(d/2, 3) / trigamma(d/2)^2 / length(x))
    #   t <- v * (1 + k * err) - trigamma(d/2)
    #   d0 <- 2 * uniroot(function(y) trigamma(y) - t, c(1e-3, 1e3), tol = 1e-12)$root
    #   exp(fitted(fit) + digamma(d0/2) - log(d0/2))[c(1, 10)]
    prior = variance_prior(LOG_LATENCY, VARIANCE, [2.0] * 10, standard_errors=standard_errors)
    assert prior.df == pytest.approx(df, rel=1e-6)
    assert prior.variance[[0, -1]] == pytest.approx([first, last], rel=1e-6)


def of_rounds(values: np.ndarray) -> list[LogEstimate]:
    """Return an estimate per row of log latencies, shape (strategies, rounds)."""
    rounds = values.shape[1]
    return [
        LogEstimate(
            float(row.mean()),
            float(row.var(ddof=1)) / rounds,
            0.0,
            rounds - 1,
            1.0,
            by_round=tuple(enumerate(row.tolist(), start=1)),
        )
        for row in values
    ]


def test_a_steadied_variance_is_the_mean_by_degrees_of_freedom() -> None:
    variances = np.exp(np.random.default_rng(1).normal(-5, 0.8, 18)).tolist()
    own_estimates = estimates(variances)
    prior = variance_prior(
        [estimate.value for estimate in own_estimates],
        [3 * variance for variance in variances],
        [2.0] * 18,
        standard_errors=0.5,
    )
    trusted = (prior.df - 1) * (1 - 3 / 18)
    assert trusted > 0
    for own, usual, steadied in zip(own_estimates, prior.variance / 3, moderated(own_estimates), strict=True):
        # R: pf(f, 2, d0, lower.tail = FALSE); without what each round gave, at most the strategy's own two.
        tail = stats.f(2, prior.df).sf(own.variance_rounds / usual)
        weight = min(trusted * min(18 * tail, 1), 2.0)
        assert steadied.df_rounds == pytest.approx(2 + weight)
        assert steadied.variance_rounds == pytest.approx((weight * usual + 2 * own.variance_rounds) / (2 + weight))
        assert (steadied.value, steadied.variance_inputs, steadied.df_inputs) == (own.value, 0.001, 5.0)


def test_variances_that_scatter_widely_stay_as_they_are() -> None:
    own_estimates = estimates([1e-6, 1e-1] * 9)
    assert moderated(own_estimates) == tuple(own_estimates)


def test_few_strategies_say_nothing_of_what_is_usual() -> None:
    own_estimates = of_rounds(np.random.default_rng(2).normal(size=(3, 4)))
    assert moderated(own_estimates) == tuple(own_estimates)


def test_a_strategy_that_never_varied_is_left_alone_and_asks_nothing_of_the_others() -> None:
    own_estimates = estimates([0.01] * 12)
    still = LogEstimate(-2.0, 0.0, 0.0, 2, 5.0)
    assert moderated([*own_estimates, still])[-1] is still
    assert moderated([*own_estimates, still])[:-1] == moderated(own_estimates)
    assert moderated([still] * 12) == (still,) * 12


def test_a_noisy_strategy_among_quiet_ones_keeps_its_own_variance() -> None:
    values = 0.1 * np.random.default_rng(3).normal(size=(18, 5)) + np.linspace(-1, 1, 18)[:, np.newaxis]
    values[7] += 30 * (values[7] - values[7].mean())
    noisy = of_rounds(values)[7]
    steadied = moderated(of_rounds(values))
    assert steadied[7].df_rounds == pytest.approx(4, abs=0.1)
    assert steadied[7].variance_rounds == pytest.approx(noisy.variance_rounds, rel=0.1)
    # Nor does it make the others noisy by its weight in the effects of the rounds.
    quiet = np.median([estimate.variance_rounds for estimate in steadied[:7]])
    assert quiet * 5 == pytest.approx(0.01, rel=0.5)


def test_what_all_strategies_share_is_split_off_and_not_steadied() -> None:
    rng = np.random.default_rng(4)
    drift = np.array([0.4, -0.1, -0.3])
    values = np.linspace(-1, 1, 18)[:, np.newaxis] + drift + 0.02 * rng.normal(size=(18, 3))
    steadied = moderated(of_rounds(values))
    for estimate in steadied:
        assert estimate.variance_shared == pytest.approx(np.var(drift, ddof=1) / 3, rel=0.2)
        assert estimate.df_shared == 2
    assert np.median([3 * estimate.variance_rounds for estimate in steadied]) == pytest.approx(0.02**2, rel=0.5)
    assert np.median([estimate.df_rounds for estimate in steadied]) > 3


def test_the_own_part_is_taken_against_the_other_strategies() -> None:
    # By hand: equal weights, because all rests have one length.
    values = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    variances = strategy_variances([dict(enumerate(row)) for row in values])
    assert variances.shared == 0
    # The mean of the other three is a third against the strategy: 4 / 3 to each side.
    assert variances.own == pytest.approx([(4 / 3) ** 2] * 4)


def test_strategies_that_err_alike_count_as_few() -> None:
    rng = np.random.default_rng(5)
    # Half of them feel a drift, so that the rests of all point along one line, and have one length.
    felt = np.where(np.arange(18) % 2 < 1, 1.0, 0.0)[:, np.newaxis] * np.array([1.0, -1.2, 0.1, 0.6, -0.5])
    values = np.linspace(-1, 1, 18)[:, np.newaxis] + felt + 0.001 * rng.normal(size=(18, 5))
    apart = np.linspace(-1, 1, 18)[:, np.newaxis] + 0.5 * rng.normal(size=(18, 5))
    assert max(estimate.df_rounds for estimate in moderated(of_rounds(values))) < 4.1
    assert np.median([estimate.df_rounds for estimate in moderated(of_rounds(apart))]) > 4.5


def test_two_rounds_add_at_most_one_degree_of_freedom() -> None:
    values = np.random.default_rng(6).normal(size=(18, 2))
    assert all(1 <= estimate.df_rounds <= 2 for estimate in moderated(of_rounds(values)))


def test_rounds_that_few_strategies_have_stay_in_their_own_part() -> None:
    rng = np.random.default_rng(7)
    values = np.linspace(-1, 1, 8)[:, np.newaxis] + 0.05 * rng.normal(size=(8, 5))
    rounds = of_rounds(values)
    longer = [replace(estimate, by_round=estimate.by_round[:3], df_rounds=2) for estimate in rounds[:6]]
    steadied = moderated([*longer, *rounds[6:]])
    assert {estimate.df_shared for estimate in steadied} == {2}
    assert all(math.isfinite(estimate.variance_rounds) and estimate.variance_rounds > 0 for estimate in steadied)
    # The same rounds of all: the two that only two strategies have say nothing of the others.
    short = moderated([*longer, *(replace(one, by_round=one.by_round[:3], df_rounds=2) for one in rounds[6:])])
    assert steadied[0].variance_shared == pytest.approx(short[0].variance_shared, rel=0.5)


def test_the_ratio_of_two_takes_both_usual_variances_and_the_lesser_trust() -> None:
    values = 0.1 * np.random.default_rng(8).normal(size=(18, 4))
    variances = strategy_variances([dict(enumerate(row)) for row in values])
    one, other = variances.usual[2], variances.usual[9]
    ratio = variances.of_ratio(2, 9)
    assert ratio.usual == UsualVariance(one.variance + other.variance, min(one.df, other.df))
    assert ratio.strategies == 18
    variance, df = ratio.sides[0]
    assert df == pytest.approx(3 + one.df)
    assert variance == pytest.approx((one.df * one.variance + 3 * variances.own[2]) / df)


@given(
    st.lists(st.floats(min_value=-12, max_value=2), min_size=1, max_size=25),
    st.integers(min_value=2, max_value=6),
    st.floats(min_value=0, max_value=3),
    st.randoms(use_true_random=False),
)
def test_steadied_variances_are_finite_and_count_for_at_least_their_own_rounds(
    logs: list[float], rounds: int, drift: float, random: random_module.Random
) -> None:
    rng = np.random.default_rng(random.randrange(2**32))
    values = np.exp(np.array(logs) / 2)[:, np.newaxis] * rng.normal(size=(len(logs), rounds))
    for steadied in moderated(of_rounds(values + drift * rng.normal(size=rounds))):
        assert rounds - 1 <= steadied.df_rounds <= max(rounds - 1, (rounds - 1) * len(logs))
        assert math.isfinite(steadied.variance_rounds) and steadied.variance_rounds >= 0
        assert math.isfinite(steadied.variance_shared) and steadied.variance_shared >= 0
        assert math.isfinite(steadied.upper(0.997, tests=len(logs)))


@pytest.mark.parametrize(("noisy", "drift"), [(1, 0.0), (3, 0.0), (1, 0.2), (3, 0.5)])
def test_bounds_of_all_strategies_hold_together(noisy: float, drift: float) -> None:
    # A small version of `benchmarks.coverage --only joint-drift`: 300 studies, standard error 0.013 at 0.95.
    rng = np.random.default_rng(9)
    scale = np.where(np.arange(18) == 9, noisy, 1.0)[:, np.newaxis]
    truth, level = np.linspace(-1, 1, 18), 0.95 ** (1 / 18)
    holding, narrower = 0, []
    for _ in range(300):
        values = truth[:, np.newaxis] + 0.1 * scale * rng.normal(size=(18, 3)) + drift * rng.normal(size=3)
        own = of_rounds(values)
        bounds = np.array([estimate.upper(level, tests=18) for estimate in moderated(own)])
        holding += bool(np.all(bounds >= truth))
        widths = bounds - values.mean(axis=1), [estimate.upper(level) - estimate.value for estimate in own]
        narrower.append(np.median(widths[0]) / np.median(widths[1]))
    assert holding / 300 >= 0.95 - 2 * 0.013
    assert np.median(narrower) < 0.6


def test_the_effect_of_a_round_is_what_moved_all_that_were_measured_in_it() -> None:
    drift = {1: 0.3, 2: -0.1, 3: -0.2}
    every = [{number: place + effect for number, effect in drift.items()} for place in (-4.0, -3.0, -2.0, -1.0)]
    # One strategy went on alone: its further rounds say nothing of what they have in common with others.
    alone = {**every[0], 4: -4.0, 5: -4.0}
    variances = strategy_variances([alone, *every[1:]])
    assert variances.effects == pytest.approx(drift)


def raced(own: float, factors: list[float]) -> list[Samples]:
    """Return strategies as a race leaves them: the first six have three rounds, the others one."""
    rng = np.random.default_rng(11)
    drift = 0.1 * rng.standard_normal(3)
    study = []
    for place, factor in enumerate(factors):
        rounds = 3 if place < 6 else 1
        of_round = drift[:rounds] + own * rng.standard_normal(rounds)
        log_latency = math.log(factor) + of_round[:, None] + 0.05 * rng.standard_normal((rounds, 10))
        numbers, inputs = np.indices(log_latency.shape)
        study.append(Samples.from_arrays(np.exp(log_latency).ravel(), numbers.ravel(), inputs.ravel()))
    return study


def test_strategies_of_one_round_are_told_apart_by_what_is_usual_for_the_others() -> None:
    ranks = rank_strategies(raced(0.05, [1, 1, 1.1, 1.2, 1.3, 1.4, 8, 9, 20]), Question(50), rng=1).ranks
    # Eight times as slow is beyond what one round may be off; an eighth slower than another of one round is not.
    assert [rank.rank for rank in ranks[6:]] == [7, 7, 9] and max(rank.worst_rank for rank in ranks[:6]) == 6
    # One strategy with three rounds does not show what is usual.
    alone = rank_strategies(raced(0.05, [1] * 6 + [8])[5:], Question(50), rng=1)
    assert [comparison.refusal.kind for comparison in alone.comparisons if comparison.refusal] == [
        RefusalKind.ONE_ROUND
    ]


def test_equal_strategies_of_one_round_are_hardly_ever_told_apart() -> None:
    # 95 % hold together by design; here all pairs of twelve equal strategies, in 40 studies.
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        study = []
        for rounds in [3] * 6 + [1] * 6:
            log_latency = 0.1 * rng.standard_normal((rounds, 1)) + 0.05 * rng.standard_normal((rounds, 10))
            numbers, inputs = np.indices(log_latency.shape)
            study.append(Samples.from_arrays(np.exp(log_latency).ravel(), numbers.ravel(), inputs.ravel()))
        ranking = rank_strategies(study, Question(50, n_resamples=50), rng=1)
        wrong += any(comparison.verdict is ComparisonOutcome.DIFFERENT for comparison in ranking.comparisons)
    assert wrong <= 4


def in_rounds(numbers: range, generator: np.random.Generator, place: float) -> LogEstimate:
    values = place + generator.normal(0.0, 0.15, len(numbers))
    variance = float(np.var(values, ddof=1)) / len(numbers)
    by_round = tuple(zip(numbers, values.tolist(), strict=True))
    return LogEstimate(float(values.mean()), variance, 0.0, len(numbers) - 1, 9, by_round=by_round)


def test_many_rounds_alone_are_not_held_up_by_two_rounds_of_all() -> None:
    generator = np.random.default_rng(4)
    others = [in_rounds(range(1, 3), generator, -3.0 - place) for place in range(5)]
    last = in_rounds(range(1, 56), generator, -8.0)
    steadied = moderated([*others, last])
    assert all(estimate.variance_shared > 0 for estimate in steadied[:-1])
    assert steadied[-1] == last
    # Twenty standard errors: the late look of a race asks for one error in four thousand.
    limit = last.value + 20 * math.sqrt(last.variance_rounds)
    assert steadied[-1].confidence_below(limit, tests=4) > 1 - 1e-9
