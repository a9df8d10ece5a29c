"""Variances steadied by other strategies: against R, against their formula, and where they must keep out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.statistics.intervals import LogEstimate
from catalog.statistics.moderation import moderated, variance_prior

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
