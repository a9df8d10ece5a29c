"""Accuracy lost against a reference, paired by item."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from catalog.statistics.drop_bounds import (
    ROUNDING_PP,
    DropBound,
    InfluentialImages,
    NoDrop,
    PairedCounts,
    SeparateCounts,
    mask_bounds,
)
from catalog.statistics.intervals import IntervalRefusal, RefusalKind
from catalog.statistics.outcomes import ComparisonOutcome, judge, sidak


@dataclass(frozen=True, eq=False)
class AccuracyDrop:
    """How many percentage points the candidate is below the reference; negative is a gain.

    The interval and the p-value are computed when they are first used: an answer about one subject does not pay for the
    resampling of the others.

    Attributes
    ----------
    drop_pp : float
    confidence_level : float
        Of all `comparisons` together.
    comparisons, items : int
    lost, gained : int or None
        Items that only the reference gets right, and only the candidate; None for mIoU.
    note : str or None
        Why the bounds are degenerate.
    bound, gain_bound : DropBound
        One-sided, at any level: of the drop, and of the drop with the sides exchanged.
    refusal : IntervalRefusal or None
        Why the bound promises nothing; the interval then only describes.
    """

    drop_pp: float
    confidence_level: float
    comparisons: int
    items: int
    lost: int | None
    gained: int | None
    note: str | None
    bound: DropBound
    gain_bound: DropBound
    refusal: IntervalRefusal | None = None

    @cached_property
    def low_pp(self) -> float:
        """The lower end of the two-sided interval."""
        return min(self.drop_pp, -self.gain_bound.upper_pp(self._one_sided_level))

    @cached_property
    def high_pp(self) -> float:
        """The upper end of the two-sided interval."""
        return max(self.drop_pp, self.bound.upper_pp(self._one_sided_level))

    @cached_property
    def pvalue(self) -> float | None:
        """McNemar's exact p-value, two-sided, of this comparison alone; None for mIoU."""
        return None if self.lost is None or self.gained is None else mcnemar_exact(self.lost, self.gained)

    @property
    def _one_sided_level(self) -> float:
        return two_sided(self.confidence_level, comparisons=self.comparisons)

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound."""
        return self.bound.upper_pp(confidence_level)

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is within the limit; 0 with a refusal."""
        return 0.0 if self.refusal else self.bound.confidence_at_most(limit_pp)

    def confidence_above(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided lower bound is above the limit; 0 with a refusal."""
        # The lower bound is the upper one with the sides exchanged, and a drop of exactly the limit is within it.
        return 0.0 if self.refusal else self.gain_bound.confidence_at_most(-limit_pp - 3 * ROUNDING_PP)

    def verdict(self, *, margin_pp: float) -> ComparisonOutcome:
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
        For a repeated id.

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
    return AccuracyDrop(
        drop_pp=bound.drop_pp,
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=first.size,
        lost=lost,
        gained=gained,
        note=_IDENTICAL if lost + gained == 0 else None,
        bound=bound,
        gain_bound=PairedCounts(gained, lost, first.size),
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
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=items,
        lost=0 if counted else None,
        gained=0 if counted else None,
        note=_SAME_MODEL,
        bound=NoDrop(),
        gain_bound=NoDrop(),
    )


def separate_drop(reference_right: int, reference_items: int, right: int, items: int) -> AccuracyDrop:
    """Return the drop of two accuracies of which only the numbers of right items are known.

    Parameters
    ----------
    reference_right, reference_items, right, items : int
        At least one item each.

    Returns
    -------
    AccuracyDrop
        At 95 %, without the items that were lost and gained.

    Examples
    --------
    >>> drop = separate_drop(900, 1000, 895, 1000)
    >>> round(drop.drop_pp, 2), round(drop.low_pp, 1), round(drop.high_pp, 1)
    (0.5, -3.9, 4.9)
    """
    bound = SeparateCounts(reference_right, reference_items, right, items)
    return AccuracyDrop(
        drop_pp=bound.drop_pp,
        confidence_level=0.95,
        comparisons=1,
        items=items,
        lost=None,
        gained=None,
        note="which items differ is not known: the interval holds however they are paired",
        bound=bound,
        gain_bound=SeparateCounts(right, items, reference_right, reference_items),
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
    # Where both ways are equally likely the smaller count is binomial with 1/2; both tails are alike, hence twice.
    return float(min(1.0, 2 * scipy.special.bdtr(min(lost, gained), lost + gained, 0.5)))


# The least that a promise needs: fewer differing images say too little about how large a difference may be, and the
# ratio of a class with fewer images is decided by those few.
IMAGES_NEEDED = 30
IMAGES_PER_CLASS = 10
# Influences of a heavy tail hide their largest values, and the bound then errs in 8 to 10 % of the studies at a nominal
# 5 %. They show it: the images weigh like few equal ones (benchmarks/coverage.py --only masks).
EQUAL_IMAGES_NEEDED = 15
_IDENTICAL_MASKS = (
    "the masks of all images agree: the drop is 0 on these images, and the interval says how rare others may be"
)


def mean_iou_drop(
    reference: Sequence[NDArray[np.integer]],
    candidate: Sequence[NDArray[np.integer]],
    *,
    confidence_level: float = 0.95,
    comparisons: int = 1,
    n_resamples: int = 2000,
    bit_identical: bool = False,
    rng: np.random.Generator | int | None = None,
) -> AccuracyDrop:
    """Compare mean intersection over union, image by image.

    Parameters
    ----------
    reference, candidate : (intersection, union), each an int array, shape (images, classes)
        Pixels, of the same images and classes in the same order.
    confidence_level : float
        Of all comparisons together.
    comparisons : int
        How many there are: the interval takes Sidak's level.
    n_resamples : int
        Draws of images, at least 2.
    bit_identical : bool
        As in `hit_drop`.
    rng : numpy.random.Generator, int or None
        As scipy takes it. A generator draws at once; from a seed, images are drawn when a bound is first used.

    Returns
    -------
    AccuracyDrop
        With `pvalue` None, and a `refusal` where the images can promise nothing.

    Raises
    ------
    ValueError
        For shapes that differ, no images, or pixels that differ and should be identical.

    Notes
    -----
    Intersections and unions are summed over the images per class, and their ratios averaged over the classes that occur
    (union above zero). The influence of an image is its share of the drop's deviation, to first order:

        d_i = 100 mean_c[(I_ic - R_c U_ic) / U_c] of the reference, less the same of the candidate
        standard error^2 = n / (n - 1) sum d_i^2,  degrees of freedom = (sum d_i^2)^2 / sum d_i^4 - 1

    with I_ic and U_ic the pixels of the image, U_c the summed union and R_c the ratio of class c. The degrees of
    freedom are those that the concentration of the influences leaves: few images that make all the difference count as
    few. The bound is Student's, widened where the bootstrap-t (the same draw of images for both) is wider, at the level
    where it is widest. Identical masks have no influence: at most a share 1 - a^(1/n) of all images may then
    differ, with a the chance of an error (the exact rule of three), each by 100 points at most.

    A bound is a promise only from 30 images on whose pixels differ (or from none that do), with every class in at least
    10 images, and where the influences weigh like those of 15 equal images or more (degrees of freedom plus one); else
    the interval describes, and `refusal` says what is missing.

    References
    ----------
    B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 12.5 and 21.

    Examples
    --------
    >>> union = np.full((40, 2), 10)
    >>> drop = mean_iou_drop((np.full((40, 2), 8), union), (np.full((40, 2), 7), union), rng=1)
    >>> round(drop.drop_pp, 6), round(drop.upper_pp(0.95), 2)  # all alike: 10 + 100 * (1 - 0.05 ** (1 / 40))
    (10.0, 17.22)
    """
    tables = _pixel_tables(reference, candidate)
    if n_resamples < 2:
        raise ValueError(f"n_resamples is at least 2, got {n_resamples}")
    images = tables[0].shape[0]
    differing = _differing(tables)
    if bit_identical:
        if differing:
            raise ValueError(f"what is bit-identical has the same pixels, got {differing} images that differ")
        return no_drop(images, confidence_level=confidence_level, comparisons=comparisons, counted=False)
    loss, gain = mask_bounds(tables, n_resamples=n_resamples, rng=rng)
    return AccuracyDrop(
        drop_pp=loss.drop_pp,
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=images,
        lost=None,
        gained=None,
        note=None if differing else _IDENTICAL_MASKS,
        bound=loss,
        gain_bound=gain,
        refusal=_refusal(tables, differing, loss),
    )


def _differing(tables: list[NDArray[np.float64]]) -> int:
    """Count the images in which any pixel differs."""
    return int(((tables[0] != tables[2]) | (tables[1] != tables[3])).any(axis=1).sum())


def _refusal(tables: list[NDArray[np.float64]], differing: int, bound: DropBound) -> IntervalRefusal | None:
    if 0 < differing < IMAGES_NEEDED:
        reason = f"{differing} of {len(tables[0])} images make a difference, and a bound takes {IMAGES_NEEDED}"
        return IntervalRefusal(RefusalKind.TOO_FEW_IMAGES, reason, rounds_needed=1, inputs_needed=IMAGES_NEEDED)
    # In either: a class that only the candidate predicts enters its mean as well.
    present = ((tables[1] > 0) | (tables[3] > 0)).sum(axis=0)
    rarest = int(present[present > 0].min())
    if rarest < IMAGES_PER_CLASS:
        reason = f"a class is in {rarest} of {len(tables[0])} images, and a bound takes {IMAGES_PER_CLASS}"
        return IntervalRefusal(RefusalKind.TOO_FEW_IMAGES, reason, rounds_needed=1, inputs_needed=IMAGES_PER_CLASS)
    if isinstance(bound, InfluentialImages) and bound.equal_images < EQUAL_IMAGES_NEEDED:
        reason = (
            f"the {differing} images that make a difference weigh like {bound.equal_images:.0f} equal ones (few "
            f"of them make most of it), and a bound takes {EQUAL_IMAGES_NEEDED}"
        )
        return IntervalRefusal(RefusalKind.TOO_FEW_IMAGES, reason, rounds_needed=1, inputs_needed=EQUAL_IMAGES_NEEDED)
    return None


def _pixel_tables(
    reference: Sequence[NDArray[np.integer]], candidate: Sequence[NDArray[np.integer]]
) -> list[NDArray[np.float64]]:
    """Validate and return intersection and union of the reference, then of the candidate."""
    # Floats hold pixels exactly up to 2^53, and sums over many draws are then one matrix product.
    tables = [np.asarray(pixels, dtype=np.float64) for pixels in (*reference, *candidate)]
    shapes = {table.shape for table in tables}
    if len(tables) != 4 or len(shapes) != 1 or tables[0].ndim != 2 or not tables[0].size:
        raise ValueError(
            f"intersection and union of both are of one shape (images, classes) and not empty, got {sorted(shapes)}"
        )
    for intersection, union in (tables[:2], tables[2:]):
        if not (np.all(intersection >= 0) and np.all(intersection <= union)):
            raise ValueError("an intersection is from 0 to its union: some are not; were the two exchanged?")
        if not union.any():
            raise ValueError("no class occurs: every union is 0, so there is no mean to take")
    return tables
