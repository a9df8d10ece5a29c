"""Where the variance of a strategy's latency comes from: its rounds, its inputs, and the rest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.samples import Samples


@dataclass(frozen=True)
class VarianceShares:
    """Variance components of the log latency.

    Attributes
    ----------
    rounds, inputs, rest : float or None
        Variances, truncated at zero. None together with a `reason`.
    rounds_share, inputs_share, rest_share : float or None
        Of their sum; all zero for constant latencies.
    truncated : tuple of str
        The components whose unbiased estimate was below zero and is given as zero.
    samples : int
    effective_samples : float or None
        How many independent samples would give the mean log latency the same variance; None for constant latencies.
    reason : str or None
        Why the components cannot be separated.
    """

    rounds: float | None
    inputs: float | None
    rest: float | None
    rounds_share: float | None
    inputs_share: float | None
    rest_share: float | None
    truncated: tuple[str, ...]
    samples: int
    effective_samples: float | None
    reason: str | None


def variance_shares(samples: Samples) -> VarianceShares:
    """Split the variance of the log latency among rounds, inputs and the rest.

    Parameters
    ----------
    samples : Samples
        At least 2 rounds and 2 inputs that overlap; cells may be missing and repetitions unequal.

    Returns
    -------
    VarianceShares

    Notes
    -----
    The model is y = mean + round + input + round x input + repetition, all random. The sums of squares of cell, round,
    input and overall means have expectations that are linear in the components, whatever cells are missing; solving
    them gives Henderson's method I, unbiased for any pattern and equal to the analysis of variance for a full table.
    The rest is round x input plus repetition; without repetitions the two are one. A negative estimate is set to zero
    and named. The effective number is the sum of the components over the variance of the overall mean.

    References
    ----------
    C. R. Henderson, Estimation of variance and covariance components, Biometrics 9 (1953).

    Examples
    --------
    >>> latency = np.exp([[0.0, 1.0], [2.0, 3.0]])
    >>> samples = Samples.from_arrays(latency.ravel(), [1, 1, 2, 2], [0, 1, 0, 1])
    >>> shares = variance_shares(samples)
    >>> round(shares.rounds, 6), round(shares.inputs, 6), round(abs(shares.rest), 6)
    (2.0, 0.5, 0.0)
    """
    if samples.interpenetrating:
        return _unknown(samples, "each round has inputs of its own, so that rounds and inputs are not told apart")
    if samples.rounds.size < 2 or samples.inputs.size < 2:
        return _unknown(
            samples,
            f"at least 2 rounds and 2 inputs are needed to separate them, got {samples.rounds.size} and "
            f"{samples.inputs.size}",
        )
    repeated = bool((samples.cells > 1).any())
    coefficients, squares = _equations(samples, repeated=repeated)
    if np.linalg.matrix_rank(coefficients) < coefficients.shape[0]:
        return _unknown(samples, "the rounds share too few inputs to separate rounds from inputs")
    solved = np.linalg.solve(coefficients, squares).astype(np.float64)
    # What rounding leaves of zero is neither a component nor a negative estimate.
    solved[np.abs(solved) < 1e-12 * max(float(np.mean(samples.log_latency**2)), 1.0) ** 0.5] = 0.0
    return _shares(samples, solved[1:])


def _equations(samples: Samples, *, repeated: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expectations of the sums of squares in (mean squared, round, input, round x input[, repetition])."""
    # Centred, because the components do not depend on the mean and its square would swamp them.
    values = samples.log_latency - samples.log_latency.mean()
    cells = samples.cells
    # Henderson's method I (1953): it needs no complete table, which an interrupted fill does not give.
    sums = np.zeros(cells.shape)
    np.add.at(sums, (samples.round_position, samples.input_position), values)
    count, by_round, by_input, filled = cells.sum(), cells.sum(axis=1), cells.sum(axis=0), cells > 0
    squared = cells.astype(np.float64) ** 2
    in_rounds, in_inputs = (squared.sum(axis=1) / by_round).sum(), (squared.sum(axis=0) / by_input).sum()
    rows = [
        [count, (by_round.astype(float) ** 2).sum() / count, (by_input.astype(float) ** 2).sum() / count,
         squared.sum() / count, 1],
        [count, count, in_rounds, in_rounds, by_round.size],
        [count, in_inputs, count, in_inputs, by_input.size],
        [count, count, count, count, filled.sum()],
        [count, count, count, count, count],
    ]  # fmt: skip
    squares = [
        sums.sum() ** 2 / count,
        (sums.sum(axis=1) ** 2 / by_round).sum(),
        (sums.sum(axis=0) ** 2 / by_input).sum(),
        (sums[filled] ** 2 / cells[filled]).sum(),
        (values**2).sum(),
    ]
    # Without repetitions the cell and the repetition are one: only their sum can be estimated.
    unknowns = 5 if repeated else 4
    return np.array(rows, dtype=np.float64)[:unknowns, :unknowns], np.array(squares)[:unknowns]


def _shares(samples: Samples, solved: NDArray[np.float64]) -> VarianceShares:
    """Return the shares from the unbiased components (round, input, round x input[, repetition])."""
    rounds, inputs, rest = (float(variance) for variance in (solved[0], solved[1], solved[2:].sum()))
    raw = {"rounds": rounds, "inputs": inputs, "rest": rest}
    # An unbiased estimate of a variance near zero is often negative; `truncated` says so.
    kept = {name: max(value, 0.0) for name, value in raw.items()}
    total = sum(kept.values())
    return VarianceShares(
        **kept,
        rounds_share=kept["rounds"] / total if total else 0.0,
        inputs_share=kept["inputs"] / total if total else 0.0,
        rest_share=kept["rest"] / total if total else 0.0,
        truncated=tuple(name for name, value in raw.items() if value < 0),
        samples=samples.log_latency.size,
        effective_samples=_effective(samples, kept["rounds"], kept["inputs"], np.maximum(solved[2:], 0.0)),
        reason=None,
    )


def _effective(samples: Samples, rounds: float, inputs: float, rest: NDArray[np.float64]) -> float | None:
    cells = samples.cells.astype(np.float64)
    count = cells.sum()
    crossed, repetition = rest[0], rest[1:].sum()
    # A level's share in the overall mean is its share of the samples: components enter by the squares of these.
    of_mean = (
        rounds * (cells.sum(axis=1) ** 2).sum() + inputs * (cells.sum(axis=0) ** 2).sum() + crossed * (cells**2).sum()
    ) / count**2 + repetition / count
    return float((rounds + inputs + crossed + repetition) / of_mean) if of_mean > 0 else None


def _unknown(samples: Samples, reason: str) -> VarianceShares:
    return VarianceShares(
        rounds=None,
        inputs=None,
        rest=None,
        rounds_share=None,
        inputs_share=None,
        rest_share=None,
        truncated=(),
        samples=samples.log_latency.size,
        effective_samples=None,
        reason=reason,
    )
