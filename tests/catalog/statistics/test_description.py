import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.description import describe, normal_quantiles, shapiro_wilk

# R 4.2.2: w <- c(148,154,158,160,161,162,166,170,182,195,236)
#   shapiro.test(w); quantile(w, c(.05,.25,.5,.75,.9), type = 7); IQR(w); sd(w)
WEIGHTS = [148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]


def test_a_description_is_that_of_r() -> None:
    description = describe(WEIGHTS, percentiles=(5, 25, 50, 75, 90))
    np.testing.assert_allclose(description.percentile_values, [151, 159, 162, 176, 195])
    assert (description.quartile_1, description.median, description.quartile_3) == (159, 162, 176)
    assert description.interquartile_range == 17
    assert description.standard_deviation == pytest.approx(24.95195, abs=1e-5)
    assert (description.count, description.minimum, description.maximum) == (11, 148, 236)
    assert description.mean == pytest.approx(sum(WEIGHTS) / 11)
    assert description.normality.statistic == pytest.approx(0.788814694835387, rel=1e-6)
    assert description.normality.pvalue == pytest.approx(0.00670381405650293, rel=1e-4)


def test_outliers_lie_beyond_one_and_a_half_interquartile_ranges() -> None:
    # Fences by hand: 159 - 25.5 = 133.5 and 176 + 25.5 = 201.5.
    description = describe([*WEIGHTS[:3], 236, *WEIGHTS[3:-1]])
    assert (description.lower_fence, description.upper_fence) == (133.5, 201.5)
    assert description.outlier_indices.tolist() == [3]
    assert description.outlier_count == 1
    assert describe([0.0, 1.0, 2.0, 3.0, 6.0]).outlier_count == 0  # on the fence: 3 + 1.5 * 2


def test_quantiles_and_line_are_those_of_scipy() -> None:
    samples = np.random.default_rng(4).lognormal(0, 0.4, 200).round(2)
    plot = normal_quantiles(samples)
    (theoretical, ordered), (slope, intercept, correlation) = scipy.stats.probplot(samples)
    np.testing.assert_allclose(plot.theoretical, theoretical, atol=1e-12)
    np.testing.assert_array_equal(plot.ordered, ordered)
    np.testing.assert_allclose([plot.slope, plot.intercept, plot.correlation], [slope, intercept, correlation])


@pytest.mark.parametrize(
    ("samples", "why"),
    [([1.0], "1 sample; the test needs 3"), ([1.0, 2.0], "2 samples"), ([7.5] * 20, "all samples are equal")],
)
def test_normality_is_not_applicable_without_a_warning(samples: list[float], why: str) -> None:
    normality = describe(samples).normality
    assert why in normality.not_applicable
    assert np.isnan(normality.statistic)
    assert np.isnan(normality.pvalue)


def test_normality_applies_up_to_5000_samples() -> None:
    samples = np.random.default_rng(6).normal(size=5001)
    assert "5001 samples; the p-value is known up to 5000" in shapiro_wilk(samples).not_applicable
    assert shapiro_wilk(samples[:-1]).pvalue > 0.01
    assert shapiro_wilk(np.exp(samples[:-1])).pvalue < 1e-10


def test_a_tiny_range_is_a_range() -> None:
    samples = np.array([1.0, 2.0, 3.0, 5.0, 9.0])
    assert shapiro_wilk(samples * 1e-200).pvalue == pytest.approx(shapiro_wilk(samples).pvalue)


def test_constant_and_single_samples_are_described() -> None:
    constant = describe([0.25] * 9)
    assert (constant.mean, constant.interquartile_range, constant.outlier_count) == (0.25, 0, 0)
    assert (constant.quantiles.slope, constant.quantiles.intercept) == (0, 0.25)
    assert np.isnan(constant.quantiles.correlation)
    single = describe([0.25])
    assert single.median == single.minimum == single.percentile_values[-1] == 0.25
    assert np.isnan(single.standard_deviation)
    assert np.isnan(single.quantiles.slope)
    assert single.quantiles.theoretical.tolist() == [0]


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_any_samples_are_described_in_order(samples: list[float]) -> None:
    description = describe(samples)
    assert description.minimum <= description.quartile_1 <= description.median
    assert description.median <= description.quartile_3 <= description.maximum
    assert np.all(np.diff(description.percentile_values) >= -1e-9)
    assert description.outlier_count <= description.count / 2
    assert np.isnan(description.normality.pvalue) == bool(description.normality.not_applicable)


def test_what_cannot_be_described_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="'identity@edge' hold nan at index 2"):
        describe([1.0, 2.0, float("nan")], name="identity@edge")
    with pytest.raises(ValueError, match="no samples"):
        describe([])
    with pytest.raises(ValueError, match="from 0 to 100"):
        describe([1.0], percentiles=(101,))
