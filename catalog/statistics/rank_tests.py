"""The samples of several strategies, checked and ranked together: the one sort that every test of a family shares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class PooledRanks:
    """Groups of values, ranked among all of them. The values of one group lie together, in the order given.

    Attributes
    ----------
    names : tuple of str
        One per group.
    sizes : ndarray of int, shape (groups,)
    ranks : ndarray, shape (values,)
        From 1; tied values share the mean of their ranks.
    dense_ranks : ndarray of int, shape (values,)
        From 0, without gaps; tied values share one.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    ranks: NDArray[np.float64]
    dense_ranks: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each group begins, shape (groups,)."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def rank_means(self) -> NDArray[np.float64]:
        """Mean rank of each group, shape (groups,)."""
        return np.add.reduceat(self.ranks, self.starts) / self.sizes if self.names else np.empty(0)


def finite_samples(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Check the samples of one strategy.

    Parameters
    ----------
    name : str
        For the message.
    values : array_like, shape (samples,)

    Returns
    -------
    ndarray, shape (samples,)

    Raises
    ------
    ValueError
        For more than one dimension, no values at all, or a NaN or infinity, with its index.

    Examples
    --------
    >>> finite_samples("identity@edge", [1, 2])
    array([1., 2.])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"the samples of {name!r} have shape {array.shape}; give a one-dimensional array")
    if not array.size:
        raise ValueError(f"{name!r} has no samples; leave it out")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"the samples of {name!r} hold {array[bad[0]]} at index {bad[0]} ({bad.size} of {array.size} are not "
            f"finite); only finite values can be ranked, so leave failed inferences out"
        )
    return array


def pool_ranks(samples: Mapping[str, ArrayLike]) -> PooledRanks:
    """Rank the samples of several strategies among all of them.

    Parameters
    ----------
    samples : mapping of str to array_like, shape (samples,)
        By strategy, in any one unit. Sizes may differ.

    Returns
    -------
    PooledRanks

    Raises
    ------
    ValueError
        As `finite_samples`, for the first strategy it applies to.

    Notes
    -----
    One sort, O(n log n) in time and O(n) in memory for n values in all.

    Examples
    --------
    >>> pool_ranks({"a": [3.0, 1.0], "b": [3.0]}).ranks
    array([2.5, 1. , 2.5])
    """
    groups = [finite_samples(name, values) for name, values in samples.items()]
    pooled = np.concatenate(groups) if groups else np.empty(0)
    _, dense, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    sizes = np.array([group.size for group in groups], dtype=np.int64)
    return PooledRanks(tuple(samples), sizes, mean_ranks[dense], dense.astype(np.int64))
