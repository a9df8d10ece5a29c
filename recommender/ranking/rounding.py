"""Limits rounded to figures that one would type, always to the lenient side."""

import math
from decimal import ROUND_CEILING, Decimal

_FIGURES = 3
# 100 times 1.23 is not quite 123: what a last bit does must not cost a hundredth of a point.
_ROUNDING = 1e-8


def up(value: float) -> float:
    """Round a limit up to three figures.

    Parameters
    ----------
    value : float
        Above 0, finite.

    Returns
    -------
    float
        At or above `value`, at most 1 % above it.

    Examples
    --------
    >>> up(0.031234), up(66193817)
    (0.0313, 66200000.0)
    """
    exact = Decimal(value)
    step = Decimal(1).scaleb(exact.adjusted() - _FIGURES + 1)
    rounded = float(exact.quantize(step, rounding=ROUND_CEILING))
    # The decimal may lie between two floats, and the nearer one below the value.
    return rounded if rounded >= value else math.nextafter(rounded, math.inf)


def next_up(value: float) -> float:
    """The next limit of three figures above one.

    Examples
    --------
    >>> next_up(0.0313), next_up(9.99)
    (0.0314, 10.0)
    """
    return up(math.nextafter(value, math.inf))


def points_up(value: float) -> float:
    """Percent or percentage points rounded up to hundredths.

    Examples
    --------
    >>> points_up(1.2301), points_up(1.23)
    (1.24, 1.23)
    """
    return math.ceil(value * 100 - _ROUNDING) / 100


def points_down(value: float) -> float:
    """Percent rounded down to hundredths.

    Examples
    --------
    >>> points_down(88.2399), points_down(88.24)
    (88.23, 88.24)
    """
    return math.floor(value * 100 + _ROUNDING) / 100
