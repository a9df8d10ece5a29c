"""The curve of log latency over the size of an input, fitted to all rounds of a strategy together.

Sizes are known of every input before any is measured, and they explain most of what inputs differ in. Rounds start
faster or slower, so that each has a level of its own beside the curve, which all of them share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Of thirty samples; more samples carry more.
_KNOTS = 5
_KNOTS_AT = 30
_KNOTS_POWER = 0.35
# The outermost knots: beyond them the curve is a line, so that a few odd sizes do not bend it.
_OUTERMOST = 0.02
# From hardly any smoothing to a straight line; which of them is used, generalized cross-validation says.
_PENALTIES = np.concatenate([[1e-6], np.geomspace(1e-4, 1e3, 8)])
_SMALLEST_RIDGE = 1e-9


@dataclass(frozen=True, eq=False)
class CurveBasis:
    """Functions of the log size that a curve is made of: a line, and cubic pieces that are lines beyond the last knots.

    Attributes
    ----------
    knots : float array, shape (knots,)
        Ascending, of the log size, scaled to 0 for the smallest and 1 for the largest input of the pool.
    smallest, span : float
        Of the log sizes.
    """

    knots: NDArray[np.float64]
    smallest: float
    span: float

    @classmethod
    def of_pool(cls, log_size: NDArray[np.float64], *, samples: int) -> Self | None:
        """Choose knots for ascending log sizes of a pool; None where all inputs have one size."""
        smallest, span = float(log_size[0]), float(log_size[-1] - log_size[0])
        if not span > 0:
            return None
        count = round(_KNOTS * max(samples / _KNOTS_AT, 1.0) ** _KNOTS_POWER)
        places = np.linspace(_OUTERMOST, 1 - _OUTERMOST, count) * (log_size.size - 1)
        # Many inputs of one size would be several knots at one place.
        return cls(np.unique((log_size[places.round().astype(np.int64)] - smallest) / span), smallest, span)

    def columns(self, log_size: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the functions at these sizes, shape (sizes, functions): the line first."""
        scaled = (log_size - self.smallest) / self.span
        if self.knots.size < 3:
            return scaled[:, np.newaxis]
        # Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, equations 5.4 and 5.5.
        cubes = np.maximum(scaled[:, np.newaxis] - self.knots, 0) ** 3
        pieces = (cubes[:, :-1] - cubes[:, -1:]) / (self.knots[-1] - self.knots[:-1])
        return np.concatenate([scaled[:, np.newaxis], pieces[:, :-1] - pieces[:, -1:]], axis=1)


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """A fitted curve with the level of each round.

    Attributes
    ----------
    coefficients : float array, shape (functions,)
    level : float array, shape (rounds,)
        Zero of a round without samples.
    freedom : float
        How many parameters the fit has effectively used.
    """

    coefficients: NDArray[np.float64]
    level: NDArray[np.float64]
    freedom: float


def fit_size_curves(
    log_latency: NDArray[np.float64],
    round_position: NDArray[np.int64],
    columns: NDArray[np.float64],
    selections: Sequence[NDArray[np.bool_]],
) -> list[SizeCurve]:
    """Fit a curve and the levels of the rounds to each selection of the samples.

    Parameters
    ----------
    log_latency : float array, shape (samples,)
    round_position : int array, shape (samples,)
    columns : float array, shape (samples, functions)
        Of `CurveBasis`, the line first.
    selections : sequence of bool array, shape (samples,)
        Each with at least one sample.

    Returns
    -------
    list of SizeCurve

    Notes
    -----
    Least squares with a penalty on all functions but the line, of the size that generalized cross-validation prefers
    for the selection. The mean of a round would not do for its level: it depends on the inputs that the round drew.

    References
    ----------
    G. H. Golub, M. Heath and G. Wahba, Generalized cross-validation as a method for choosing a good ridge parameter,
    Technometrics 21 (1979).
    """
    joint = np.concatenate([columns, log_latency[:, np.newaxis]], axis=1)
    rounds = int(round_position.max()) + 1
    means = np.zeros((len(selections), rounds, joint.shape[1]))
    products = np.zeros((len(selections), joint.shape[1], joint.shape[1]))
    counts = np.zeros((len(selections), rounds))
    for row, selection in enumerate(selections):
        number, own = round_position[selection], joint[selection]
        counts[row] = np.bincount(number, minlength=rounds)
        sums = np.zeros((rounds, joint.shape[1]))
        np.add.at(sums, number, own)
        means[row] = sums / np.maximum(counts[row], 1)[:, np.newaxis]
        # The levels are fitted by leaving the mean of each round out of everything else.
        centred = own - means[row, number]
        products[row] = centred.T @ centred
    coefficients, freedom = _penalized(products, counts.sum(axis=1), (counts > 0).sum(axis=1))
    return [
        SizeCurve(own, (mean[:, -1] - mean[:, :-1] @ own) * (count > 0), float(used))
        for own, mean, count, used in zip(coefficients, means, counts, freedom, strict=True)
    ]


def _penalized(
    products: NDArray[np.float64], samples: NDArray[np.float64], levels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients of the best penalty and the parameters used, a row for each matrix of cross products."""
    gram, target, square = products[:, :-1, :-1], products[:, :-1, -1], products[:, -1, -1]
    functions = gram.shape[1]
    curved = np.diag(np.r_[0.0, np.ones(functions - 1)])
    scale = np.trace(gram, axis1=1, axis2=2).clip(_SMALLEST_RIDGE)
    # Samples of one size would leave the matrix without an inverse.
    ridge = _SMALLEST_RIDGE * scale[:, np.newaxis, np.newaxis] * np.eye(functions)
    inverse = np.linalg.inv((gram + ridge)[:, np.newaxis] + _PENALTIES[:, np.newaxis, np.newaxis] * curved)
    coefficients = (inverse @ target[:, np.newaxis, :, np.newaxis])[..., 0]
    explained = 2 * (coefficients * target[:, np.newaxis]).sum(axis=-1)
    explained -= ((coefficients @ gram) * coefficients).sum(axis=-1)
    freedom = levels[:, np.newaxis] + (inverse * gram[:, np.newaxis]).sum(axis=(2, 3))
    left = np.maximum(samples[:, np.newaxis] - freedom, 0.5)
    score = np.maximum(square[:, np.newaxis] - explained, 1e-18) / left**2
    best, row = score.argmin(axis=1), np.arange(len(products))
    return coefficients[row, best], freedom[row, best]
