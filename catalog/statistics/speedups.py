"""Ratios of medians in the paper's words: "1.83x lower average median inference latency"."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Speedup:
    """One median against another, or the average over several subjects.

    Attributes
    ----------
    factor : float
        At least 1: the larger median divided by the smaller one.
    direction : {"lower", "higher", "equal"}
        Of the first median against the reference. Lower is faster.
    average : bool
        Whether `factor` is the mean over more than one pair of medians.
    """

    factor: float
    direction: Literal["lower", "higher", "equal"]
    average: bool = False

    def __str__(self) -> str:
        """As the paper words it, without significance: `1.83x lower median latency`."""
        what = "average median latency" if self.average else "median latency"
        return f"equal {what}" if self.direction == "equal" else f"{self.factor:.2f}x {self.direction} {what}"


def speedup(medians: ArrayLike, reference_medians: ArrayLike) -> Speedup:
    """Compare medians with those of a reference, in the paper's words.

    Parameters
    ----------
    medians, reference_medians : array_like, shape () or (subjects,)
        Above 0, in any one unit: of the strategy spoken of, and of the one it is compared with, in the same order.

    Returns
    -------
    Speedup

    Raises
    ------
    ValueError
        For shapes that differ, no medians, or a median that is not a finite number above 0.

    Notes
    -----
    The paper's average is the arithmetic mean of each subject's ratio (1.83 for Edge against Mobile, Table 5's
    subjects), not the ratio of mean medians (1.93). Such a mean depends on which way the ratios are taken, so the
    direction is that of the mean *log* ratio, and the ratios are then taken that way: the factor is at least 1.

    References
    ----------
    Paper, section 5.1.

    Examples
    --------
    >>> str(speedup(5.64, 17.61))
    '3.12x lower median latency'
    >>> str(speedup([5.64, 3.96, 12.28, 23.64], [8.94, 6.29, 27.38, 45.46]))
    '1.83x lower average median latency'
    """
    ours, theirs = np.asarray(medians, dtype=np.float64), np.asarray(reference_medians, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim > 1 or not ours.size:
        raise ValueError(f"give as many medians as reference medians, got shapes {ours.shape} and {theirs.shape}")
    for each in (ours, theirs):
        if not np.all((each > 0) & np.isfinite(each)):
            raise ValueError(f"a median must be a finite number above 0 to be in a ratio, got {each.tolist()}")
    average = ours.size > 1
    log_ratio = float(np.mean(np.log(theirs) - np.log(ours)))
    if log_ratio == 0:
        return Speedup(1.0, "equal", average)
    if log_ratio > 0:
        return Speedup(float(np.mean(theirs / ours)), "lower", average)
    return Speedup(float(np.mean(ours / theirs)), "higher", average)
