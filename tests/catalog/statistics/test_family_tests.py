"""Kruskal-Wallis, Conover-Iman and Cliff's delta against R, scipy, scikit-posthocs and their own definitions."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.statistics.outcomes import cliffs_delta, delta_symbol, magnitude
from catalog.statistics.rank_tests import ADJUSTMENTS, conover, kruskal_wallis, pool_ranks

# R 4.2.2, from which every number below comes:
#   x <- c(8.9,9.1,9.1,8.7,9.4,10.2, 5.6,5.7,5.6,6.3,9.1, 17.6,12.1,9.4,18.0,17.6,9.1,21.3)
#   g <- factor(rep(c("mobile","edge","cloud"), c(6,5,7)), levels=c("mobile","edge","cloud"))
#   k <- kruskal.test(x, g); r <- rank(x); n <- length(x); m <- tapply(r, g, mean); ni <- tapply(r, g, length)
#   S2 <- (sum(r^2) - n*(n+1)^2/4)/(n-1); H <- k$statistic; p <- c()
#   for (a in 1:2) for (b in (a+1):3) {
#     t <- (m[a]-m[b]) / sqrt(S2*(n-1-H)/(n-3)*(1/ni[a]+1/ni[b])); p <- c(p, 2*pt(-abs(t), n-3))
#     d <- mean(sign(outer(x[g==levels(g)[a]], x[g==levels(g)[b]], "-")))
#     cat(sprintf("%.15g %.15g %.15g\n", t, tail(p, 1), d)) }
#   p.adjust(p, "holm")
LATENCIES = {
    "mobile": [8.9, 9.1, 9.1, 8.7, 9.4, 10.2],
    "edge": [5.6, 5.7, 5.6, 6.3, 9.1],
    "cloud": [17.6, 12.1, 9.4, 18.0, 17.6, 9.1, 21.3],
}
UPPER = np.triu_indices(3, 1)  # mobile-edge, mobile-cloud, edge-cloud

# Few distinct values, so that ties within and between groups are the rule.
groups = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=12), min_size=2, max_size=5).map(
    lambda lists: {f"g{number}": np.array(values, dtype=float) for number, values in enumerate(lists)}
)


def test_kruskal_wallis_is_that_of_r() -> None:
    result = kruskal_wallis(pool_ranks(LATENCIES))
    np.testing.assert_allclose(result.statistic, 11.8038478780634, rtol=1e-13)
    np.testing.assert_allclose(result.pvalue, 0.00273417936079064, rtol=1e-12)
    assert result.degrees_of_freedom == 2


def test_conover_is_that_of_r() -> None:
    result = conover(pool_ranks(LATENCIES))
    expected = [2.6722117933011, -3.18817277834501, -5.79266989968541]
    np.testing.assert_allclose(result.statistic[UPPER], expected, rtol=1e-12)
    unadjusted = [0.0174010009415834, 0.00611000699598321, 3.54817028367399e-05]
    np.testing.assert_allclose(result.unadjusted_pvalue[UPPER], unadjusted, rtol=1e-11)
    holm = [0.0174010009415834, 0.0122200139919664, 0.00010644510851022]
    np.testing.assert_allclose(result.pvalue[UPPER], holm, rtol=1e-11)
    assert result.adjustment == "holm"


def test_cliffs_delta_is_that_of_r() -> None:
    delta = cliffs_delta(pool_ranks(LATENCIES))
    np.testing.assert_allclose(delta[UPPER], [0.8, -0.785714285714286, -0.971428571428571], rtol=1e-14)


@pytest.mark.parametrize("adjustment", [name for name in ADJUSTMENTS if name != "none"])
def test_conover_is_that_of_scikit_posthocs(scikit_posthocs: Any, adjustment: str) -> None:
    for seed in range(8):
        samples = _tied_groups(seed)
        theirs = scikit_posthocs.posthoc_conover(list(samples.values()), p_adjust=adjustment).to_numpy()
        ours = conover(pool_ranks(samples), adjustment=adjustment).pvalue
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-300)


def test_conover_takes_its_pvalues_from_scikit_posthocs_to_the_last_bit(scikit_posthocs: Any) -> None:
    samples = _tied_groups(1)
    theirs = scikit_posthocs.posthoc_conover(list(samples.values())).to_numpy()
    np.testing.assert_array_equal(conover(pool_ranks(samples)).unadjusted_pvalue, theirs)


@settings(deadline=None)
@given(groups)
def test_conovers_pvalues_are_those_of_students_t(samples: Mapping[str, NDArray[np.float64]]) -> None:
    """The statistic is computed from the ranks by itself, so it checks the library's p-values."""
    pooled = pool_ranks(samples)
    result, freedom = conover(pooled), pooled.ranks.size - len(samples)
    if freedom and not np.isnan(result.statistic).any():
        expected = 2 * scipy.stats.t.sf(np.abs(result.statistic), freedom)
        np.testing.assert_allclose(result.unadjusted_pvalue, expected, rtol=1e-9, atol=1e-300)


def test_only_who_tests_pays_for_the_library() -> None:
    script = "import sys, catalog.statistics; print({'scikit_posthocs', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_adjustment_conover_is_that_of_scikit_posthocs_and_each_other_adjustment_differs(
    scikit_posthocs: Any,
) -> None:
    samples = _tied_groups(3)
    ours = {name: conover(pool_ranks(samples), adjustment=name).pvalue for name in ADJUSTMENTS}
    theirs = scikit_posthocs.posthoc_conover(list(samples.values())).to_numpy()
    np.testing.assert_allclose(ours["none"], theirs, rtol=1e-9)
    assert all(not np.allclose(ours["none"], pvalue, rtol=1e-6) for name, pvalue in ours.items() if name != "none")


def test_the_smallest_pvalues_keep_their_digits(scikit_posthocs: Any) -> None:
    rng = np.random.default_rng(5)
    samples = {name: rng.normal(mean, 1, 500) for name, mean in [("a", 0.0), ("b", 2.0), ("c", 4.5)]}
    theirs = scikit_posthocs.posthoc_conover(list(samples.values()), p_adjust="holm").to_numpy()
    assert theirs[0, 2] < 1e-250
    np.testing.assert_allclose(conover(pool_ranks(samples)).pvalue, theirs, rtol=1e-6)


@settings(deadline=None)
@given(groups)
def test_kruskal_wallis_is_that_of_scipy(samples: Mapping[str, NDArray[np.float64]]) -> None:
    result = kruskal_wallis(pool_ranks(samples))
    if len(np.unique(np.concatenate(list(samples.values())))) == 1:
        assert np.isnan(result.statistic)
        assert result.pvalue == 1
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        expected = scipy.stats.kruskal(*samples.values())
    np.testing.assert_allclose([result.statistic, result.pvalue], expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(groups)
def test_delta_is_that_of_every_pair_of_values_and_of_mann_whitney(samples: Mapping[str, NDArray[np.float64]]) -> None:
    delta = cliffs_delta(pool_ranks(samples))
    for row, left in enumerate(samples.values()):
        for column, right in enumerate(samples.values()):
            assert delta[row, column] == pytest.approx(np.sign(left[:, None] - right).mean(), abs=1e-15)
            above = scipy.stats.mannwhitneyu(left, right, method="asymptotic").statistic
            assert delta[row, column] == pytest.approx(2 * above / (left.size * right.size) - 1, abs=1e-12)


@settings(deadline=None)
@given(groups)
def test_signs_turn_with_the_pair_and_pvalues_do_not(samples: Mapping[str, NDArray[np.float64]]) -> None:
    pooled = pool_ranks(samples)
    delta, post_hoc = cliffs_delta(pooled), conover(pooled)
    np.testing.assert_array_equal(delta, -delta.T)
    np.testing.assert_array_equal(post_hoc.statistic, -post_hoc.statistic.T)
    np.testing.assert_array_equal(post_hoc.pvalue, post_hoc.pvalue.T)
    assert np.all(np.abs(delta) <= 1)
    for pvalue in (post_hoc.pvalue, post_hoc.unadjusted_pvalue, np.array(kruskal_wallis(pooled).pvalue)):
        assert np.all((pvalue >= 0) & (pvalue <= 1))
    assert np.all(np.diag(post_hoc.pvalue) == 1)


@settings(deadline=None)
@given(groups, st.sampled_from([np.exp, np.arctan, lambda x: x**3 - 7, lambda x: 0.001 * x]))
def test_only_the_order_of_values_counts(
    samples: Mapping[str, NDArray[np.float64]], increasing: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    plain, bent = pool_ranks(samples), pool_ranks({name: increasing(values) for name, values in samples.items()})
    np.testing.assert_array_equal(cliffs_delta(bent), cliffs_delta(plain))
    np.testing.assert_array_equal(conover(bent).pvalue, conover(plain).pvalue)
    assert repr(kruskal_wallis(bent)) == repr(kruskal_wallis(plain))  # NaN is not equal to itself
    falling = pool_ranks({name: -values for name, values in samples.items()})
    np.testing.assert_array_equal(cliffs_delta(falling), -cliffs_delta(plain))


@settings(deadline=None)
@given(groups, st.integers(1, 4))
def test_the_order_of_groups_does_not_count(samples: Mapping[str, NDArray[np.float64]], turns: int) -> None:
    names, order = list(samples), np.roll(np.arange(len(samples)), turns)
    plain, mixed = pool_ranks(samples), pool_ranks({names[position]: samples[names[position]] for position in order})
    np.testing.assert_array_equal(cliffs_delta(mixed), cliffs_delta(plain)[np.ix_(order, order)])
    np.testing.assert_allclose(conover(mixed).pvalue, conover(plain).pvalue[np.ix_(order, order)], rtol=1e-9)


def test_all_values_tied_differ_in_nothing() -> None:
    pooled = pool_ranks({"a": [2.0] * 5, "b": [2.0] * 3, "c": [2.0]})
    assert np.isnan(kruskal_wallis(pooled).statistic)
    assert kruskal_wallis(pooled).pvalue == 1
    assert np.all(conover(pooled).pvalue == 1)
    assert np.all(cliffs_delta(pooled) == 0)


def test_constant_groups_of_different_height_are_certain() -> None:
    post_hoc = conover(pool_ranks({"a": [1.0] * 4, "b": [2.0] * 3, "c": [3.0] * 5}))
    assert np.all(post_hoc.statistic[UPPER] == -np.inf)
    assert np.all(post_hoc.pvalue[UPPER] == 0)
    twins = conover(pool_ranks({"a": [1.0] * 4, "b": [1.0] * 7, "c": [3.0] * 5}))
    assert twins.pvalue[0, 1] == 1
    assert twins.pvalue[0, 2] == 0


def test_groups_that_do_not_overlap_have_the_largest_delta() -> None:
    rng = np.random.default_rng(2)
    delta = cliffs_delta(pool_ranks({"slow": rng.random(7) + 5, "fast": rng.random(30), "slower": rng.random(2) + 9}))
    np.testing.assert_array_equal(delta[UPPER], [1, -1, -1])


def test_one_value_per_group_says_nothing_about_pairs() -> None:
    pooled = pool_ranks({"a": [1.0], "b": [2.0]})
    assert np.isnan(conover(pooled).statistic[0, 1])
    assert conover(pooled).pvalue[0, 1] == 1
    assert cliffs_delta(pooled)[0, 1] == -1
    assert kruskal_wallis(pooled).pvalue == pytest.approx(scipy.stats.kruskal([1.0], [2.0]).pvalue)


def test_one_value_against_many() -> None:
    pooled = pool_ranks({"a": [3.0], "b": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert cliffs_delta(pooled)[0, 1] == 0
    assert conover(pooled).statistic[0, 1] == 0
    assert conover(pooled).pvalue[0, 1] == 1


@pytest.mark.parametrize("samples", [{}, {"alone": [1.0, 2.0, 3.0]}])
def test_fewer_than_two_groups_have_nothing_to_compare(samples: Mapping[str, list[float]]) -> None:
    pooled = pool_ranks(samples)
    assert np.isnan(kruskal_wallis(pooled).statistic)
    assert kruskal_wallis(pooled).pvalue == 1
    assert conover(pooled).pvalue.shape == cliffs_delta(pooled).shape == (len(samples), len(samples))


@pytest.mark.parametrize(
    ("delta", "word", "symbol"),
    [
        (0.0, "negligible", "N"),
        (0.1469, "negligible", "N"),
        (0.147, "small", "S"),
        (0.3299, "small", "S"),
        (0.33, "medium", "M"),
        (0.4739, "medium", "M"),
        (0.474, "large", "L"),
        (1.0, "large", "L"),
    ],
)
def test_words_begin_at_the_papers_thresholds(delta: float, word: str, symbol: str) -> None:
    assert magnitude(delta) == magnitude(-delta) == word
    assert delta_symbol(delta) == symbol
    assert delta == 0 or delta_symbol(-delta) == f"-{symbol}"


@pytest.mark.parametrize("delta", [1.01, -2.0, float("nan")])
def test_no_delta_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="from -1 to 1"):
        magnitude(delta)


def _tied_groups(seed: int) -> dict[str, NDArray[np.float64]]:
    """Draw five groups of unequal sizes, rounded so that many values are tied."""
    rng = np.random.default_rng(seed)
    return {f"g{number}": rng.normal(number / 3, 1, rng.integers(5, 60)).round(1) for number in range(5)}
