"""The search for the confidence of a bound, beside scipy's."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from catalog.statistics.drop_bounds import PairedCounts, root


def test_a_root_is_that_of_scipy_to_the_last_bit() -> None:
    rng = np.random.default_rng(1)
    compared = 0
    for items in (5, 30, 83, 500, 2000):
        for _ in range(20):
            lost, gained = (int(count) for count in rng.integers(0, items // 4 + 1, size=2))
            counts, limit_pp = PairedCounts(lost, gained, items), float(rng.uniform(-5, 40))

            def excess(logarithm: float, counts: PairedCounts = counts, limit_pp: float = limit_pp) -> float:
                return counts.bound_pp(math.exp(logarithm)) - limit_pp

            ends = math.log(1e-15), 0.0
            if excess(ends[0]) > 0 > excess(ends[1]):
                assert root(excess, *ends, tolerance=1e-9) == brentq(excess, *ends, xtol=1e-9)
                compared += 1
    assert compared > 30


@pytest.mark.parametrize("ends", [(0.0, 2.0), (2.0, 0.0), (math.sqrt(2), 3.0)])
def test_a_root_from_either_end(ends: tuple[float, float]) -> None:
    assert root(lambda x: x * x - 2, *ends, tolerance=1e-12) == pytest.approx(math.sqrt(2), abs=1e-11)
