import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from catalog.statistics.drop_bounds import PairedCounts
from catalog.statistics.drops import hit_drop, mcnemar_exact, pair_items
from catalog.statistics.feasibility import drop_within
from catalog.statistics.outcomes import COUNTED, ComparisonOutcome
from catalog.statistics.posterior import drop_probability


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


def limits_by_scipy(lost: int, gained: int, items: int, chance: float) -> float:
    """Return the bound from scipy's own Clopper-Pearson limits, each at twice its one-sided chance."""
    most = stats.binomtest(lost, items).proportion_ci(1 - 2 * 0.8 * chance, method="exact").high
    least = stats.binomtest(gained, items).proportion_ci(1 - 2 * 0.2 * chance, method="exact").low
    return 100 * (most - least)


@pytest.mark.parametrize(("lost", "gained", "items"), [(0, 0, 83), (2, 2, 2000), (60, 30, 1000), (7, 0, 7), (0, 5, 5)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.9997])
def test_the_bound_is_the_difference_of_two_exact_limits(lost: int, gained: int, items: int, level: float) -> None:
    drop = hit_drop(*hits(items - lost - gained, lost, gained, 0))
    assert drop.upper_pp(level) == pytest.approx(limits_by_scipy(lost, gained, items, 1 - level))


def test_the_interval_has_one_bound_of_each_side() -> None:
    reference, candidate = hits(800, 60, 30, 110)
    drop = hit_drop(reference, candidate)
    assert drop.drop_pp == pytest.approx(3.0)
    assert (drop.low_pp, drop.high_pp) == pytest.approx(
        (-limits_by_scipy(30, 60, 1000, 0.025), limits_by_scipy(60, 30, 1000, 0.025))
    )
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
    assert (drop.low_pp, drop.high_pp) == pytest.approx((-back.high_pp, -back.low_pp))


def test_identical_predictions_drop_nothing_that_so_few_items_can_show() -> None:
    drop = hit_drop(*hits(70, 0, 0, 13))
    assert (drop.drop_pp, drop.pvalue) == (0.0, 1.0)
    assert drop.low_pp == -drop.high_pp < -3.5
    assert drop.note is not None and "all items agree" in drop.note
    assert drop.upper_pp(0.95) > 100 * (1 - 0.05 ** (1 / 83))  # about 3.5: what one share alone would have
    assert drop.confidence_at_most(0.01) < 0.05 and not drop_within(drop, 3.0).holds
    assert drop.verdict(margin_pp=0.5) is ComparisonOutcome.UNRESOLVED
    assert hit_drop(*hits(70, 1, 1, 30)).note is None


def test_the_reference_itself_drops_nothing() -> None:
    same = hit_drop(*hits(70, 0, 0, 13), bit_identical=True)
    assert (same.drop_pp, same.low_pp, same.high_pp, same.pvalue) == (0.0, 0.0, 0.0, 1.0)
    assert same.upper_pp(0.9999) == 0 and same.confidence_at_most(0.0) == 1 and same.confidence_at_most(-0.1) == 0
    with pytest.raises(ValueError, match="2 lost and 1 gained"):
        hit_drop(*hits(70, 2, 1, 10), bit_identical=True)


def test_one_item_and_total_loss() -> None:
    assert hit_drop([True], [False]).drop_pp == 100
    lost = hit_drop(*hits(0, 50, 0, 0))
    assert lost.high_pp == 100.0 and lost.low_pp > 80
    assert lost.verdict(margin_pp=1.0) is ComparisonOutcome.DIFFERENT


def test_many_items_lose_no_precision() -> None:
    drop = hit_drop(*hits(48_000, 1_000, 500, 500))
    error = 100 * np.sqrt((1500 - 500**2 / 50_000) / 50_000**2)
    assert 1 + 1.96 * error < drop.high_pp < 1 + 1.7 * 1.96 * error
    assert drop.upper_pp(1 - 1e-6) == pytest.approx(limits_by_scipy(1000, 500, 50_000, 1e-6))


@given(st.integers(0, 90), st.integers(0, 30), st.integers(0, 30), st.floats(-20, 30))
@settings(deadline=None)
def test_confidence_of_a_limit_turns_the_bound_round(same: int, lost: int, gained: int, limit_pp: float) -> None:
    drop = hit_drop(*hits(same + 1, lost, gained, 0))
    confidence = drop.confidence_at_most(limit_pp)
    if 0 < confidence < 1 - 1e-9:
        assert drop.upper_pp(confidence) <= limit_pp + 1e-6
        assert drop.upper_pp(min(confidence + 1e-4, 1 - 1e-12)) > limit_pp - 1e-6
    for level in (0.5, 0.9, 0.99):
        bound = drop.upper_pp(level)
        assert drop.confidence_at_most(bound) >= level - 1e-9
        assert drop.confidence_at_most(bound - 0.1) < level


def multinomial(lost: np.ndarray, gained: np.ndarray, items: int, share_lost: float, share_gained: float) -> np.ndarray:
    """Return the chance of each outcome."""
    rest = items - lost - gained
    ways = special.gammaln(items + 1) - sum(special.gammaln(count + 1) for count in (lost, gained, rest))
    share_rest = max(1 - share_lost - share_gained, 0.0)
    powers = special.xlogy(lost, share_lost) + special.xlogy(gained, share_gained) + special.xlogy(rest, share_rest)
    return np.asarray(np.exp(ways + powers))


def outcomes(items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of items lost and gained of every outcome."""
    count = np.indices((items + 1,) * 2)
    return tuple(number[count.sum(axis=0) <= items] for number in count)  # type: ignore[return-value]


def least_coverage(items: int, level: float) -> float:
    """Return the least chance over true shares that the bound is not below the drop; every outcome is enumerated.

    The chance falls where a bound is passed, so the pairs include drops just above a bound.
    """
    lost, gained = outcomes(items)
    pairs = zip(lost.tolist(), gained.tolist(), strict=True)
    bounds = np.array([PairedCounts(*pair, items).upper_pp(level) for pair in pairs]) / 100
    shares = np.unique([*np.linspace(0, 1, 21), *np.geomspace(1e-4, 0.1, 15)])
    passed = np.unique(bounds[np.abs(bounds) < 1])
    drops = passed[:: max(1, passed.size // 30)] + 1e-9
    truths = [(first, second) for first in shares for second in shares]
    truths += [(share + max(drop, 0), share - min(drop, 0)) for drop in drops for share in shares]
    return min(
        float(multinomial(lost, gained, items, first, second)[bounds >= first - second].sum())
        for first, second in truths
        if first + second <= 1
    )


# Levels from what is asked to those of the surest of many.
@pytest.mark.parametrize("items", [1, 2, 5, 12, 31, 83])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.9972])
def test_the_bound_covers_every_drop_by_enumeration(items: int, level: float) -> None:
    assert least_coverage(items, level) >= level - 1e-9


@pytest.mark.parametrize(("items", "limit"), [(20, 5.0), (40, 5.0), (40, 20.0)])
def test_what_is_not_far_beyond_a_limit_is_asserted_as_rarely_as_its_share_of_the_error_allows(
    items: int, limit: float
) -> None:
    lost, gained = outcomes(items)
    pairs = list(zip(lost.tolist(), gained.tolist(), strict=True))
    error = np.array([1 - PairedCounts(*pair, items).confidence_at_most(limit) for pair in pairs])
    drops = [hit_drop(*hits(0, *pair, items - sum(pair))) for pair in pairs]
    counted = np.array([drop_probability(drop, limit) for drop in drops]) >= 1 - COUNTED
    for drop in limit / 100 + np.array([1e-9, 0.02, 0.1, 0.3]):
        for share in (0.0, 0.01, 0.1, 0.3):
            chance = multinomial(lost, gained, items, drop + share, share)
            for level in (0.05, 0.01, 0.001):
                asserted = chance[(error <= COUNTED * level) & counted].sum()
                assert asserted <= level * chance[counted].sum() + 1e-12


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
