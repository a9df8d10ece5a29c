"""One strategy's samples described: centre, spread, percentiles, outliers, normality (paper, section 4.6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.rank_tests import finite_samples
from catalog.units import counted

# Royston's approximation of the p-value was fitted up to here; scipy warns above.
_SHAPIRO_LIMIT = 5000


@dataclass(frozen=True)
class ShapiroWilk:
    """The result of `shapiro_wilk`.

    Attributes
    ----------
    statistic : float
        W, at most 1; NaN where the test does not apply.
    pvalue : float
        NaN where the test does not apply.
    not_applicable : str
        Why the test does not apply to these samples; empty where it does.
    """

    statistic: float
    pvalue: float
    not_applicable: str = ""


@dataclass(frozen=True, eq=False)
class NormalQuantiles:
    """The points of a Q-Q plot against the standard normal distribution, and the straight line through them.

    Attributes
    ----------
    theoretical : ndarray, shape (samples,)
        Standard normal quantiles of the medians of the order statistics.
    ordered : ndarray, shape (samples,)
        The samples in ascending order, in their unit.
    slope, intercept : float
        Least squares of `ordered` on `theoretical`; the slope is NaN for one sample.
    correlation : float
        Of the two; NaN for one sample or constant ones.
    """

    theoretical: NDArray[np.float64]
    ordered: NDArray[np.float64]
    slope: float
    intercept: float
    correlation: float


def shapiro_wilk(samples: ArrayLike, *, name: str = "the strategy") -> ShapiroWilk:
    """Test whether samples could come from a normal distribution.

    Parameters
    ----------
    samples : array_like, shape (samples,)
    name : str
        For error messages.

    Returns
    -------
    ShapiroWilk
        With `not_applicable` set, instead of an exception or a warning, for fewer than 3 samples, constant samples,
        and more than 5000 samples, for which the p-value's approximation was not made.

    Raises
    ------
    ValueError
        For no samples, a NaN or infinity, or more than one dimension.

    References
    ----------
    S. S. Shapiro and M. B. Wilk, An analysis of variance test for normality, Biometrika 52 (1965).
    P. Royston, Remark AS R94, Applied Statistics 44 (1995).

    Examples
    --------
    >>> shapiro_wilk([1.0, 1.0, 1.0]).not_applicable
    'all samples are equal'
    >>> round(shapiro_wilk([148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]).statistic, 2)
    0.79
    """
    values = finite_samples(name, samples)
    reason = _why_not(values)
    if reason:
        return ShapiroWilk(float("nan"), float("nan"), reason)
    from scipy.stats import shapiro  # here, because importing scipy.stats takes longer than the rest of this package

    # W does not depend on the unit, but scipy takes a range below 1e-19 for none.
    statistic, pvalue = shapiro((values - values.min()) / np.ptp(values))
    return ShapiroWilk(float(statistic), float(pvalue))


def _why_not(values: NDArray[np.float64]) -> str:
    if values.size < 3:
        return f"{counted(values.size, 'sample')}; the test needs 3"
    if np.ptp(values) == 0:
        return "all samples are equal"
    if values.size > _SHAPIRO_LIMIT:
        return f"{counted(values.size, 'sample')}; the p-value is known up to {_SHAPIRO_LIMIT}"
    return ""


def normal_quantiles(samples: ArrayLike, *, name: str = "the strategy") -> NormalQuantiles:
    """Set samples against normal quantiles, for a Q-Q plot.

    Parameters
    ----------
    samples : array_like, shape (samples,)
    name : str
        For error messages.

    Returns
    -------
    NormalQuantiles

    Raises
    ------
    ValueError
        As `shapiro_wilk`.

    Notes
    -----
    The i-th of n order statistics is put at Filliben's estimate of its median, (i − 0.3175) / (n + 0.365), with
    2^(−1/n) at the upper end and its complement at the lower.

    References
    ----------
    J. J. Filliben, The probability plot correlation coefficient test for normality, Technometrics 17 (1975).

    Examples
    --------
    >>> plot = normal_quantiles([3.0, 1.0, 2.0])
    >>> plot.ordered, plot.theoretical.round(2)
    (array([1., 2., 3.]), array([-0.82,  0.  ,  0.82]))
    """
    ordered = np.sort(finite_samples(name, samples))
    theoretical = _standard_quantiles(ordered.size)
    centred = ordered - ordered.mean()
    # `theoretical` is symmetric about 0, so only the samples need centring, and the intercept is their mean.
    scatter, spread = float(theoretical @ theoretical), float(centred @ centred)
    shared = float(theoretical @ centred)
    slope = shared / scatter if scatter else float("nan")
    # By the range: centring equal values may leave rounding, which would pass for a spread.
    constant = np.ptp(ordered) == 0
    correlation = float("nan") if constant or not spread else shared / float(np.sqrt(scatter * spread))
    return NormalQuantiles(
        theoretical, ordered, 0.0 if constant and scatter else slope, float(ordered.mean()), correlation
    )


def _standard_quantiles(count: int) -> NDArray[np.float64]:
    """Return the quantiles of the order statistics' medians, symmetric about 0, so that their mean is 0."""
    # Filliben (1975), as `scipy.stats.probplot`.
    medians = (np.arange(1, count + 1) - 0.3175) / (count + 0.365)
    # The median of the largest of n uniform values is exactly 2^(-1/n); the formula above only approximates it.
    medians[-1] = 0.5 ** (1 / count)
    medians[0] = 1 - medians[-1]
    quantiles: NDArray[np.float64] = scipy.special.ndtri(medians)
    return quantiles


PERCENTILES = (5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, eq=False)
class SampleDescription:
    """The result of `describe`, in the unit of the samples.

    Attributes
    ----------
    count : int
    minimum, maximum, mean, median : float
    standard_deviation : float
        With n − 1; NaN for one sample.
    percentiles : tuple of float
        Which, from 0 to 100.
    percentile_values : ndarray, shape (percentiles,)
    quartile_1, quartile_3, interquartile_range : float
    outlier_indices : ndarray of int, shape (outliers,)
        Positions in the samples, ascending, of the values beyond Tukey's fences.
    lower_fence, upper_fence : float
        1.5 interquartile ranges below the first and above the third quartile.
    samples : ndarray, shape (samples,)
        In the order they came in.
    name : str
        Of the strategy, for error messages.
    """

    count: int
    minimum: float
    maximum: float
    mean: float
    median: float
    standard_deviation: float
    percentiles: tuple[float, ...]
    percentile_values: NDArray[np.float64]
    quartile_1: float
    quartile_3: float
    interquartile_range: float
    lower_fence: float
    upper_fence: float
    outlier_indices: NDArray[np.int64]
    samples: NDArray[np.float64]
    name: str

    @property
    def outlier_count(self) -> int:
        """How many values lie beyond the fences."""
        return self.outlier_indices.size

    # Both when they are asked for: most commands show neither, and they take longer than all else here.
    @cached_property
    def normality(self) -> ShapiroWilk:
        """The test of Shapiro and Wilk."""
        return shapiro_wilk(self.samples, name=self.name)

    @cached_property
    def quantiles(self) -> NormalQuantiles:
        """The points of a Q-Q plot."""
        return normal_quantiles(self.samples, name=self.name)


def describe(
    samples: ArrayLike, *, name: str = "the strategy", percentiles: tuple[float, ...] = PERCENTILES
) -> SampleDescription:
    """Describe the samples of one strategy.

    Parameters
    ----------
    samples : array_like, shape (samples,)
        In any unit, for example seconds.
    name : str
        Of the strategy, for error messages.
    percentiles : tuple of float
        From 0 to 100.

    Returns
    -------
    SampleDescription

    Raises
    ------
    ValueError
        For no samples, a NaN or infinity, more than one dimension, or a percentile outside 0 to 100.

    Notes
    -----
    Percentiles and quartiles interpolate linearly (numpy's default, Hyndman and Fan's type 7). All samples are pooled,
    as in the paper: this describes what was measured and decides nothing, and a percentile's uncertainty is another
    matter (docs/statistics.md). O(n log n).

    References
    ----------
    J. W. Tukey, Exploratory Data Analysis (1977), for the fences.

    Examples
    --------
    >>> description = describe([1.0, 2.0, 3.0, 4.0, 50.0])
    >>> description.median, description.interquartile_range, description.outlier_indices
    (3.0, 2.0, array([4]))
    """
    values = finite_samples(name, samples)
    if not all(0 <= percentile <= 100 for percentile in percentiles):
        raise ValueError(f"a percentile is from 0 to 100, got {percentiles!r}")
    # One call sorts the values once.
    levels = np.percentile(values, [25, 50, 75, *percentiles])
    spread = levels[2] - levels[0]
    # Tukey's fences.
    lower, upper = levels[0] - 1.5 * spread, levels[2] + 1.5 * spread
    return SampleDescription(
        count=values.size,
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean()),
        median=float(levels[1]),
        standard_deviation=float(values.std(ddof=1)) if values.size > 1 else float("nan"),
        percentiles=tuple(percentiles),
        percentile_values=levels[3:],
        quartile_1=float(levels[0]),
        quartile_3=float(levels[2]),
        interquartile_range=float(spread),
        lower_fence=float(lower),
        upper_fence=float(upper),
        outlier_indices=np.flatnonzero((values < lower) | (values > upper)),
        samples=values,
        name=name,
    )


_LEVEL = 0.95
_METRICS = {"top1": "top-1 accuracy", "miou": "mIoU", "agreement": "agreement"}


def chance_remark(metric: str, accuracy_pct: float, items: int, class_counts: Any) -> str | None:
    """Return what keeps an accuracy from saying anything; None where nothing does, or no classes were counted.

    Parameters
    ----------
    metric : str
        `top1`, `miou` or `agreement`.
    accuracy_pct : float
    items : int
    class_counts : mapping of str to int, or None
        By class, of how many items, or of how many pixels of all masks, it is the truth: the label, or identity's
        answer where agreement is measured.

    Returns
    -------
    str or None

    Notes
    -----
    Items are independent, so the share that was hit is tested against the share of the most frequent class by the exact
    binomial test, one-sided, at 95 %. Pixels are not: there the two figures are compared as they are.

    Examples
    --------
    >>> chance_remark("agreement", 100 * 12 / 22, 22, {"0": 12, "1": 10})
    'agreement 54.55 % cannot be distinguished from always answering class 0, which gives 54.55 % of these 22 items'
    >>> chance_remark("top1", 100.0, 22, {"3": 22})
    'all 22 items are of class 3: an accuracy on one class says nothing'
    >>> chance_remark("top1", 90.0, 200, {"0": 100, "1": 100}) is None
    True
    """
    counts = _sound(class_counts)
    if not counts or items < 1:
        return None
    total, most = sum(counts.values()), max(counts, key=lambda name: counts[name])
    # Of masks, pixels are counted, whose sum is not the number of images.
    by_item = total == items
    what = counted(items, "item") if by_item else "pixels"
    if len(counts) == 1:
        return _one_class(metric, most, what)
    # A constant answer has the IoU of one class and 0 for all others.
    guess = counts[most] / total / (len(counts) if metric == "miou" else 1)
    if _beats(accuracy_pct / 100, guess, items if by_item else None):
        return None
    name, of_these = _METRICS.get(metric, metric), "" if metric == "miou" else f" of these {what}"
    constant = f"always answering class {most}, which gives {100 * guess:.2f} %{of_these}"
    return f"{name} {accuracy_pct:.2f} % cannot be distinguished from {constant}"


def _one_class(metric: str, label: str, what: str) -> str:
    if metric == "agreement":
        return f"identity answers class {label} on all {what}: an agreement on one class says nothing"
    return f"all {what} are of class {label}: an accuracy on one class says nothing"


def _beats(share: float, guess: float, items: int | None) -> bool:
    """Return whether a share is above that of a constant answer: shown so by the items, or as it is."""
    if items is None:
        return share > guess
    # The percentage was made from a count; rounding gives the count back.
    hits = round(share * items)
    above = hits / items - guess
    # Where Hoeffding's bound (1963) on the same tail is small enough, the exact one is too, and needs no SciPy.
    if above > 0 and math.exp(-2 * items * above**2) <= 1 - _LEVEL:
        return True
    # The probability of so many hits or more, where each item is one with the probability of the guess.
    # It is the regularised incomplete beta function I_p(k, n - k + 1) (DLMF 8.17.5).
    pvalue = 1.0 if hits == 0 else float(scipy.special.betainc(hits, items - hits + 1, guess))
    return pvalue <= 1 - _LEVEL


def _sound(class_counts: Any) -> Mapping[str, int]:
    """Return the classes that occur; empty if the stored value is not a count of classes."""
    if not isinstance(class_counts, Mapping):
        return {}
    values = class_counts.values()
    # A bool is an int in Python, and JSON's `true` is no count.
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in values):
        return {}
    return {str(name): count for name, count in class_counts.items() if count}
