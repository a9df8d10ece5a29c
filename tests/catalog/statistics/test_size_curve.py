"""Curves over size: their basis, the levels of rounds beside them, and how smooth they are."""

import numpy as np
import pytest

from catalog.statistics.pool_percentiles import CurveBasis, fit_size_curves

POOL = np.linspace(5, 12, 500)
EVERYTHING = np.ones(60, dtype=np.bool_)


def basis(samples: int = 60) -> CurveBasis:
    of_pool = CurveBasis.of_pool(POOL, samples=samples)
    assert of_pool is not None
    return of_pool


def test_beyond_the_outermost_knots_a_curve_is_a_line() -> None:
    own = basis()
    for scaled in (np.array([-0.2, -0.1, 0.0]), np.array([1.0, 1.1, 1.2])):
        columns = own.columns(own.smallest + own.span * scaled)
        assert np.diff(columns, n=2, axis=0) == pytest.approx(0, abs=1e-9)


def test_more_samples_carry_more_knots() -> None:
    assert [basis(samples).knots.size for samples in (10, 30, 120, 360)] == [5, 5, 8, 12]


def test_a_pool_of_two_sizes_has_a_line_and_one_of_one_size_nothing() -> None:
    two = CurveBasis.of_pool(np.repeat([5.0, 6.0], 50), samples=30)
    assert two is not None and two.columns(np.array([5.0, 6.0])).tolist() == [[0.0], [1.0]]
    assert CurveBasis.of_pool(np.full(50, 5.0), samples=30) is None


def test_rounds_that_drew_larger_inputs_are_not_taken_for_slower_ones() -> None:
    rng = np.random.default_rng(1)
    number = np.repeat([0, 1, 2], 20)
    log_size = np.concatenate([rng.uniform(5, 8, 20), rng.uniform(7, 10, 20), rng.uniform(9, 12, 20)])
    level = np.array([0.1, -0.2, 0.05])
    (curve,) = fit_size_curves(0.4 * log_size + level[number], number, basis().columns(log_size), [EVERYTHING])
    assert np.diff(curve.level) == pytest.approx(np.diff(level), abs=1e-6)


def test_a_curve_is_followed_and_noise_is_not() -> None:
    rng = np.random.default_rng(2)
    log_size, number = np.sort(rng.uniform(5, 12, 60)), np.tile([0, 1, 2], 20)
    bent = np.log(0.01 + np.exp(log_size - 10))
    own = basis()
    curves = fit_size_curves(bent + rng.normal(0, 0.02, 60), number, own.columns(log_size), [EVERYTHING])
    curves += fit_size_curves(rng.normal(0, 0.5, 60), number, own.columns(log_size), [EVERYTHING])
    foretold = own.columns(log_size) @ curves[0].coefficients + curves[0].level.mean()
    assert np.abs(foretold - bent).mean() < 0.05
    assert curves[1].freedom < curves[0].freedom


def test_each_selection_has_its_own_fit() -> None:
    rng = np.random.default_rng(3)
    log_size, number = rng.uniform(5, 12, 60), np.tile([0, 1, 2], 20)
    values, columns = rng.normal(0, 1, 60), basis().columns(log_size)
    without = number != 2
    together = fit_size_curves(values, number, columns, [EVERYTHING, without])
    (alone,) = fit_size_curves(values[without], number[without], columns[without], [EVERYTHING[without]])
    assert together[1].coefficients == pytest.approx(alone.coefficients)
    assert together[1].level[:2] == pytest.approx(alone.level) and together[1].level[2] == 0
