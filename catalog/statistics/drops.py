"""Accuracy lost against a reference, paired by item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog.statistics.drop_bounds import DropBound, NoDrop, PairedCounts
from catalog.statistics.refusal import Refusal
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
    bound : DropBound
        One-sided, at any level.
    refusal : Refusal or None
        Why the bound is none to promise; the interval then describes alone.
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
    bound: DropBound
    refusal: Refusal | None = None

    def upper_pp(self, confidence_level: float) -> float:
        """The one-sided upper bound."""
        return self.bound.upper_pp(confidence_level)

    def confidence_at_most(self, limit_pp: float) -> float:
        """The largest confidence level whose one-sided upper bound is at or below the limit; 0 with a refusal."""
        return 0.0 if self.refusal else self.bound.confidence_at_most(limit_pp)

    def verdict(self, *, margin_pp: float) -> Verdict:
        """Judge the interval against a margin in percentage points."""
        return judge(self.low_pp, self.high_pp, margin=margin_pp)


_IDENTICAL = "all items agree: the drop is 0 on these items, and the interval says how rare disagreements may be"
_SAME_MODEL = "the outputs are those of the reference, bit by bit: there is nothing to lose"


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
    reference: ArrayLike,
    candidate: ArrayLike,
    *,
    confidence_level: float = 0.95,
    comparisons: int = 1,
    bit_identical: bool = False,
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
    bit_identical : bool
        The candidate is the reference, or is shown to compute the same bit by bit: the drop is 0, certainly.

    Returns
    -------
    AccuracyDrop

    Raises
    ------
    ValueError
        For shapes that differ, values that are not boolean, no items, or hits that differ and should be identical.

    Notes
    -----
    Bounds are those of `PairedCounts`: they hold with at least the stated probability whatever the true shares are.
    The interval has one of each side, each with half of the error. McNemar's exact test is the binomial test of the
    items on which the two disagree. Where they never disagree its p-value is 1, and the interval still has the width
    that so many items leave.

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
    if bit_identical:
        if lost + gained:
            raise ValueError(f"what is bit-identical has the same hits, got {lost} lost and {gained} gained")
        return no_drop(first.size, confidence_level=confidence_level, comparisons=comparisons, counted=True)
    bound = PairedCounts(lost, gained, first.size)
    level = two_sided(confidence_level, comparisons=comparisons)
    drop_pp = bound.drop_pp
    return AccuracyDrop(
        drop_pp=drop_pp,
        low_pp=min(drop_pp, -PairedCounts(gained, lost, first.size).upper_pp(level)),
        high_pp=max(drop_pp, bound.upper_pp(level)),
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=first.size,
        lost=lost,
        gained=gained,
        pvalue=mcnemar_exact(lost, gained),
        note=_IDENTICAL if lost + gained == 0 else None,
        bound=bound,
    )


def two_sided(confidence_level: float, *, comparisons: int) -> float:
    """Return the one-sided level of each end of an interval, so that all intervals hold together.

    Examples
    --------
    >>> two_sided(0.95, comparisons=1)
    0.975
    """
    return (1 + sidak(confidence_level, comparisons=comparisons)) / 2


def no_drop(items: int, *, confidence_level: float, comparisons: int, counted: bool) -> AccuracyDrop:
    """Return the drop of a model that is the reference, or is shown to compute the same bit by bit.

    Parameters
    ----------
    items : int
        How many were compared.
    confidence_level, comparisons
        As in `hit_drop`.
    counted : bool
        Whether items are lost or gained, as hits are.

    Returns
    -------
    AccuracyDrop

    Examples
    --------
    >>> no_drop(83, confidence_level=0.95, comparisons=1, counted=True).upper_pp(0.9999)
    0.0
    """
    return AccuracyDrop(
        drop_pp=0.0,
        low_pp=0.0,
        high_pp=0.0,
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=items,
        lost=0 if counted else None,
        gained=0 if counted else None,
        pvalue=1.0 if counted else None,
        note=_SAME_MODEL,
        bound=NoDrop(),
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
