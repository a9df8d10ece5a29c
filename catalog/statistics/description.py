"""One strategy's samples described: centre, spread, percentiles, outliers, normality (paper, section 4.6)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.normality import NormalQuantiles, ShapiroWilk, normal_quantiles, shapiro_wilk
from catalog.statistics.rank_tests import finite_samples

PERCENTILES = (5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, eq=False)
class Description:
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
    normality : ShapiroWilk
    quantiles : NormalQuantiles
        For a Q-Q plot.
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
    normality: ShapiroWilk
    quantiles: NormalQuantiles

    @property
    def outlier_count(self) -> int:
        """How many values lie beyond the fences."""
        return self.outlier_indices.size


def describe(
    samples: ArrayLike, *, name: str = "the strategy", percentiles: tuple[float, ...] = PERCENTILES
) -> Description:
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
    Description

    Raises
    ------
    ValueError
        For no samples, a NaN or infinity, more than one dimension, or a percentile outside 0 to 100.

    Notes
    -----
    Percentiles and quartiles interpolate linearly (numpy's default, Hyndman and Fan's type 7). All samples are pooled,
    as in the paper: this describes what was measured and decides nothing, and a percentile's uncertainty is another
    matter (DESIGN section 8). O(n log n).

    References
    ----------
    J. W. Tukey, Exploratory Data Analysis (1977), for the fences.

    Examples
    --------
    >>> found = describe([1.0, 2.0, 3.0, 4.0, 50.0])
    >>> found.median, found.interquartile_range, found.outlier_indices
    (3.0, 2.0, array([4]))
    """
    values = finite_samples(name, samples)
    if not all(0 <= each <= 100 for each in percentiles):
        raise ValueError(f"a percentile is from 0 to 100, got {percentiles!r}")
    levels = np.percentile(values, [25, 50, 75, *percentiles])
    spread = levels[2] - levels[0]
    lower, upper = levels[0] - 1.5 * spread, levels[2] + 1.5 * spread
    return Description(
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
        normality=shapiro_wilk(values, name=name),
        quantiles=normal_quantiles(values, name=name),
    )
