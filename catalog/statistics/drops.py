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
# Counts held at once: 32 MB.
_CHUNK = 4_000_000
_IDENTICAL = "all items agree: the drop is 0 on these items, and the interval cannot speak of rarer disagreements"


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
    return _drop(
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


def mean_iou_drop(
    reference: Sequence[NDArray[np.integer]],
    candidate: Sequence[NDArray[np.integer]],
    *,
    confidence_level: float = 0.95,
    comparisons: int = 1,
    n_resamples: int = 2000,
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
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    AccuracyDrop
        With `pvalue` None.

    Raises
    ------
    ValueError
        For shapes that differ or no images.

    Notes
    -----
    Percentile interval of the paired bootstrap over images: each draw, the same for both, sums intersections and unions
    of the drawn images per class and averages their ratios over the classes that occur (union above zero).

    Examples
    --------
    >>> union = np.full((4, 2), 10)
    >>> drop = mean_iou_drop((np.full((4, 2), 8), union), (np.full((4, 2), 7), union), rng=1)
    >>> [round(each, 6) for each in (drop.drop_pp, drop.low_pp, drop.high_pp)]
    [10.0, 10.0, 10.0]
    """
    tables = _pixel_tables(reference, candidate)
    if n_resamples < 2:
        raise ValueError(f"n_resamples is at least 2, got {n_resamples}")
    images = tables[0].shape[0]
    drawn = _drawn_drops(tables, n_resamples=n_resamples, rng=np.random.default_rng(rng))
    identical = all(np.array_equal(tables[which], tables[which + 2]) for which in (0, 1))
    return _drop(
        float(_mean_iou_difference(np.stack(tables).sum(axis=1)[None])[0]),
        drawn,
        np.arange(1, drawn.size + 1) / drawn.size,
        confidence_level=confidence_level,
        comparisons=comparisons,
        items=images,
        lost=None,
        gained=None,
        pvalue=None,
        identical=identical,
    )


def _pixel_tables(
    reference: Sequence[NDArray[np.integer]], candidate: Sequence[NDArray[np.integer]]
) -> list[NDArray[np.float64]]:
    """Intersection and union of the reference, then of the candidate, checked."""
    tables = [np.asarray(each, dtype=np.float64) for each in (*reference, *candidate)]
    shapes = {each.shape for each in tables}
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


def _drawn_drops(
    tables: list[NDArray[np.float64]], *, n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The drop for each draw of images, ascending; a draw in which no class occurs is left out."""
    images, classes = tables[0].shape
    side_by_side = np.concatenate(tables, axis=1)
    drops = []
    for start in range(0, n_resamples, step := max(1, _CHUNK // images)):
        size = min(step, n_resamples - start)
        counts = rng.multinomial(images, np.full(images, 1 / images), size=size).astype(np.float64)
        drops.append(_mean_iou_difference((counts @ side_by_side).reshape(size, 4, classes)))
    drawn = np.sort(np.concatenate(drops))
    return drawn[np.isfinite(drawn)]


def _mean_iou_difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reference less candidate from summed pixels, shape (draws, 4, classes), in the order of `_pixel_tables`."""
    return mean_iou_pct(sums[:, 0], sums[:, 1]) - mean_iou_pct(sums[:, 2], sums[:, 3])


def mean_iou_pct(intersection: NDArray[np.floating], union: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average intersection over union, in percent, over the classes (last axis) that occur; NaN where none does."""
    occurs = union > 0
    ratio = np.divide(intersection, union, out=np.zeros(union.shape), where=occurs)
    number = occurs.sum(axis=-1)
    mean: NDArray[np.float64] = np.divide(
        ratio.sum(axis=-1), number, out=np.full(number.shape, np.nan), where=number > 0
    )
    return 100 * mean


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


def _drop(
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
