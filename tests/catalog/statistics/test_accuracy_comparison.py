"""The paper's Wilcoxon tests come out of its Table 6; signed ranks against R, scipy and all assignments of signs."""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.families import OperatorPair, StudiedOperator, accuracy_pairs
from catalog.statistics.study_analysis import compare_accuracies, signed_rank

TABLE_6 = Path(__file__).parents[2] / "data" / "paper_table6_accuracy.csv"
OPERATORS = [
    StudiedOperator("identity", (), ()),
    StudiedOperator("quantized", ("static_ptq",), ()),
    StudiedOperator("early_exit", ("early_exit",), ()),
    StudiedOperator("quantized_early_exit", ("static_ptq", "early_exit"), ()),
]
I, Q, E, QE = (operator.name for operator in OPERATORS)  # noqa: E741  (the paper's letters)


def test_the_papers_pvalues_and_effect_sizes_come_out_of_its_table() -> None:
    analysis = compare_accuracies(_table_6(), accuracy_pairs(OPERATORS))
    assert analysis.corrected_alpha == 0.0125
    assert analysis.left_out == ()
    assert all(comparison.test.count == 18 and comparison.test.statistic == 0 for comparison in analysis.comparisons)
    assert all(comparison.test.pvalue == 2 / 2**18 for comparison in analysis.comparisons)
    assert f"{analysis.comparisons[0].test.pvalue:.1e}" == "7.6e-06"  # sections 5.2, 5.3 and 5.5
    assert all(comparison.significant for comparison in analysis.comparisons)
    # "small (0.16)" in 5.2, "medium (0.38)" in 5.3, "medium" in 5.5; the paper cuts the digits it does not print.
    cut = {
        (comparison.pair.left, comparison.pair.right): (int(comparison.delta * 100) / 100, comparison.magnitude)
        for comparison in analysis.comparisons
    }
    assert cut == {
        (I, Q): (0.16, "small"),
        (I, E): (0.38, "medium"),
        (Q, QE): (0.38, "medium"),
        (E, QE): (0.33, "medium"),
    }


def test_early_exit_against_quantized_too() -> None:
    # Section 5.3: "a medium effect size (0.38) in comparison to Identity and Quantized models".
    (comparison,) = compare_accuracies(_table_6(), [OperatorPair(Q, E, ())]).comparisons
    assert (int(comparison.delta * 100), comparison.magnitude, comparison.test.pvalue) == (38, "medium", 2 / 2**18)


def test_the_papers_ranges_of_drops_come_out_of_its_table() -> None:
    # Sections 5.2, 5.3 and 5.5. The paper cuts digits: 2.626 is "2.62", 1.668 "1.66". Three of its upper ends, all of
    # FCN, lie 0.01 below what its table says (11.57, 11.22, 12.03), so they came from digits the table does not show.
    expected = {
        (I, Q): (0.05, 0.38),
        (I, E): (2.53, 11.56),
        (I, QE): (2.62, 12.41),
        (Q, E): (2.35, 11.21),
        (Q, QE): (2.56, 12.02),
        (E, QE): (0.09, 1.66),
    }
    pairs = [OperatorPair(left, right, ()) for left, right in expected]
    for comparison in compare_accuracies(_table_6(), pairs).comparisons:
        drops = (comparison.smallest_drop, comparison.largest_drop)
        assert drops == pytest.approx(expected[comparison.pair.left, comparison.pair.right], abs=0.015), comparison.pair


def test_the_other_candidate_for_the_effect_size_does_not_fit() -> None:
    table = _table_6()
    z = scipy.stats.norm.isf(scipy.stats.wilcoxon(table[I], table[Q], method="asymptotic").pvalue / 2)
    assert z / np.sqrt(18) > 0.8
    assert z / np.sqrt(36) > 0.6


def test_signed_ranks_with_ties_are_those_of_r() -> None:
    # R 4.2.2, whose wilcox.test has no exact p-value with ties, so by enumeration:
    #   a <- c(125,115,130,140,140,115,140,125,140,135); b <- c(110,122,125,120,140,124,123,137,135,145)
    #   d <- a-b; d <- d[d!=0]; rk <- rank(abs(d)); V <- sum(rk[d>0]); N <- length(d)
    #   sums <- as.matrix(expand.grid(rep(list(0:1), N))) %*% rk
    #   c(min(V, sum(rk)-V), 2*min(mean(sums<=V), mean(sums>=V)))  # 18 0.6328125
    a = [125, 115, 130, 140, 140, 115, 140, 125, 140, 135]
    b = [110, 122, 125, 120, 140, 124, 123, 137, 135, 145]
    test = signed_rank(a, b)
    assert (test.statistic, test.pvalue, test.count) == (18, 0.6328125, 9)


def test_without_ties_signed_ranks_are_those_of_scipy() -> None:
    for seed in range(5):
        left, right = np.random.default_rng(seed).normal(size=(2, 40))
        expected = scipy.stats.wilcoxon(left, right, method="exact")
        test = signed_rank(left, right)
        np.testing.assert_allclose([test.statistic, test.pvalue], [expected.statistic, expected.pvalue], rtol=1e-10)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_pvalue_counts_all_assignments_of_signs(differences: list[int]) -> None:
    test = signed_rank(np.array(differences) / 10, np.zeros(len(differences)))
    ranks = scipy.stats.rankdata([abs(difference) for difference in differences if difference])
    positive = sum(rank for rank, difference in zip(ranks, filter(None, differences), strict=True) if difference > 0)
    sums = [sum(chosen) for chosen in _subsets(ranks.tolist())]
    low, high = (
        np.mean([signed_sum <= positive for signed_sum in sums]),
        np.mean([signed_sum >= positive for signed_sum in sums]),
    )
    assert test.pvalue == pytest.approx(min(1, 2 * min(low, high)))
    assert test.pvalue == signed_rank(np.zeros(len(differences)), np.array(differences) / 10).pvalue


def test_a_binary_remainder_does_not_break_a_tie() -> None:
    # 0.3 - 0.2 and 0.8 - 0.7 differ in the 17th digit: as ties their ranks are 1.5 each.
    assert 0.3 - 0.2 != 0.8 - 0.7
    assert signed_rank([0.3, 0.7, 1.0], [0.2, 0.8, 0.5]).statistic == 1.5


def test_no_difference_and_one_pair() -> None:
    assert signed_rank([1.0, 2.0], [1.0, 2.0]).pvalue == 1
    assert signed_rank([1.0, 2.0], [1.0, 2.0]).count == 0
    assert signed_rank([1.0], [2.0]).pvalue == 1


def test_few_pairs_are_never_significant() -> None:
    # Five differences of one sign are the least p-value five pairs can have: 2 / 2^5.
    accuracies = {"a": [90.0, 80.0, 70.0, 60.0, 50.0], "b": [10.0, 9.0, 8.0, 7.0, 6.0]}
    (comparison,) = compare_accuracies(accuracies, [OperatorPair("a", "b", ())]).comparisons
    assert (comparison.test.pvalue, comparison.significant, comparison.delta) == (0.0625, False, 1)


def test_an_operator_without_accuracies_is_left_out_and_counts_in_no_correction() -> None:
    accuracies = _table_6() | {QE: []}
    del accuracies[Q]
    analysis = compare_accuracies(accuracies, accuracy_pairs(OPERATORS))
    assert [(comparison.pair.left, comparison.pair.right) for comparison in analysis.comparisons] == [(I, E)]
    assert [(pair.left, pair.right) for pair in analysis.left_out] == [(I, Q), (Q, QE), (E, QE)]
    assert analysis.corrected_alpha == 0.05
    assert compare_accuracies({}, accuracy_pairs(OPERATORS)).comparisons == ()


def test_accuracies_that_do_not_pair_are_refused() -> None:
    pair = [OperatorPair("a", "b", ())]
    with pytest.raises(ValueError, match="'a' has 2 accuracies and 'b' 1"):
        compare_accuracies({"a": [1.0, 2.0], "b": [1.0]}, pair)
    with pytest.raises(ValueError, match="'b' hold nan at index 0"):
        compare_accuracies({"a": [1.0], "b": [float("nan")]}, pair)
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        compare_accuracies({}, pair, alpha=5)
    for left, right in (([], []), ([1.0], [1.0, 2.0]), ([float("inf")], [1.0])):
        with pytest.raises(ValueError, match=r"one length|not finite"):
            signed_rank(left, right)


def _table_6() -> dict[str, list[float]]:
    """Return the 18 accuracies of each operator, in the same order."""
    accuracies: dict[str, list[float]] = {}
    with TABLE_6.open() as lines:
        next(lines)  # the source
        for row in csv.DictReader(lines):
            accuracies.setdefault(row["operator"], []).extend(float(row[tier]) for tier in ("mobile", "edge", "cloud"))
    return accuracies


def _subsets(items: list[float]) -> Iterator[tuple[float, ...]]:
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)
