"""What a link carries, from latencies at several of its rates, where the bytes were not recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# So many rounds of deciding which link is the slower one settle, or never do.
_TURNS = 20


@dataclass(frozen=True, eq=False)
class LinkFit:
    """Bytes by link, NaN where the rates of a link do not differ; `overlapping` tells whether links work at once."""

    base_s: float
    carried_bytes: NDArray[np.float64]
    overlapping: bool

    def latency_s(self, bit_per_s: NDArray[np.float64]) -> float:
        """Return the latency at a rate of each link; that of a link with one rate is in `base_s`."""
        taken = np.nan_to_num(8 * self.carried_bytes / bit_per_s)
        return self.base_s + float(taken.max() if self.overlapping else taken.sum())


def fit_links(
    bit_per_s: NDArray[np.float64], latency_s: NDArray[np.float64], *, overlapping: bool | None = None
) -> LinkFit | None:
    """Fit what each link carries.

    Parameters
    ----------
    bit_per_s : float array, shape (settings, links)
    latency_s : float array, shape (settings,)
        Above 0.
    overlapping : bool, optional
        Whether links work at once; decided by the latencies where it is not known.

    Returns
    -------
    LinkFit or None
        None where no link has two rates, or there are fewer settings than unknowns.

    Notes
    -----
    Least squares of the relative error, without negative terms, of

    .. math:: a + \\sum_i b_i / r_i \\quad \\text{or} \\quad a + \\max_i b_i / r_i

    Links of a relay that passes on while it receives overlap, those of one that stores first add up. Which of the two
    holds is what predicts each setting better from the others; with too few settings to tell, links overlap, as the
    launchers' do.

    Examples
    --------
    >>> rates = np.array([[1e6], [2e6], [4e6]])
    >>> fit_links(rates, 0.5 + 8e5 / rates[:, 0]).carried_bytes.round().tolist()
    [100000.0]
    """
    differs = np.ptp(bit_per_s, axis=0) > 0
    links = int(differs.sum())
    if not links or len(latency_s) < links + 1:
        return None
    per_byte = 8 / bit_per_s[:, differs]
    # A model of so many unknowns is judged by a setting that it was not fitted to.
    judged = links > 1 and len(latency_s) > links + 2
    if overlapping is None:
        overlapping = not judged or _left_out(per_byte, latency_s, True) <= _left_out(per_byte, latency_s, False)
    carried = np.full(differs.size, np.nan)
    base_s, *carried[differs] = _fitted(per_byte, latency_s, overlapping)
    return LinkFit(float(base_s), carried, overlapping)


def _fitted(per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], overlapping: bool) -> NDArray[np.float64]:
    """Return the seconds without links, then the bytes of each link."""
    terms = _solved(per_byte, latency_s)
    if overlapping and per_byte.shape[1] > 1:
        slowest: Sequence[int] = ()
        for _ in range(_TURNS):
            taken = per_byte * terms[1:]
            again = taken.argmax(axis=1).tolist()
            if again == slowest:
                break
            slowest = again
            # Only the slower link of a setting takes time in it.
            alone = np.zeros_like(per_byte)
            rows = np.arange(len(per_byte))
            alone[rows, slowest] = per_byte[rows, slowest]
            terms = _solved(alone, latency_s)
    return terms


def _solved(per_byte: NDArray[np.float64], latency_s: NDArray[np.float64]) -> NDArray[np.float64]:
    # Imported where it is needed: it takes longer to import than most answers.
    from scipy.optimize import nnls

    design = np.column_stack([np.ones(len(latency_s)), per_byte]) / latency_s[:, None]
    # Columns of one size, or bytes of a fast link would vanish in the solver's tolerance.
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    solution: NDArray[np.float64] = nnls(design / scale, np.ones(len(latency_s)))[0] / scale
    return solution


def _left_out(per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], overlapping: bool) -> float:
    """Return the mean square of the log error of each setting predicted from the others."""
    errors = []
    for index, measured_s in enumerate(latency_s):
        others = np.arange(len(latency_s)) != index
        base_s, *carried = _fitted(per_byte[others], latency_s[others], overlapping)
        taken = per_byte[index] * carried
        predicted_s = base_s + (taken.max() if overlapping else taken.sum())
        errors.append(np.log(max(predicted_s, 1e-12) / measured_s))
    return float(np.mean(np.square(errors)))
