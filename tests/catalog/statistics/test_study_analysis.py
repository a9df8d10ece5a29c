"""One subject's families in one call: the paper's signs, its rule of what is shown, and what is left out."""

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from catalog.statistics.description import describe
from catalog.statistics.families import StrategyFamily, StudiedOperator, study_families
from catalog.statistics.study_analysis import analyse_families

MEDIANS = Path(__file__).parents[2] / "data" / "paper_identity_medians.csv"
TIERS = ("mobile", "edge", "cloud")
SINGLE = tuple((tier,) for tier in TIERS)
ACROSS = (("mobile", "edge"), ("edge", "cloud"), ("mobile", "cloud"))
STUDY = [
    StudiedOperator("identity", (), SINGLE),
    StudiedOperator("quantized", ("static_ptq",), SINGLE),
    StudiedOperator("early_exit", ("early_exit",), SINGLE),
    StudiedOperator("partition", ("partition",), ACROSS),
    StudiedOperator("quantized_early_exit", ("static_ptq", "early_exit"), SINGLE),
    StudiedOperator("quantized_early_exit_partition", ("static_ptq", "early_exit", "partition"), ACROSS),
]
IDENTITY = StrategyFamily("tiers:identity", "tiers", ("RQ1",), ("identity@mobile", "identity@edge", "identity@cloud"))

# Table 5, in the order mobile-edge, mobile-cloud, edge-cloud. ResNet and FCN stand in upper triangles, read by row;
# ResNext and DUC in lower ones, read by column: rows E and C of column M, then row C of column E.
TABLE_5 = {
    "resnet": ["L", "-L", "-L"],
    "resnext": ["L", "-L", "-L"],
    "fcn": ["L", "L", "L"],
    "duc": ["L", "L", "-L"],
}


@pytest.mark.parametrize("subject", TABLE_5)
def test_signs_are_those_of_table_5(subject: str) -> None:
    """Draw samples around the paper's medians, for which the paper finds every effect to be large."""
    rng = np.random.default_rng(9)
    with MEDIANS.open() as lines:
        next(lines)  # the source
        medians = {
            row["tier"]: float(row["median_latency_s"]) for row in csv.DictReader(lines) if row["subject"] == subject
        }
    samples = {f"identity@{tier}": medians[tier] * rng.lognormal(0, 0.05, 500) for tier in TIERS}
    (analysed,) = analyse_families(samples, [IDENTITY]).families
    assert [pair.symbol for pair in analysed.comparisons()] == TABLE_5[subject]
    for pair in analysed.comparisons():
        assert (
            (pair.delta < 0)
            == (pair.statistic < 0)
            == (describe(samples[pair.left]).median < describe(samples[pair.right]).median)
        )


def test_a_whole_subject_is_that_of_scipy_and_scikit_posthocs(scikit_posthocs: Any) -> None:
    samples = _study_sized(np.random.default_rng(1), size=60)
    families = study_families(STUDY, TIERS)
    analysis = analyse_families(samples, families, adjustment="fdr_bh")
    assert list(analysis.descriptions) == list(samples)
    assert len(analysis.families) == 9
    for analysed in analysis.families:
        groups = [samples[name] for name in analysed.members]
        assert analysed.kruskal_wallis.pvalue == pytest.approx(scipy.stats.kruskal(*groups).pvalue)
        post_hoc = scikit_posthocs.posthoc_conover(groups, p_adjust="fdr_bh").to_numpy()
        np.testing.assert_allclose(analysed.post_hoc.pvalue, post_hoc, rtol=1e-8, atol=1e-300)
        pairs = list(itertools.combinations(analysed.members, 2))
        assert [(pair.left, pair.right) for pair in analysed.comparisons()] == pairs
        for pair in analysed.comparisons():
            left, right = samples[pair.left], samples[pair.right]
            assert pair.delta == pytest.approx(np.sign(left[:, None] - right).mean(), abs=1e-14)
            assert pair.speedup is not None
            assert pair.speedup.factor == pytest.approx(np.exp(abs(np.log(np.median(left) / np.median(right)))))
            assert pair.significant == (analysed.rejected and pair.pvalue < 0.05)


def test_without_a_rejection_pairs_are_computed_but_none_is_significant() -> None:
    # Six groups of one kind: without adjustment some pair falls below 0.05, which Kruskal-Wallis does not support.
    rng = np.random.default_rng(0)
    samples = {name: rng.normal(size=40) for name in "abcdef"}
    family = StrategyFamily("operators@edge", "operators", (), tuple(samples))
    (analysed,) = analyse_families(samples, [family], adjustment="none").families
    assert analysed.kruskal_wallis.pvalue > 0.05
    assert not analysed.rejected
    assert min(pair.pvalue for pair in analysed.comparisons()) < 0.05
    assert max(pair.delta for pair in analysed.comparisons()) > 0.2
    assert not any(pair.significant or pair.symbol for pair in analysed.comparisons())


def test_a_rejection_may_rest_on_one_pair_and_the_others_show_nothing() -> None:
    rng = np.random.default_rng(3)
    samples = {"a": rng.normal(5, 1, 100), "b": rng.normal(5, 1, 100), "c": rng.normal(8, 1, 100)}
    (analysed,) = analyse_families(samples, [StrategyFamily("f", "operators", (), ("a", "b", "c"))]).families
    assert analysed.rejected
    assert [pair.symbol for pair in analysed.comparisons()] == ["", "-L", "-L"]


def test_a_pair_turns_both_ways() -> None:
    (analysed,) = analyse_families(_study_sized(np.random.default_rng(1), size=60), [IDENTITY]).families
    one, other = (
        analysed.comparison("identity@edge", "identity@mobile"),
        analysed.comparison("identity@mobile", "identity@edge"),
    )
    assert (one.delta, one.statistic, one.pvalue) == (-other.delta, -other.statistic, other.pvalue)
    assert one.speedup is not None
    assert other.speedup is not None
    assert {one.speedup.direction, other.speedup.direction} == {"lower", "higher"}
    with pytest.raises(KeyError, match="'identity@moon' is not among"):
        analysed.comparison("identity@edge", "identity@moon")


@pytest.mark.parametrize("measured", [0, 1, 2])
def test_members_without_samples_are_left_out_and_named(measured: int) -> None:
    samples = {name: [1.0, 2.0, 3.0] if number < measured else [] for number, name in enumerate(IDENTITY.members)}
    (analysed,) = analyse_families(samples, [IDENTITY]).families
    assert analysed.members == IDENTITY.members[:measured]
    assert analysed.left_out == IDENTITY.members[measured:]
    assert len(analysed.comparisons()) == (1 if measured == 2 else 0)
    assert analysed.rejected is False
    assert analysed.kruskal_wallis.pvalue == 1


def test_values_of_zero_have_no_speedup() -> None:
    (analysed,) = analyse_families(
        {"a": [0.0] * 3, "b": [1.0] * 3}, [StrategyFamily("f", "tiers", (), ("a", "b"))]
    ).families
    assert analysed.comparisons()[0].speedup is None
    assert analysed.comparisons()[0].symbol == "-L"


def test_what_cannot_be_analysed_is_refused() -> None:
    with pytest.raises(ValueError, match="'identity@edge' hold nan at index 1"):
        analyse_families({"identity@mobile": [1.0], "identity@edge": [1.0, float("nan")]}, [IDENTITY])
    with pytest.raises(ValueError, match="unknown adjustment"):
        analyse_families({"identity@mobile": [1.0]}, [IDENTITY], adjustment="")
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        analyse_families({}, [IDENTITY], alpha=0)


def _study_sized(rng: np.random.Generator, size: int) -> dict[str, NDArray[np.float64]]:
    """Draw 18 strategies of one subject, rounded to milliseconds so that there are ties."""
    return {
        name: rng.lognormal(rng.normal(0, 0.3), 0.3, size).round(3)
        for name in dict.fromkeys(member for family in study_families(STUDY, TIERS) for member in family.members)
    }
