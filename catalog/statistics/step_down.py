"""Which of many tests hold together: step-down instead of one level for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.verdicts import sidak


@dataclass(frozen=True, eq=False)
class StepDown:
    """The level at which each test was made, and what all of them promise together.

    Attributes
    ----------
    levels : float array, shape (tests,)
        The confidence that each test needed by itself: the largest for the first step, the last step's for all that
        do not hold.
    joint : float array, shape (tests,)
        The largest joint confidence at which each test would hold: 1 - its adjusted p-value.
    """

    levels: NDArray[np.float64]
    joint: NDArray[np.float64]


def step_down(confidences: Sequence[float], *, confidence_level: float = 0.95) -> StepDown:
    """Adjust tests for being many, the surest first (Holm's procedure with Sidak's levels).

    Parameters
    ----------
    confidences : sequence of float, shape (tests,)
        Of each test by itself, from 0 to 1: 1 - its p-value. A test that cannot be made has 0 and counts.
    confidence_level : float
        Joint: with this probability nothing is asserted wrongly.

    Returns
    -------
    StepDown
        A test holds when its `joint` reaches the confidence level, which is when its confidence reaches its level.

    Raises
    ------
    ValueError
        For a level outside (0, 1) or confidences outside [0, 1].

    Notes
    -----
    The surest of k tests needs the level of k tests, the next that of k - 1, and so on until one fails. What holds has
    left the family: at any step all false assertions that are still possible are among the remaining tests, so their
    number is what has to be paid for. No test needs more than with one level for all, and a test that becomes surer
    takes nothing from the others. Sidak's levels ask that tests are independent or positively dependent, as they are
    when strategies share inputs.

    References
    ----------
    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    B. S. Holland and M. D. Copenhaver, An improved sequentially rejective Bonferroni test procedure, Biometrics 43
    (1987).

    Examples
    --------
    >>> found = step_down([0.90, 0.999, 0.98])
    >>> found.joint.round(4).tolist(), found.levels.round(4).tolist()
    ([0.9, 0.997, 0.9604], [0.95, 0.983, 0.9747])
    """
    given = np.asarray(confidences, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"confidences are one-dimensional and from 0 to 1, got {confidences!r}")
    if not given.size:
        return StepDown(given, given)
    surest_first = np.argsort(-given, kind="stable")
    remaining = np.arange(given.size, 0, -1)
    joint = np.minimum.accumulate(given[surest_first] ** remaining)
    held = int(np.searchsorted(-joint, -confidence_level, side="right"))
    steps = np.minimum(np.arange(given.size), held)
    levels = np.array([sidak(confidence_level, comparisons=int(given.size - step)) for step in steps])
    back = np.empty_like(surest_first)
    back[surest_first] = np.arange(given.size)
    return StepDown(levels[back], joint[back])
