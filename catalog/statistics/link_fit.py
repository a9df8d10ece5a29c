"""What a link carries, from latencies at several of its rates, where the bytes were not recorded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# So many rounds of deciding which link is the slower one settle, or never do.
_TURNS = 20


# Residuals beyond so many of their spread count less (Huber): a disturbed setting must not turn the line.
_HUBER = 1.345
# Steps of the fit on the logarithmic scale; two suffice where noise is small.
_STEPS = 8
# Known no better than this, however well it is measured: protocols add a little, and packets are whole.
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class SharedBytes:
    """What other strategies say of the bytes of a link that carries the same for all of them.

    `log_bytes` is the median of the logarithms, `spread` how far it may be off.
    """

    log_bytes: float
    spread: float


@dataclass(frozen=True, eq=False)
class LinkFit:
    """Bytes by link, NaN where the rates of a link do not differ; `overlapping` tells whether links work at once.

    `noise` is how far latencies are from the fit, as a spread of logarithms.
    """

    base_s: float
    carried_bytes: NDArray[np.float64]
    overlapping: bool
    noise: float = 0.0

    def latency_s(self, bit_per_s: NDArray[np.float64]) -> float:
        """Return the latency at a rate of each link; that of a link with one rate is in `base_s`."""
        taken = np.nan_to_num(8 * self.carried_bytes / bit_per_s)
        return self.base_s + float(taken.max() if self.overlapping else taken.sum())


def shared_bytes(carried_bytes: Sequence[float]) -> SharedBytes | None:
    """Return what fits of other strategies say together; None where none of them says anything.

    Examples
    --------
    >>> round(math.exp(shared_bytes([90_000, 100_000, 110_000]).log_bytes))
    100000
    """
    logs = np.log([count for count in carried_bytes if count > 0])
    if not logs.size:
        return None
    # One alone says nothing of how far it is off.
    spread = float(np.std(logs, ddof=1)) / math.sqrt(logs.size) if logs.size > 1 else 1.0
    return SharedBytes(float(np.median(logs)), math.hypot(spread, _LEAST_SPREAD))


def fit_links(
    bit_per_s: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    *,
    overlapping: bool | None = None,
    shared: Sequence[SharedBytes | None] = (),
) -> LinkFit | None:
    """Fit what each link carries.

    Parameters
    ----------
    bit_per_s : float array, shape (settings, links)
    latency_s : float array, shape (settings,)
        Above 0.
    overlapping : bool, optional
        Whether links work at once; decided by the latencies where it is not known.
    shared : sequence of SharedBytes or None, optional
        By link, what other strategies say of its bytes; this fit is drawn there as far as its own noise allows.

    Returns
    -------
    LinkFit or None
        None where no link has two rates, or there are fewer settings than unknowns.

    Notes
    -----
    Huber's loss of the error of the logarithm, without negative terms (so that a faster link is never slower), of

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
    own = [prior for prior, moves in zip(shared, differs, strict=True) if moves] if shared else []
    terms = _fitted(per_byte, latency_s, overlapping, own)
    base_s, *carried[differs] = terms
    return LinkFit(
        float(base_s), carried, overlapping, _noise(_residuals(per_byte, latency_s, terms, overlapping), links)
    )


def _residuals(
    per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], terms: NDArray[np.float64], overlapping: bool
) -> NDArray[np.float64]:
    """Return the logarithm of measured over fitted."""
    taken = per_byte * terms[1:]
    fitted_s = terms[0] + (taken.max(axis=1) if overlapping else taken.sum(axis=1))
    residuals: NDArray[np.float64] = np.log(latency_s / np.maximum(fitted_s, _LEAST_S))
    return residuals


def _noise(residuals: NDArray[np.float64], links: int) -> float:
    """Return the spread of residuals: the median of their sizes, in units of a standard deviation."""
    spare = max(residuals.size - links - 1, 1)
    return max(1.4826 * float(np.median(np.abs(residuals))) * math.sqrt(residuals.size / spare), _LEAST_NOISE)


def _fitted(
    per_byte: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    overlapping: bool,
    shared: Sequence[SharedBytes | None] = (),
) -> NDArray[np.float64]:
    """Return the seconds without links, then the bytes of each link."""
    terms = _solved(per_byte, latency_s, shared)
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
            terms = _solved(alone, latency_s, shared)
    return terms


def _solved(
    per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], shared: Sequence[SharedBytes | None]
) -> NDArray[np.float64]:
    design = np.column_stack([np.ones(len(latency_s)), per_byte])
    # Relative errors first: near enough that the logarithm is as good as straight.
    terms = _least_squares(design / latency_s[:, None], np.ones(len(latency_s)))
    for _ in range(_STEPS):
        fitted_s = np.maximum(design @ terms, _LEAST_S)
        residuals = np.log(latency_s / fitted_s)
        noise = _noise(residuals, per_byte.shape[1])
        weight = np.sqrt(np.minimum(1.0, _HUBER * noise / np.maximum(np.abs(residuals), _LEAST_NOISE)))
        rows, targets = design / fitted_s[:, None] * weight[:, None], (1 + residuals) * weight
        for index, prior in enumerate(shared, 1):
            if prior is not None:
                # One more observation: the logarithm of the bytes, as precise beside the latencies as it is known.
                count = max(terms[index], _LEAST_SHARE * math.exp(prior.log_bytes))
                row = np.zeros(len(terms))
                row[index] = noise / prior.spread / count
                rows = np.vstack([rows, row])
                targets = np.append(targets, noise / prior.spread * (1 + prior.log_bytes - math.log(count)))
        before, terms = terms, _least_squares(rows, targets)
        if np.allclose(before, terms, rtol=1e-4, atol=0):
            break
    return terms


# No latency is shorter, and no spread of logarithms smaller, than these guards against a division by zero.
_LEAST_S, _LEAST_NOISE = 1e-12, 1e-3
# Bytes that a step made zero come back from here.
_LEAST_SHARE = 0.01


def _least_squares(design: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve without negative terms."""
    # Imported where it is needed: it takes longer to import than most answers.
    from scipy.optimize import nnls

    # Columns of one size, or bytes of a fast link would vanish in the solver's tolerance.
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    solution: NDArray[np.float64] = nnls(design / scale, targets)[0] / scale
    return solution


def _left_out(per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], overlapping: bool) -> float:
    """Return the mean square of the log error of each setting predicted from the others."""
    errors = []
    for index in range(len(latency_s)):
        others = np.arange(len(latency_s)) != index
        terms = _fitted(per_byte[others], latency_s[others], overlapping)
        errors.append(_residuals(per_byte[[index]], latency_s[[index]], terms, overlapping))
    return float(np.mean(np.square(errors)))
