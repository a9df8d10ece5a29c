"""P-values adjusted for the number of comparisons, under the names that scikit-posthocs documents, and `none`."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Values = NDArray[np.float64]

# The two-stage procedures estimate the share of true hypotheses at one level; scikit-posthocs leaves it at this one.
_TWO_STAGE_LEVEL = 0.05


def adjust_pvalues(pvalues: ArrayLike, adjustment: str) -> NDArray[np.float64]:
    """Adjust p-values for how many there are.

    Parameters
    ----------
    pvalues : array_like, shape (comparisons,)
        From 0 to 1, in any order; may be empty.
    adjustment : str
        One of `ADJUSTMENTS`. Against any false rejection: "bonferroni", "sidak", "holm", "holm-sidak",
        "simes-hochberg", "hommel"; against a share of false rejections: "fdr_bh", "fdr_by", "fdr_tsbh", "fdr_tsbky";
        or "none".

    Returns
    -------
    ndarray, shape (comparisons,)
        In the order given, at most 1, never below the p-value except with the two-stage procedures.

    Raises
    ------
    ValueError
        For an unknown adjustment, or p-values outside 0 to 1 or NaN.

    Notes
    -----
    "holm" is valid whatever the dependence between the tests, as "bonferroni", and never weaker. The two-stage
    procedures take 0.05 as the level of their first stage, so judge their result at 0.05 only. One sort, O(n log n);
    "hommel" is O(n²).

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    Y. Benjamini, A. M. Krieger and D. Yekutieli, Adaptive linear step-up procedures, Biometrika 93 (2006).

    Examples
    --------
    >>> adjust_pvalues([0.01, 0.04, 0.03], "holm")
    array([0.03, 0.06, 0.06])
    """
    if adjustment not in _RULES:
        raise ValueError(f"unknown adjustment {adjustment!r}; choose one of {', '.join(ADJUSTMENTS)}")
    given = np.asarray(pvalues, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise ValueError("p-values are a one-dimensional array of numbers from 0 to 1, without NaN")
    if not given.size:
        return given
    order = np.argsort(given)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(_RULES[adjustment](given[order]), 1.0)
    return adjusted


# Each rule takes ascending p-values.


def _sidak(ascending: _Values, count: _Values | int) -> _Values:
    with np.errstate(divide="ignore"):  # p = 1: log 0 is -inf, and the result 1
        return -np.expm1(count * np.log1p(-ascending))


def _not_yet(ascending: _Values) -> _Values:
    """How many hypotheses are left when each is reached: m, m - 1, …, 1."""
    return np.arange(ascending.size, 0, -1, dtype=np.float64)


def _step_down(values: _Values) -> _Values:
    return np.maximum.accumulate(values)


def _step_up(values: _Values) -> _Values:
    return np.minimum.accumulate(values[::-1])[::-1]


def _benjamini_hochberg(ascending: _Values) -> _Values:
    return _step_up(ascending * ascending.size / np.arange(1, ascending.size + 1))


def _benjamini_yekutieli(ascending: _Values) -> _Values:
    return _benjamini_hochberg(ascending) * np.sum(1 / np.arange(1, ascending.size + 1))


def _two_stage(ascending: _Values, factor: float) -> _Values:
    first = np.minimum(_benjamini_hochberg(ascending), 1.0)
    rejected = int(np.sum(first <= _TWO_STAGE_LEVEL / factor))
    true_share = 1 - rejected / ascending.size
    return first * factor * (true_share if 0 < true_share < 1 else 1.0)


def _hommel(ascending: _Values) -> _Values:
    """The largest of Simes's p-values over all sets that hold a hypothesis; a set of each size suffices."""
    count = ascending.size
    largest = np.maximum(ascending, np.min(ascending * count / np.arange(1, count + 1)))
    for size in range(count - 1, 1, -1):
        head, tail = ascending[: count - size + 1], ascending[count - size + 1 :]
        of_tail = np.min(size * tail / np.arange(2, size + 1))
        of_head = np.minimum(size * head, of_tail)
        largest[: head.size] = np.maximum(largest[: head.size], of_head)
        largest[head.size :] = np.maximum(largest[head.size :], of_head[-1])
    return largest


_RULES: Mapping[str, Callable[[_Values], _Values]] = {
    "none": lambda p: p,
    "bonferroni": lambda p: p * p.size,
    "sidak": lambda p: _sidak(p, p.size),
    "holm": lambda p: _step_down(p * _not_yet(p)),
    "holm-sidak": lambda p: _step_down(_sidak(p, _not_yet(p))),
    "simes-hochberg": lambda p: _step_up(p * _not_yet(p)),
    "hommel": _hommel,
    "fdr_bh": _benjamini_hochberg,
    "fdr_by": _benjamini_yekutieli,
    "fdr_tsbh": lambda p: _two_stage(p, 1.0),
    "fdr_tsbky": lambda p: _two_stage(p, 1.0 + _TWO_STAGE_LEVEL),
}

ADJUSTMENTS = tuple(_RULES)
