"""Accuracy lost against a reference, paired by item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog.statistics.verdicts import Verdict, judge, sidak


@dataclass(frozen=True, eq=False)
class AccuracyDrop:
    """How many percentage points the candidate is below the reference; negative is a gain.

    Attributes
    ----------
    drop_pp, low_pp, high_pp : float
    confidence_level : float
        Of all `comparisons` together.
    comparisons, items : int
    lost, gained : int or None
        Items that only the reference gets right, and only the candidate; None for mIoU.
    pvalue : float or None
        Exact McNemar, two-sided, of this comparison alone; None for mIoU.
    note : str or None
        What is degenerate about it.
    support_pp, cumulative : float array
        The bootstrap distribution of the drop: values ascending, and the probability of at most each.
    """

    drop_pp: float
    low_pp: float
    high_pp: float
    confidence_level: float
    comparisons: int
    items: int
    lost: int | None
    gained: int | None
    pvalue: float | None
    note: str | None
    support_pp: NDArray[np.float64]
    cumulative: NDArray[np.float64]

    def upper_pp(self, confidence_level: float) -> float:
        """The one-sided upper bound."""
        return _quantile(self.support_pp, self.cumulative, confidence_level)

    def confidence_at_most(self, limit_pp: float) -> float:
        """The largest confidence level whose one-sided upper bound is at or below the limit."""
        held = int(np.searchsorted(self.support_pp, limit_pp + _ROUNDING_PP, side="right"))
        return float(self.cumulative[held - 1]) if held else 0.0

    def verdict(self, *, margin_pp: float) -> Verdict:
        """Judge the interval against a margin in percentage points."""
        return judge(self.low_pp, self.high_pp, margin=margin_pp)


# Drops are counts over items: a limit of 1.0 must not miss a drop of "exactly 1.0" by a last bit.
_ROUNDING_PP = 1e-9
_IDENTICAL = "all items agree: the drop is 0 on these items, and the interval cannot speak of rarer disagreements"


@dataclass(frozen=True, eq=False)
class PairedItems:
    """Positions of the items that both have, in one order.

    Attributes
    ----------
    reference, candidate : int array, shape (items,)
    """

    reference: NDArray[np.intp]
    candidate: NDArray[np.intp]


def pair_items(reference_ids: Sequence[str], candidate_ids: Sequence[str]) -> PairedItems:
    """Pair two accuracies by item.

    Parameters
    ----------
    reference_ids, candidate_ids : sequence of str
        Without repeats.

    Returns
    -------
    PairedItems
        Of the common items, sorted by id; empty when there is none.

    Raises
    ------
    ValueError
        For an id that is there twice.

    Examples
    --------
    >>> pair_items(["a", "b", "c"], ["c", "b"]).reference.tolist()
    [1, 2]
    """
    for ids in (reference_ids, candidate_ids):
        if len(set(ids)) < len(ids):
            raise ValueError(f"item ids do not repeat, got {len(ids)} of which {len(set(ids))} are distinct")
    _, reference, candidate = np.intersect1d(
        np.asarray(reference_ids, dtype=str),
        np.asarray(candidate_ids, dtype=str),
        assume_unique=True,
        return_indices=True,
    )
    return PairedItems(reference, candidate)


def hit_drop(
    reference: ArrayLike, candidate: ArrayLike, *, confidence_level: float = 0.95, comparisons: int = 1
) -> AccuracyDrop:
    """Compare hits (top-1, top-5) item by item.

    Parameters
    ----------
    reference, candidate : array_like of bool, shape (items,)
        Whether each item is right, in the same order of items; at least one.
    confidence_level : float
        Of all comparisons together.
    comparisons : int
        How many there are: the interval takes Sidak's level.

    Returns
    -------
    AccuracyDrop

    Raises
    ------
    ValueError
        For shapes that differ, values that are not boolean, no items.

    Notes
    -----
    Percentile interval of the paired bootstrap over items. A draw of items gives a sum of independent -1, 0 and +1
    with the observed shares, so the distribution is not sampled: it is the inverse Fourier transform of the n-th power
    of one item's characteristic function. Deterministic; O(items log items). McNemar's exact test is the binomial test
    of the items on which the two disagree. Where they never disagree both are degenerate: interval [0, 0], p-value 1
    and a note.

    References
    ----------
    Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12 (1947).

    Examples
    --------
    >>> drop = hit_drop([True] * 8 + [False] * 2, [True] * 5 + [False] * 5)
    >>> drop.drop_pp, drop.lost, drop.gained, drop.pvalue  # R: mcnemar.exact's p-value is binom.test(3, 3)$p.value
    (30.0, 3, 0, 0.25)
    """
    first, second = np.asarray(reference), np.asarray(candidate)
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise ValueError(f"hits are boolean, got {first.dtype} and {second.dtype}")
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"hits are one-dimensional, of the same items and not none, got {first.shape}, {second.shape}")
    lost, gained = int((first & ~second).sum()), int((~first & second).sum())
    counts, mass = _sum_of_signs(first.size, lost=lost, gained=gained)
    return drop_from_distribution(
        100 * (lost - gained) / first.size,
        counts * (100 / first.size),
        np.cumsum(mass),
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=first.size,
        lost=lost,
        gained=gained,
        pvalue=mcnemar_exact(lost, gained),
        identical=lost + gained == 0,
    )


def mcnemar_exact(lost: int, gained: int) -> float:
    """Test, two-sided and exactly, whether disagreements go both ways equally often.

    Parameters
    ----------
    lost, gained : int
        Items that only one of the two gets right, and only the other.

    Returns
    -------
    float
        The p-value; 1 without disagreements.

    Raises
    ------
    ValueError
        For negative counts.

    Examples
    --------
    >>> mcnemar_exact(8, 1)  # R: binom.test(8, 9)$p.value
    0.0390625
    """
    if lost < 0 or gained < 0:
        raise ValueError(f"counts are at or above 0, got {lost} and {gained}")
    return float(min(1.0, 2 * special.bdtr(min(lost, gained), lost + gained, 0.5)))


def _sum_of_signs(items: int, *, lost: int, gained: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Values from -items to items and their probabilities, when each item is +1, -1 or 0 with the observed shares."""
    size = 2 * items + 1
    angle = 2 * np.pi * np.fft.fftfreq(size)
    one = 1 + lost / items * (np.exp(-1j * angle) - 1) + gained / items * (np.exp(1j * angle) - 1)
    mass = np.fft.ifft(one**items).real
    mass[np.abs(mass) < 1e-13] = 0.0
    values = np.arange(-items, items + 1)
    mass = mass[values]  # a negative index is a negative sum
    return values, mass / mass.sum()


def drop_from_distribution(
    drop_pp: float,
    support_pp: NDArray[np.floating],
    cumulative: NDArray[np.floating],
    *,
    confidence_level: float,
    comparisons: int,
    items: int,
    lost: int | None,
    gained: int | None,
    pvalue: float | None,
    identical: bool,
) -> AccuracyDrop:
    """Read the interval off a bootstrap distribution: `cumulative` is the probability of at most each `support_pp`."""
    level = sidak(confidence_level, comparisons=comparisons)
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = (_quantile(support_pp, cumulative, each) for each in tails)
    return AccuracyDrop(
        drop_pp=drop_pp,
        low_pp=min(low, drop_pp),
        high_pp=max(high, drop_pp),
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=items,
        lost=lost,
        gained=gained,
        pvalue=pvalue,
        note=_IDENTICAL if identical else None,
        support_pp=support_pp.astype(np.float64),
        cumulative=cumulative.astype(np.float64),
    )


def _quantile(support: NDArray[np.floating], cumulative: NDArray[np.floating], probability: float) -> float:
    """The smallest value with at least this probability at or below it."""
    position = int(np.searchsorted(cumulative, probability - 1e-12))
    return float(support[min(position, support.size - 1)])
