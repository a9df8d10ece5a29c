import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from catalog.statistics.drops import hit_drop, mcnemar_exact, pair_items
from catalog.statistics.verdicts import Verdict


def hits(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, lost, gained, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test_of_the_disagreements(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar_exact(lost, gained) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    # R: binom.test(x, n)$p.value
    ("lost", "gained", "pvalue"),
    [(5, 1, 0.21875), (0, 7, 0.015625), (12, 12, 1.0), (100, 70, 0.02584439)],
)
def test_mcnemar_in_r(lost: int, gained: int, pvalue: float) -> None:
    assert mcnemar_exact(lost, gained) == pytest.approx(pvalue, rel=1e-6)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6))
@settings(deadline=None)
def test_the_bootstrap_distribution_is_exact(same: int, lost: int, gained: int) -> None:
    items = same + lost + gained
    drop = hit_drop(*hits(same, lost, gained, 0))
    one = np.array([gained, same, lost]) / items
    mass = np.array([1.0])
    for _ in range(items):
        mass = np.convolve(mass, one)
    np.testing.assert_allclose(drop.cumulative, np.cumsum(mass), atol=1e-10)
    np.testing.assert_allclose(drop.support_pp, np.arange(-items, items + 1) * 100 / items)


def test_the_interval_is_scipys_bootstrap() -> None:
    reference, candidate = hits(800, 60, 30, 110)
    drop = hit_drop(reference, candidate)
    difference = 100 * (reference.astype(float) - candidate)
    independent = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert drop.drop_pp == pytest.approx(3.0)
    assert (drop.low_pp, drop.high_pp) == pytest.approx(tuple(independent.confidence_interval), abs=0.11)
    assert (drop.lost, drop.gained, drop.items) == (60, 30, 1000)
    simultaneous = hit_drop(reference, candidate, comparisons=10)
    assert simultaneous.low_pp < drop.low_pp < drop.high_pp < simultaneous.high_pp


@given(st.integers(0, 50), st.integers(0, 20), st.integers(0, 20), st.integers(1, 50))
@settings(deadline=None)
def test_intervals_hold_the_drop_and_turn_round(both: int, lost: int, gained: int, neither: int) -> None:
    reference, candidate = hits(both, lost, gained, neither)
    drop, back = hit_drop(reference, candidate), hit_drop(candidate, reference)
    assert drop.low_pp <= drop.drop_pp <= drop.high_pp
    assert drop.drop_pp == -back.drop_pp
    assert drop.pvalue == back.pvalue
    step = 100 / reference.size
    assert (drop.low_pp, drop.high_pp) == pytest.approx((-back.high_pp, -back.low_pp), abs=step + 1e-9)


def test_identical_predictions_drop_nothing_and_say_so() -> None:
    drop = hit_drop(*hits(70, 0, 0, 30))
    assert (drop.drop_pp, drop.low_pp, drop.high_pp, drop.pvalue) == (0.0, 0.0, 0.0, 1.0)
    assert drop.note is not None and "all items agree" in drop.note
    assert drop.upper_pp(0.9999) == 0
    assert drop.verdict(margin_pp=0.5) is Verdict.EQUIVALENT
    assert hit_drop(*hits(70, 1, 1, 30)).note is None


def test_one_item_and_total_loss() -> None:
    assert hit_drop([True], [False]).drop_pp == 100
    lost = hit_drop(*hits(0, 50, 0, 0))
    assert (lost.low_pp, lost.high_pp) == (100.0, 100.0)
    assert lost.verdict(margin_pp=1.0) is Verdict.DIFFERENT


def test_many_items_lose_no_precision() -> None:
    drop = hit_drop(*hits(48_000, 1_000, 500, 500))
    error = 100 * np.sqrt((1500 - 500**2 / 50_000) / 50_000**2)
    assert (drop.low_pp, drop.high_pp) == pytest.approx((1 - 1.96 * error, 1 + 1.96 * error), abs=0.003)
    assert drop.upper_pp(1 - 1e-6) == pytest.approx(1 + 4.753 * error, abs=0.01)


def test_confidence_of_a_limit_agrees_with_the_bound() -> None:
    drop = hit_drop(*hits(900, 30, 20, 50))
    for level in (0.5, 0.9, 0.99):
        bound = drop.upper_pp(level)
        assert drop.confidence_at_most(bound) >= level
        assert drop.confidence_at_most(bound - 0.11) < level
    assert drop.confidence_at_most(-100.1) == 0


@pytest.mark.parametrize(
    ("reference", "candidate", "said"),
    [
        ([1, 0], [1, 0], "boolean"),
        ([True], [True, False], "same items"),
        (np.array([], dtype=bool), np.array([], dtype=bool), "not none"),
    ],
)
def test_what_is_no_pair_of_hits_is_refused(reference: object, candidate: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hit_drop(reference, candidate)  # type: ignore[arg-type]


def test_items_pair_by_their_ids() -> None:
    paired = pair_items(["x", "a", "m"], ["m", "q", "x"])
    assert (paired.reference.tolist(), paired.candidate.tolist()) == ([2, 0], [0, 2])
    assert pair_items(["a"], ["b"]).reference.size == pair_items([], ["b"]).candidate.size == 0
    with pytest.raises(ValueError, match="3 of which 2 are distinct"):
        pair_items(["a", "b", "a"], ["a"])
