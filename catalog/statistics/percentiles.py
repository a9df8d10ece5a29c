"""Percentiles of repeated rounds: taken within each round, then averaged over the rounds."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def percentile_by_round(values: ArrayLike, rounds: ArrayLike, percentile: float) -> NDArray[np.float64]:
    """Take a percentile within each round.

    Parameters
    ----------
    values : array_like, shape (samples,)
        In any unit, for example seconds.
    rounds : array_like of int, shape (samples,)
        The round of each value.
    percentile : float
        From 0 to 100.

    Returns
    -------
    ndarray, shape (distinct rounds,)
        In ascending order of the round; empty without samples.

    Raises
    ------
    ValueError
        For shapes that differ or a percentile outside 0 to 100.

    Notes
    -----
    Linear interpolation between order statistics (numpy's default, Hyndman and Fan's type 7). A NaN makes its round
    NaN. One sort; O(n log n).

    References
    ----------
    R. J. Hyndman and Y. Fan, Sample quantiles in statistical packages, The American Statistician 50 (1996).

    Examples
    --------
    >>> percentile_by_round([1.0, 3.0, 10.0, 30.0], [1, 1, 2, 2], 50)
    array([ 2., 20.])
    """
    value, number = np.asarray(values, dtype=np.float64), np.asarray(rounds)
    if value.ndim != 1 or value.shape != number.shape:
        raise ValueError(f"values and rounds are one-dimensional and of one length, got {value.shape}, {number.shape}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"a percentile is from 0 to 100, got {percentile!r}")
    return np.array([np.percentile(value[number == each], percentile) for each in np.unique(number)], dtype=np.float64)


def percentile_over_rounds(values: ArrayLike, rounds: ArrayLike, percentile: float) -> float:
    """Average the percentile of each round over the rounds.

    Parameters
    ----------
    values, rounds, percentile
        As in `percentile_by_round`.

    Returns
    -------
    float
        In the unit of `values`; NaN without samples.

    Raises
    ------
    ValueError
        As `percentile_by_round`.

    Notes
    -----
    Rounds weigh alike, whatever their number of samples: the round, not the sample, is the unit (DESIGN section 4).

    Examples
    --------
    >>> percentile_over_rounds([1.0, 3.0, 10.0, 30.0], [1, 1, 2, 2], 50)
    11.0
    """
    each = percentile_by_round(values, rounds, percentile)
    return float(each.mean()) if each.size else float("nan")
