"""Mean intersection over union lost against a reference, paired by image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.drops import AccuracyDrop, drop_from_distribution

# Counts held at once: 32 MB.
_CHUNK = 4_000_000


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
    return drop_from_distribution(
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
