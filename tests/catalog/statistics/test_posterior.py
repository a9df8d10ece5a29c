"""Posterior probabilities: against direct draws, closed forms and their own limits."""

import numpy as np
import pytest
from scipy import stats

from catalog.statistics.drops import hit_drop, mean_iou_drop, separate_drop
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.posterior import (
    drop_probability,
    joint_probability,
    latency_probability,
    percentile_correlation,
    share_probability,
)


@pytest.mark.parametrize(("rounds", "inputs"), [(0.01, 0.0), (0.01, 0.004), (0.002, 0.01)])
@pytest.mark.parametrize("distance", [-0.1, 0.05, 0.2, 0.4])
def test_a_latency_is_within_as_often_as_a_sum_of_t_variables(rounds: float, inputs: float, distance: float) -> None:
    estimate = LogEstimate(0.0, rounds, inputs, df_rounds=4, df_inputs=9)
    rng = np.random.default_rng(3)
    drawn = np.sqrt(rounds) * rng.standard_t(4, 200_000) + np.sqrt(inputs) * rng.standard_t(9, 200_000)
    assert latency_probability(estimate, distance) == pytest.approx(float((drawn <= distance).mean()), abs=0.01)


def test_a_latency_without_variance_is_certain() -> None:
    constant = LogEstimate(0.0, 0.0, 0.0, df_rounds=2, df_inputs=9)
    assert (latency_probability(constant, 0.0), latency_probability(constant, -1e-9)) == (1.0, 0.0)


def test_lost_and_gained_items_share_one_posterior() -> None:
    reference = np.arange(1000) < 900
    candidate = (np.arange(1000) >= 30) & (np.arange(1000) < 910)
    drop = hit_drop(reference, candidate)
    drawn = np.random.default_rng(7).dirichlet([31, 11, 960], 200_000)
    for limit_pp in (1.0, 2.0, 3.0):
        exact = float((100 * (drawn[:, 0] - drawn[:, 1]) <= limit_pp).mean())
        assert drop_probability(drop, limit_pp) == pytest.approx(exact, abs=0.02)


def test_a_drop_is_the_more_probable_the_wider_the_limit_and_never_certain() -> None:
    drop = hit_drop(np.ones(100, dtype=np.bool_), np.arange(100) >= 2)
    probabilities = [drop_probability(drop, limit_pp) for limit_pp in np.linspace(-1, 30, 40)]
    assert probabilities == sorted(probabilities) and probabilities[0] > 0 and probabilities[-1] < 1


def test_two_shares_of_unknown_pairing_differ_by_independent_beta_variables() -> None:
    drop = separate_drop(900, 1000, 880, 1000)
    rng = np.random.default_rng(7)
    drawn = 100 * (rng.beta(901, 101, 200_000) - rng.beta(881, 121, 200_000))
    for limit_pp in (0.5, 2.0, 4.0):
        assert drop_probability(drop, limit_pp) == pytest.approx(float((drawn <= limit_pp).mean()), abs=0.02)


def test_what_computes_the_same_loses_nothing() -> None:
    same = np.arange(50) % 3 > 0
    assert drop_probability(hit_drop(same, same, bit_identical=True), 0.0) == 1.0


def test_a_mean_intersection_over_union_has_the_confidence_of_its_bound() -> None:
    rng = np.random.default_rng(5)
    union = np.full((200, 2), 100)
    worse = np.minimum(union, 90 + rng.integers(0, 10, union.shape))
    drop = mean_iou_drop((union, union), (worse, union), rng=1)
    limit_pp = drop.upper_pp(0.9)
    assert drop_probability(drop, limit_pp) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize(("right", "items"), [(0, 10), (10, 10), (83, 100)])
def test_a_share_has_a_beta_posterior(right: int, items: int) -> None:
    for least in (0.0, 0.5, 0.8, 1.0):
        exact = float(stats.beta(right + 1, items - right + 1).sf(least))
        assert share_probability(right, items, least) == pytest.approx(exact)


def test_several_percentiles_hold_together_as_often_as_correlated_draws() -> None:
    correlation = np.array([[1.0, 0.8, 0.6], [0.8, 1.0, 0.7], [0.6, 0.7, 1.0]])
    limits = np.array([0.4, 1.0, 1.3])
    drawn = np.random.default_rng(9).multivariate_normal(np.zeros(3), correlation, 200_000)
    exact = float(np.all(drawn <= limits, axis=1).mean())
    stated = joint_probability(stats.norm.cdf(limits).tolist(), correlation)
    assert stated == pytest.approx(exact, abs=0.02)


def test_together_is_between_the_product_and_the_least() -> None:
    apart, one = np.eye(2), np.full((2, 2), 1.0) - 1e-9 * (1 - np.eye(2))
    assert joint_probability([0.6, 0.7], apart) == pytest.approx(0.42, abs=0.02)
    assert joint_probability([0.6, 0.7], one) == pytest.approx(0.6, abs=0.005)
    assert joint_probability([0.6, 1.0], apart) == 0.6


def test_the_correlation_is_pooled_over_the_strategies() -> None:
    rng = np.random.default_rng(4)
    true = np.array([[1.0, 0.9], [0.9, 1.0]])
    strategies = [scale * rng.multivariate_normal([0, 0], true, 3) for scale in (0.01, 0.1, 1.0) for _ in range(40)]
    # Each on the scale of its own spread, which two degrees of freedom know poorly: somewhat below the true one.
    assert 0.8 < percentile_correlation(strategies)[0, 1] < 0.9
    assert percentile_correlation([np.zeros((2, 2))])[0, 1] == 0.5
