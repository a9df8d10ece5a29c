from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.declaration import AnalysisSpec
from catalog.statistics.rank_tests import ADJUSTMENTS, adjust_pvalues

# R 4.2.2: q <- c(0.001, 0.2, 0.013, 0.04, 0.041, 0.9, 0.0125, 0.04); p.adjust(q, "holm") and so on, with R's names
# "hochberg" for simes-hochberg, "BH" and "BY" for the last two.
PVALUES = [0.001, 0.2, 0.013, 0.04, 0.041, 0.9, 0.0125, 0.04]
BY_R = {
    "bonferroni": [0.008, 1, 0.104, 0.32, 0.328, 1, 0.1, 0.32],
    "holm": [0.008, 0.4, 0.0875, 0.2, 0.2, 0.9, 0.0875, 0.2],
    "simes-hochberg": [0.008, 0.4, 0.078, 0.123, 0.123, 0.9, 0.078, 0.123],
    "hommel": [0.008, 0.4, 0.065, 0.12, 0.123, 0.9, 0.0625, 0.12],
    "fdr_bh": [0.008, 0.2285714286, 0.0346666667, 0.0546666667, 0.0546666667, 0.9, 0.0346666667, 0.0546666667],
    "fdr_by": [0.0217428571, 0.6212244898, 0.094219048, 0.1485761905, 0.1485761905, 1, 0.094219048, 0.1485761905],
}


def test_a_catalog_may_name_every_adjustment_and_no_other() -> None:
    """The schema repeats the names, because reading a catalog must not import the statistics."""
    assert get_args(AnalysisSpec.model_fields["adjustment"].annotation) == ADJUSTMENTS


@pytest.mark.parametrize("adjustment", BY_R)
def test_adjusted_pvalues_are_those_of_r(adjustment: str) -> None:
    np.testing.assert_allclose(adjust_pvalues(PVALUES, adjustment), BY_R[adjustment], rtol=1e-8)


@pytest.mark.parametrize("adjustment", [name for name in ADJUSTMENTS if name != "none"])
def test_adjusted_pvalues_are_those_that_scikit_posthocs_takes(adjustment: str) -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(8)
    for count in (1, 2, 3, 15, 60):
        for power in (1, 4, 40):  # mostly large, mixed, and mostly tiny p-values
            pvalues = (rng.random(count) ** power).round(4 if power == 1 else 300)  # some tied
            expected = multipletests(pvalues, method=adjustment)[1]
            np.testing.assert_allclose(adjust_pvalues(pvalues, adjustment), expected, rtol=1e-9)


def test_what_r_lacks_is_as_defined() -> None:
    pvalues, count = np.array(sorted(PVALUES)), len(PVALUES)
    remaining = np.arange(count, 0, -1)
    sidak = 1 - (1 - pvalues) ** count
    np.testing.assert_allclose(adjust_pvalues(pvalues, "sidak"), sidak, rtol=1e-12)
    step_down = np.maximum.accumulate(1 - (1 - pvalues) ** remaining)
    np.testing.assert_allclose(adjust_pvalues(pvalues, "holm-sidak"), step_down, rtol=1e-12)
    # Two stages at 0.05: three of the eight are below it after Benjamini and Hochberg, so five eighths count as true.
    first = adjust_pvalues(pvalues, "fdr_bh")
    for name, factor in (("fdr_tsbh", 1.0), ("fdr_tsbky", 1.05)):
        true_share = 1 - np.mean(first <= 0.05 / factor)
        expected = np.minimum(first * factor * true_share, 1)
        np.testing.assert_allclose(adjust_pvalues(pvalues, name), expected, rtol=1e-12)


@pytest.mark.parametrize("adjustment", [name for name in ADJUSTMENTS if not name.startswith("fdr_ts")])
def test_pvalues_of_zero_and_one_stay(adjustment: str) -> None:
    assert adjust_pvalues([0.0, 1.0], adjustment).tolist() == pytest.approx([0.0, 1.0])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_pvalues_keep_order_and_range(pvalues: list[float]) -> None:
    order = np.argsort(pvalues, kind="stable")
    for name in ADJUSTMENTS:
        adjusted = adjust_pvalues(pvalues, name)
        assert np.all((adjusted >= 0) & (adjusted <= 1)), name
        assert np.all(np.diff(adjusted[order]) >= 0), name
        if not name.startswith("fdr_ts"):
            assert np.all(adjusted >= np.array(pvalues) * (1 - 1e-12)), name
    assert np.all(adjust_pvalues(pvalues, "holm") <= adjust_pvalues(pvalues, "bonferroni"))


def test_none_changes_nothing() -> None:
    assert adjust_pvalues(PVALUES, "none").tolist() == PVALUES


def test_unknown_adjustments_and_no_pvalues_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown adjustment 'holms'; choose one of none, .*fdr_tsbky"):
        adjust_pvalues(PVALUES, "holms")
    for pvalues in ([0.1, 1.1], [float("nan")], [[0.1]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            adjust_pvalues(pvalues, "holm")
