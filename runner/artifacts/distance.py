"""The distance of an artifact's outputs to those of the model it was made from, over the same inputs."""

import math
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.output_distance import Agreement, OutputDistance
from runner.artifacts.model_runs import Array, Outputs, Trial

_INTERVAL_LEVEL = 0.95
_Floats = NDArray[np.float64]


def measure_distance(trial: Trial, outputs: Sequence[Outputs]) -> OutputDistance:
    """Compare outputs with the model's own; of several outputs, the one that differs most is the figure.

    Parameters
    ----------
    trial
        The model's outputs for each input.
    outputs
        The artifact's outputs for the same inputs.

    Returns
    -------
    OutputDistance
    """
    figures = [_figures([expected[name] for expected in trial.outputs], [actual[name] for actual in outputs])
               for name in trial.outputs[0]]  # fmt: skip
    relative_error, cosine, finite = max(figures, key=_badness)
    return OutputDistance(
        inputs=len(trial.feeds),
        source=trial.source,
        relative_error=relative_error,
        cosine=cosine,
        finite=finite,
        agreement=_agreement(trial.outputs, outputs),
    )


def _badness(figures: tuple[float | None, float | None, bool]) -> tuple[bool, float]:
    relative_error, _, finite = figures
    return not finite, math.inf if relative_error is None else relative_error


def _figures(expected: Sequence[Array], made: Sequence[Array]) -> tuple[float | None, float | None, bool]:
    """Return relative error, cosine and finiteness of one output over all inputs."""
    difference = first = second = product = 0.0
    for one, other in zip(expected, made, strict=True):
        original, changed = _numbers(one, other)
        finite = np.isfinite(original)
        # Where the model itself gives no finite number there is nothing to compare with.
        original, changed = original[finite], changed[finite]
        if not np.isfinite(changed).all():
            return None, None, False
        difference += float(np.square(original - changed).sum())
        first += float(np.square(original).sum())
        second += float(np.square(changed).sum())
        product += float((original * changed).sum())
    # An output of zeros has norm 0: the error is then relative to the output that replaces it.
    scale = first or second
    relative_error = math.sqrt(difference / scale) if scale else 0.0
    cosine = product / math.sqrt(first) / math.sqrt(second) if first and second else None
    return relative_error, cosine if cosine is None else max(-1.0, min(1.0, cosine)), True


def _numbers(one: Array, other: Array) -> tuple[_Floats, _Floats]:
    """Return both as flat arrays of one length; of another shape, nothing of the output is left."""
    if one.dtype.kind not in "fiub":
        return np.ones(1), np.full(1, float(np.array_equal(one, other)))
    original = one.astype(np.float64).ravel()
    if one.shape != other.shape:
        return original, np.zeros_like(original)
    return original, other.astype(np.float64).ravel()


def _agreement(expected: Sequence[Outputs], made: Sequence[Outputs]) -> Agreement | None:
    """Return how often the first class is the same, by the first output that holds scores of classes."""
    for name, scores in expected[0].items():
        if not (scores.dtype.kind == "f" and _has_classes(scores.shape)):
            continue
        pairs = [(original[name], changed[name]) for original, changed in zip(expected, made, strict=True)]
        if any(one.shape != other.shape for one, other in pairs):
            return None
        same = np.concatenate([(one.argmax(axis=1) == other.argmax(axis=1)).ravel() for one, other in pairs])
        return _interval(int(same.sum()), same.size)
    return None


def _has_classes(shape: tuple[int, ...]) -> bool:
    """Return whether these are scores [items, classes], or the same with axes of length one behind."""
    return len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in shape[2:])


def _interval(agreeing: int, items: int) -> Agreement:
    """Return a share with its two-sided interval.

    References
    ----------
    C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934).
    """
    tail = (1 - _INTERVAL_LEVEL) / 2
    low = float(scipy.special.betaincinv(agreeing, items - agreeing + 1, tail)) if agreeing else 0.0
    high = float(scipy.special.betaincinv(agreeing + 1, items - agreeing, 1 - tail)) if agreeing < items else 1.0
    return Agreement(agreeing, items, low, high)
