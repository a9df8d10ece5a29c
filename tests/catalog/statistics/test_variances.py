""""""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.statistics.intervals import LogEstimate
from catalog.statistics.samples import Samples
from catalog.statistics.variances import moderated, variance_prior, variance_shares


def samples_of(values: np.ndarray, kept: np.ndarray | None = None) -> Samples:
    """Return samples from log latencies of shape (rounds, inputs, repetitions)."""
    number, index, _ = (index.ravel() for index in np.indices(values.shape))
    chosen = np.ones(values.size, dtype=bool) if kept is None else kept.ravel()
    return Samples.from_arrays(np.exp(values.ravel()[chosen]), number[chosen], index[chosen])


def test_a_full_table_gives_the_analysis_of_variance() -> None:
    # R: y <- c(0.1, 0.5, 0.9, 0.3, 0.8, 1.0, 0.2, 0.4, 1.3)
    #    summary(aov(y ~ gl(3, 3) + gl(3, 1, 9)))  mean squares: rows 0.0311111111, columns 0.5677777778,
    #    residuals 0.0327777778; so rows (0.03111 - 0.03278) / 3 < 0, columns (0.56778 - 0.03278) / 3
    values = np.array([[0.1, 0.5, 0.9], [0.3, 0.8, 1.0], [0.2, 0.4, 1.3]])
    shares = variance_shares(samples_of(values[..., None]))
    assert shares.rest == pytest.approx(0.0327777778)
    assert shares.inputs == pytest.approx(0.5350 / 3)
    assert (shares.rounds, shares.truncated) == (0.0, ("rounds",))
    assert shares.inputs_share == pytest.approx(0.5350 / 3 / (0.5350 / 3 + 0.0327777778))
    assert shares.rounds_share == 0


def test_repetitions_are_told_from_the_interaction() -> None:
    rng = np.random.default_rng(1)
    rounds, inputs, repetitions = 4, 6, 3
    values = rng.standard_normal((rounds, inputs, repetitions)) + rng.standard_normal((rounds, inputs, 1))
    cell, overall = values.mean(axis=2), values.mean()
    of_round, of_input = cell.mean(axis=1), cell.mean(axis=0)
    within = ((values - cell[..., None]) ** 2).sum() / (rounds * inputs * (repetitions - 1))
    crossed = repetitions * ((cell - of_round[:, None] - of_input + overall) ** 2).sum() / ((rounds - 1) * (inputs - 1))
    rows = inputs * repetitions * ((of_round - overall) ** 2).sum() / (rounds - 1)
    columns = rounds * repetitions * ((of_input - overall) ** 2).sum() / (inputs - 1)
    shares = variance_shares(samples_of(values))
    assert shares.rest == pytest.approx((crossed - within) / repetitions + within)
    assert shares.rounds == pytest.approx(max(0, (rows - crossed) / (inputs * repetitions)))
    assert shares.inputs == pytest.approx(max(0, (columns - crossed) / (rounds * repetitions)))


def test_unbiased_with_missing_cells_and_unequal_repetitions() -> None:
    rng = np.random.default_rng(2)
    truth = np.array([0.4, 1.0, 0.6])
    estimates = []
    for _ in range(600):
        values = (
            np.sqrt(truth[0]) * rng.standard_normal((6, 1, 1))
            + np.sqrt(truth[1]) * rng.standard_normal((1, 12, 1))
            + np.sqrt(0.4) * rng.standard_normal((6, 12, 1))
            + np.sqrt(0.2) * rng.standard_normal((6, 12, 2))
        )
        shares = variance_shares(samples_of(values, rng.random(values.shape) < 0.6))
        estimates.append([shares.rounds, shares.inputs, shares.rest])
    # Truncation lifts the mean of the smallest a little; standard errors are about 0.01, 0.02 and 0.005.
    np.testing.assert_allclose(np.mean(estimates, axis=0), truth, atol=0.06)


def test_what_is_drawn_independently_is_what_counts() -> None:
    inputs_only = np.repeat(np.random.default_rng(3).standard_normal((1, 20, 1)), 5, axis=0)
    shares = variance_shares(samples_of(inputs_only))
    assert (shares.inputs_share, shares.samples) == (pytest.approx(1.0), 100)
    assert shares.effective_samples == pytest.approx(20)
    rounds_only = np.repeat(np.random.default_rng(3).standard_normal((5, 1, 1)), 20, axis=1)
    assert variance_shares(samples_of(rounds_only)).effective_samples == pytest.approx(5)
    # Five repetitions of 100 inputs that repeat themselves: not 500 values.
    repeated = np.broadcast_to(np.random.default_rng(4).standard_normal((1, 100, 1)), (2, 100, 5))
    assert variance_shares(samples_of(repeated)).effective_samples == pytest.approx(100)


def test_degenerate_tables_say_what_they_lack() -> None:
    constant = variance_shares(samples_of(np.full((3, 4, 2), -1.0)))
    assert (constant.rounds, constant.inputs, constant.rest) == (0, 0, 0)
    assert (constant.rest_share, constant.effective_samples, constant.truncated) == (0, None, ())
    for shape in ((1, 9, 1), (9, 1, 1), (1, 1, 1)):
        lacking = variance_shares(samples_of(np.random.default_rng(5).random(shape)))
        assert lacking.rounds is lacking.rest is lacking.effective_samples is None
        assert f"got {shape[0]} and {shape[1]}" in (lacking.reason or "")
    apart = variance_shares(Samples.from_arrays([0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2], [0, 1, 2, 3]))
    assert "too few inputs" in (apart.reason or "")


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


def test_a_steadied_variance_is_the_mean_by_degrees_of_freedom() -> None:
    variances = np.exp(np.random.default_rng(1).normal(-5, 1.2, 18)).tolist()
    own_estimates = estimates(variances)
    prior = variance_prior(
        [estimate.value for estimate in own_estimates], [3 * variance for variance in variances], [2.0] * 18
    )
    weight = min((prior.df - 1) * (1 - 6 / 18), 2.0)
    assert weight > 0
    for own, usual, steadied in zip(own_estimates, prior.variance / 3, moderated(own_estimates), strict=True):
        assert steadied.df_rounds == pytest.approx(2 + weight)
        assert steadied.variance_rounds == pytest.approx((weight * usual + 2 * own.variance_rounds) / (2 + weight))
        assert (steadied.value, steadied.variance_inputs, steadied.df_inputs) == (own.value, 0.001, 5.0)


def test_variances_that_scatter_widely_stay_as_they_are() -> None:
    own_estimates = estimates([1e-6, 1e-1] * 9)
    assert moderated(own_estimates) == tuple(own_estimates)


def test_few_strategies_say_nothing_of_what_is_usual() -> None:
    own_estimates = estimates([0.01] * 6)
    assert moderated(own_estimates) == tuple(own_estimates)


def test_a_strategy_that_never_varied_is_left_alone_and_asks_nothing_of_the_others() -> None:
    own_estimates = estimates([0.01] * 12)
    still = LogEstimate(-2.0, 0.0, 0.0, 2, 5.0)
    assert moderated([*own_estimates, still])[-1] is still
    assert moderated([*own_estimates, still])[:-1] == moderated(own_estimates)
    assert moderated([still] * 12) == (still,) * 12


@given(st.lists(st.floats(min_value=-12, max_value=2), min_size=1, max_size=25))
def test_steadied_variances_are_finite_and_never_count_for_more_than_twice_their_rounds(logs: list[float]) -> None:
    for steadied in moderated(estimates([math.exp(log) for log in logs], df=4)):
        assert 4 <= steadied.df_rounds <= 8
        assert math.isfinite(steadied.variance_rounds) and steadied.variance_rounds > 0
