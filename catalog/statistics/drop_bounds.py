"""Upper bounds of a drop of accuracy at any level, and their inverse: the confidence that a limit holds.

Those of a mean intersection over union rest on how much each image makes of it, widened by a bootstrap-t.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

# How the chance of an error is divided between the two limits. It is fixed before the counts are known.
SHARE_OF_LOST = 0.8
# Drops are counts over items: a limit of 1.0 must not miss a drop of "exactly 1.0" by a last bit.
ROUNDING_PP = 1e-9
# A smaller chance of an error counts as none.
_LEAST_CHANCE = 1e-15
# Of the logarithm of a chance, where the search for it ends.
_TOLERANCE = 1e-9
# The default of scipy.optimize.brentq: four times the spacing of doubles at 1.
_RELATIVE_TOLERANCE = 8.881784197001252e-16


class DropBound(Protocol):
    """The bound of a drop of accuracy at any level."""

    @property
    def drop_pp(self) -> float:
        """The drop on the items that were compared."""

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound."""

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""

    def without_loss(self) -> "DropBound":
        """Return the bound that as many items would give if nothing differed on any: the least they can show."""

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return the fewest items that could show a drop to be at most the limit; None where no number could."""


@dataclass(frozen=True)
class NoDrop:
    """The bound of a model that computes bit by bit what the reference computes, on any item."""

    drop_pp: float = 0.0

    def upper_pp(self, confidence_level: float) -> float:
        """Return 0."""
        return 0.0

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return 1 for a limit from 0 on, 0 below."""
        return float(limit_pp + ROUNDING_PP >= 0)

    def without_loss(self) -> DropBound:
        """Return the same bound: nothing can be lost."""
        return self

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return 0: nothing has to be shown by items."""
        return 0


@dataclass(frozen=True)
class PairedCounts:
    """The bound of a drop when each item is lost, gained or neither.

    Attributes
    ----------
    lost, gained, items : int
        Items that only the reference gets right, those that only the candidate does, and all.

    Notes
    -----
    With error chance a = 1 - level: U(lost; 0.8 a) - L(gained; 0.2 a), where U and L are Clopper and Pearson's
    one-sided limits of the two shares. The bound is below the true drop only if one of the limits errs, which happens
    with a chance of at most 0.8 a + 0.2 a whatever the shares are (Bonferroni), for any number of items. The split is
    fixed: a split chosen by the counts would not hold. It favours losses, because a candidate worth considering gains
    little.

    References
    ----------
    C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934).
    """

    lost: int
    gained: int
    items: int

    @property
    def drop_pp(self) -> float:
        """The drop on the items that were compared."""
        return 100 * (self.lost - self.gained) / self.items

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound in percentage points.

        Examples
        --------
        >>> round(PairedCounts(0, 0, 83).upper_pp(0.95), 2)  # 100 * (1 - 0.04 ** (1 / 83))
        3.8
        """
        return self.bound_pp(1 - confidence_level)

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit.

        Examples
        --------
        >>> round(PairedCounts(0, 0, 83).confidence_at_most(1.0), 3)  # 1 - 0.99 ** 83 / 0.8
        0.457
        """
        return _confidence_at_most(self, limit_pp + ROUNDING_PP)

    def without_loss(self) -> DropBound:
        """Return the bound that as many items would give if nothing differed on any."""
        return PairedCounts(0, 0, self.items)

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return the fewest items that could show a drop to be at most the limit; None where no number could."""
        return _items_needed(limit_pp, SHARE_OF_LOST * (1 - confidence_level))

    def bound_pp(self, chance: float) -> float:
        """Return the upper bound that errs with at most this chance, in percentage points."""
        lost = upper_share(self.lost, self.items, chance=SHARE_OF_LOST * chance)
        return 100 * (lost - lower_share(self.gained, self.items, chance=(1 - SHARE_OF_LOST) * chance))


@dataclass(frozen=True)
class SeparateCounts:
    """The bound of a drop when only the numbers of right items are known, and not which ones.

    Attributes
    ----------
    reference_right, reference_items, right, items : int

    Notes
    -----
    With error chance a: U(share of the reference; a / 2) - L(share of the candidate; a / 2), Clopper and Pearson's
    limits. It holds however the items are paired (Bonferroni), and is wide because of it.
    """

    reference_right: int
    reference_items: int
    right: int
    items: int

    @property
    def drop_pp(self) -> float:
        """The drop of the shares."""
        return 100 * (self.reference_right / self.reference_items - self.right / self.items)

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound in percentage points.

        Examples
        --------
        >>> round(SeparateCounts(90, 100, 90, 100).upper_pp(0.95), 2)  # R: binom.test(90, 100)$conf.int, 95.10 - 82.38
        12.72
        """
        return self.bound_pp(1 - confidence_level)

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""
        return _confidence_at_most(self, limit_pp + ROUNDING_PP)

    def without_loss(self) -> DropBound:
        """Return the bound that as many items would give if both shares were the reference's."""
        right = round(self.items * self.reference_right / self.reference_items)
        return SeparateCounts(self.reference_right, self.reference_items, right, self.items)

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return None: items that are paired would do with far fewer."""
        return None

    def bound_pp(self, chance: float) -> float:
        """Return the upper bound that errs with at most this chance, in percentage points."""
        most = upper_share(self.reference_right, self.reference_items, chance=chance / 2)
        return 100 * (most - lower_share(self.right, self.items, chance=chance / 2))


# A question asks the same of all strategies that share an accuracy, and the next question often the same limit.
@lru_cache(maxsize=4096)
def _confidence_at_most(counts: PairedCounts | SeparateCounts, limit_pp: float) -> float:
    """Find the chance of an error at which the bound meets the limit, from the side within it."""

    def excess(logarithm: float) -> float:
        return counts.bound_pp(math.exp(logarithm)) - limit_pp

    # On the logarithm, because chances range over fifteen orders of magnitude.
    least = math.log(_LEAST_CHANCE)
    # A chance of 1 gives the lowest bound of all: above the limit even there, it holds at no level.
    if excess(0.0) > 0:
        return 0.0
    if excess(least) <= 0:
        return 1.0
    logarithm = root(excess, least, 0.0, tolerance=_TOLERANCE)
    # The root may lie a tolerance on the wrong side, and a confidence must not be overstated.
    while excess(logarithm) > 0:
        logarithm = min(0.0, logarithm + _TOLERANCE)
    # 1 - exp(x) would lose digits where the chance is near 1, that is of small confidences.
    return -math.expm1(logarithm)


def root(function: Callable[[float], float], first: float, last: float, *, tolerance: float) -> float:
    """Find where a function crosses 0, by Brent's method.

    Parameters
    ----------
    function : callable
        Continuous, with values of opposite signs at both ends.
    first, last : float
        The ends, in any order.
    tolerance : float
        Largest distance of the result from the root; above 0.

    Returns
    -------
    float

    Notes
    -----
    It takes the steps of `scipy.optimize.brentq` and gives its result to the last bit. Importing scipy.optimize takes
    longer than a whole answer, and this search is all that an answer needs of it.

    References
    ----------
    R. P. Brent, Algorithms for Minimization Without Derivatives (1973), chapter 4.

    Examples
    --------
    >>> round(root(lambda x: x * x - 2, 0.0, 2.0, tolerance=1e-12), 10)
    1.4142135624
    """
    before, best, opposite = first, last, first
    value_before, value, value_opposite = function(first), function(last), 0.0
    step = step_before = 0.0
    while value != 0:
        if (value_before < 0) != (value < 0):
            opposite, value_opposite = before, value_before
            step = step_before = best - before
        # `best` is always the end with the smaller value; `opposite` has the other sign.
        if abs(value_opposite) < abs(value):
            before, best, opposite = best, opposite, best
            value_before, value, value_opposite = value, value_opposite, value
        least = (tolerance + _RELATIVE_TOLERANCE * abs(best)) / 2
        half = (opposite - best) / 2
        if value == 0 or abs(half) < least:
            break
        tried = half
        if abs(step_before) > least and abs(value) < abs(value_before):
            tried = _interpolated((before, value_before), (best, value), (opposite, value_opposite))
        # Brent's safeguard: where interpolation does not shrink the steps, bisection takes over, which ends.
        short = 2 * abs(tried) < min(abs(step_before), 3 * abs(half) - least)
        step_before, step = (step, tried) if short else (half, half)
        before, value_before = best, value
        best += step if abs(step) > least else math.copysign(least, half)
        value = function(best)
    return best


_Point = tuple[float, float]


def _interpolated(before: _Point, best: _Point, opposite: _Point) -> float:
    """Return the step to where a line through two points, or an inverse parabola through three, crosses 0."""
    if before[0] == opposite[0]:
        return -best[1] * (best[0] - before[0]) / (best[1] - before[1])
    slope = (before[1] - best[1]) / (before[0] - best[0])
    slope_opposite = (opposite[1] - best[1]) / (opposite[0] - best[0])
    rise = opposite[1] * slope_opposite - before[1] * slope
    return -best[1] * rise / (slope_opposite * slope * (opposite[1] - before[1]))


@dataclass(frozen=True)
class AlikeImages:
    """The bound where no image deviates: how many others there may be, each by 100 points at most.

    Attributes
    ----------
    drop_pp : float
        Of every image.
    images : int
    """

    drop_pp: float
    images: int

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound.

        Examples
        --------
        >>> round(AlikeImages(0.0, 300).upper_pp(0.95), 2)  # the rule of three: 3 / 300
        0.99
        """
        return min(100.0, self.drop_pp + 100 * upper_share(0, self.images, chance=1 - confidence_level))

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""
        # Were this share of all images off by 100 points, (1 - share)^n would be the chance to meet none of them.
        share = (limit_pp + ROUNDING_PP - self.drop_pp) / 100
        return 1 - (1 - min(share, 1.0)) ** self.images if share > 0 and limit_pp < 100 else float(limit_pp >= 100)

    def without_loss(self) -> DropBound:
        """Return the bound that as many images would give if nothing differed on any."""
        return AlikeImages(0.0, self.images)

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return the fewest images that could show a drop to be at most the limit; None where no number could."""
        return _items_needed(limit_pp, 1 - confidence_level)


@dataclass(frozen=True)
class InfluentialImages:
    """The bound of a drop of mean intersection over union, by the influence of the images on it.

    Attributes
    ----------
    drop_pp, standard_error_pp : float
        The drop and its standard error, to first order.
    freedom : float
        Degrees of freedom that the concentration of the influences leaves.
    images : int
    widening : callable
        Returns the factor by which the bootstrap-t is wider; called once, when a bound is first used.
    """

    drop_pp: float
    standard_error_pp: float
    freedom: float
    images: int
    widening: Callable[[], float]

    @cached_property
    def error_pp(self) -> float:
        """The standard error, widened where the bootstrap-t is."""
        return self.standard_error_pp * self.widening()

    @property
    def equal_images(self) -> float:
        """How many images of equal influence would leave as many degrees of freedom."""
        return self.freedom + 1

    def upper_pp(self, confidence_level: float) -> float:
        """Return the one-sided upper bound, by Student's t."""
        return min(
            100.0, self.drop_pp - self.error_pp * float(scipy.special.stdtrit(self.freedom, 1 - confidence_level))
        )

    def confidence_at_most(self, limit_pp: float) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""
        if limit_pp >= 100:
            return 1.0
        return float(scipy.special.stdtr(self.freedom, (limit_pp + ROUNDING_PP - self.drop_pp) / self.error_pp))

    def without_loss(self) -> DropBound:
        """Return the bound that as many images would give if nothing differed on any."""
        return AlikeImages(0.0, self.images)

    def items_needed(self, limit_pp: float, confidence_level: float) -> int | None:
        """Return the fewest images that could show a drop to be at most the limit; None where no number could."""
        return _items_needed(limit_pp, 1 - confidence_level)


def _items_needed(limit_pp: float, chance: float) -> int | None:
    """Return the smallest n with (1 - limit)^n at most the chance: n unharmed items keep the bound within the limit."""
    limit = (limit_pp + ROUNDING_PP) / 100
    # A limit of 0: no number of unharmed items shows that nothing is ever lost.
    if limit <= 2 * ROUNDING_PP / 100:
        return None
    return 1 if limit >= 1 else max(1, math.ceil(math.log(chance) / math.log1p(-limit)))


# The levels of many candidates are few, and the next question has the same.
@lru_cache(maxsize=4096)
def upper_share(count: int, items: int, *, chance: float) -> float:
    """Bound a share from above, exactly.

    Parameters
    ----------
    count, items : int
        Of `items`, `count` are of the kind whose share is bounded.
    chance : float
        Of the bound to be below the true share, at most; above 0 and at most 1.

    Returns
    -------
    float
        Clopper and Pearson's one-sided limit.

    Examples
    --------
    >>> round(upper_share(0, 83, chance=0.05), 6)  # 1 - 0.05 ** (1 / 83)
    0.03545
    """
    # The beta quantile at 1 - chance; the complement takes the chance itself, which 1 - chance would round.
    return float(scipy.special.betainccinv(count + 1, items - count, chance)) if count < items else 1.0


@lru_cache(maxsize=4096)
def lower_share(count: int, items: int, *, chance: float) -> float:
    """Bound a share from below, exactly; as `upper_share`.

    Examples
    --------
    >>> round(lower_share(90, 100, chance=0.05), 6)  # R: binom.test(90, 100, alternative = "greater")$conf.int[1]
    0.836282
    """
    return float(scipy.special.betaincinv(count, items - count + 1, chance)) if count else 0.0


# Counts in memory at once: 32 MB.
_CHUNK = 4_000_000
# Where the bootstrap-t is compared with Student's t: further out, too few of 2000 draws remain.
_CHANCES = np.array([0.1, 0.05, 0.025, 0.01])
# A standard error in percentage points below which images are alike but for rounding.
_ALIKE_PP = 1e-9


def mask_bounds(
    tables: list[NDArray[np.float64]], *, n_resamples: int, rng: np.random.Generator | int | None
) -> tuple[DropBound, DropBound]:
    """Bound the drop of a mean intersection over union and, of the opposite sign, the gain.

    Parameters
    ----------
    tables : list of float array, each of shape (images, classes)
        Intersection and union of the reference, then of the candidate, in pixels.
    n_resamples : int
        Draws of images.
    rng : numpy.random.Generator, int or None
        As `mean_iou_drop` takes it.

    Returns
    -------
    tuple of (DropBound, DropBound)
    """
    images = len(tables[0])
    pixels = np.concatenate(tables, axis=1)
    # The draw that takes every image once is the estimate itself.
    drop, influences = _linearised(pixels, np.ones((1, images)))
    drop_pp, squares = float(drop[0]), influences[0] ** 2
    error = _standard_error(squares.sum(), images)
    if error < _ALIKE_PP:
        return AlikeImages(drop_pp, images), AlikeImages(-drop_pp, images)
    # Of n equal influences it is n - 1, of one image that makes all the difference 0.
    freedom = squares.sum() ** 2 / (squares**2).sum() - 1
    bootstrap = _Bootstrap(pixels, drop_pp, n_resamples=n_resamples, rng=rng)
    return (
        # The upper bound of the drop looks at the draws below the estimate (bootstrap-t), hence the sign.
        InfluentialImages(drop_pp, error, freedom, images, lambda: _widening(-bootstrap.deviations, freedom)),
        InfluentialImages(-drop_pp, error, freedom, images, lambda: _widening(bootstrap.deviations, freedom)),
    )


class _Bootstrap:
    """The bootstrap-t that both bounds of a drop share, drawn when one of them first needs it."""

    def __init__(
        self,
        pixels: NDArray[np.float64],
        drop_pp: float,
        *,
        n_resamples: int,
        rng: np.random.Generator | int | None,
    ) -> None:
        self._pixels, self._drop_pp, self._n_resamples, self._rng = pixels, drop_pp, n_resamples, rng
        if isinstance(rng, np.random.Generator):
            # The generator is the caller's: what is drawn must not depend on what else draws from it later.
            _ = self.deviations

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """The deviation of the drop of each draw, in its own standard errors."""
        if not isinstance(self._rng, int):
            return self._drawn()
        # A seed draws the same again: an analysis and an answer of one process share what takes them longest.
        key = sha256(self._pixels.tobytes()).digest(), self._pixels.shape, self._n_resamples, self._rng
        deviations = _DEVIATIONS.get(key)
        if deviations is None:
            deviations = self._drawn()
            for oldest in list(_DEVIATIONS)[: len(_DEVIATIONS) + 1 - _DEVIATIONS_KEPT]:
                _DEVIATIONS.pop(oldest, None)  # another thread may have dropped it
            _DEVIATIONS[key] = deviations
        return deviations

    def _drawn(self) -> NDArray[np.float64]:
        draws = _draws(self._pixels.shape[0], n_resamples=self._n_resamples, rng=self._rng)
        return _studentised(self._pixels, self._drop_pp, draws)


# By what was drawn from; each has one number for every draw.
_DEVIATIONS: dict[object, NDArray[np.float64]] = {}
_DEVIATIONS_KEPT = 64


def _linearised(
    pixels: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the drop of each draw of images, shape (draws,), and the images' influences, shape (draws, images)."""
    images = pixels.shape[0]
    sums = (counts @ pixels).reshape(counts.shape[0], 4, -1)
    weights = np.zeros_like(sums)
    for sign, first in ((1, 0), (-1, 2)):
        intersection, union = sums[:, first], sums[:, first + 1]
        occurs = union > 0
        # A class's ratio I / U has the derivatives 1 / U by I and -I / U^2 by U; its share of the mean is 1 / classes.
        share = np.divide(100 * sign, union * occurs.sum(axis=1, keepdims=True), out=np.zeros_like(union), where=occurs)
        ratio = np.divide(intersection, union, out=np.zeros_like(union), where=occurs)
        weights[:, first], weights[:, first + 1] = share, -ratio * share
    return _mean_iou_difference(sums), weights.reshape(counts.shape[0], -1) @ pixels.T.reshape(-1, images)


def _standard_error(squares: float, images: int) -> float:
    # Influences deviate from the estimate of these same images, which takes one degree of freedom.
    return float(np.sqrt(squares * images / max(images - 1, 1)))


def _draws(
    images: int, *, n_resamples: int, rng: np.random.Generator | int | None
) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield how often each image is drawn, shape (draws, images), as many draws at a time as memory allows."""
    # Only a seed names draws that are worth keeping, and only what fits in memory is kept.
    if isinstance(rng, int) and images * n_resamples <= _CHUNK:
        yield _seeded_draws(images, n_resamples, rng)
        return
    generator = np.random.default_rng(rng)
    for start in range(0, n_resamples, step := max(1, _CHUNK // images)):
        size = min(step, n_resamples - start)
        # How often each image is drawn, not which: the sums of all draws are then one matrix product.
        yield generator.multinomial(images, np.full(images, 1 / images), size=size).astype(np.uint32)


# The drops of one dataset are drawn from one seed, and drawing takes longer than all that follows it.
@lru_cache(maxsize=1)
def _seeded_draws(images: int, n_resamples: int, seed: int) -> NDArray[np.unsignedinteger]:
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(images, np.full(images, 1 / images), size=n_resamples)
    # No count exceeds the number of images; the smaller type halves what stays in memory.
    return counts.astype(np.uint16 if images < 2**16 else np.uint32)


def _studentised(
    pixels: NDArray[np.float64], drop_pp: float, draws: Iterable[NDArray[np.unsignedinteger]]
) -> NDArray[np.float64]:
    """Return the deviation of each draw's drop in its own standard errors; draws without an error are left out."""
    images = pixels.shape[0]
    deviations = []
    for drawn in draws:
        counts = drawn.astype(np.float64)
        drops, influences = _linearised(pixels, counts)
        # In place, because these arrays are the largest of all.
        np.multiply(counts, np.square(influences, out=influences), out=influences)
        errors = np.sqrt(influences.sum(axis=1) * images / max(images - 1, 1))
        usable = np.isfinite(drops) & (errors > _ALIKE_PP)
        deviations.append((drops[usable] - drop_pp) / errors[usable])
    return np.concatenate(deviations)


def _widening(deviations: NDArray[np.float64], freedom: float) -> float:
    """Return the largest factor by which the bootstrap-t is wider than Student's t; at least 1."""
    if not deviations.size:
        return 1.0
    student = -scipy.special.stdtrit(freedom, _CHANCES)
    # At least 1: the bootstrap may widen a bound, never sharpen it.
    return float(max(1.0, (np.quantile(deviations, 1 - _CHANCES) / student).max()))


def _mean_iou_difference(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return reference less candidate from summed pixels, shape (draws, 4, classes), ordered as in `mask_bounds`."""
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
