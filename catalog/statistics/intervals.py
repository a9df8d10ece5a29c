"""A latency percentile of one strategy with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.estimate import LogEstimate, estimate_over_rounds, exponential
from catalog.statistics.refusal import Refusal, refuse
from catalog.statistics.resampling import draw_inputs, log_percentiles, resampled_log_percentiles
from catalog.statistics.samples import Samples

N_RESAMPLES = 2000


@dataclass(frozen=True)
class PercentileInterval:
    """A percentile over the inputs in a typical round.

    Attributes
    ----------
    percentile : float
    estimate_s : float
        Geometric mean over rounds, in seconds.
    by_round_s : tuple of float
    low_s, high_s : float or None
        None together with a `refusal`.
    confidence_level : float
        Of the interval.
    rounds, inputs, samples : int
        The inputs of the round with the fewest.
    estimate : LogEstimate or None
    refusal : Refusal or None
    """

    percentile: float
    estimate_s: float
    by_round_s: tuple[float, ...]
    low_s: float | None
    high_s: float | None
    confidence_level: float
    rounds: int
    inputs: int
    samples: int
    estimate: LogEstimate | None
    refusal: Refusal | None

    def upper_s(self, confidence_level: float) -> float | None:
        """The one-sided upper bound in seconds, guarded for any level; None where the evidence refuses one."""
        return None if self.estimate is None else exponential(self.estimate.upper(confidence_level))


def percentile_intervals(
    samples: Samples,
    percentiles: Sequence[float],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    rng: np.random.Generator | int | None = None,
) -> tuple[PercentileInterval, ...]:
    """Estimate percentiles of the latency, each with its interval.

    Parameters
    ----------
    samples : Samples
    percentiles : sequence of float
        Above 0 and below 100.
    confidence_level : float
        Of each interval by itself.
    n_resamples : int
        Draws of inputs, at least 2.
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    tuple of PercentileInterval
        In the order asked. With one round, or with fewer inputs than `inputs_needed`, an estimate without interval.

    Raises
    ------
    ValueError
        For a percentile, level or number of resamples out of range.

    Notes
    -----
    On the log latency, the percentile within each round (all repetitions of all inputs), averaged over rounds. Its
    variance is s**2 / rounds across rounds plus what drawing the inputs anew, the same draw for all rounds, moves the
    rounds by together (`estimate_over_rounds`). Student's t with Satterthwaite's degrees of freedom. docs/statistics.md
    has the simulated coverage.

    Examples
    --------
    >>> latency = np.exp(np.add.outer([0.0, 0.1, -0.1], np.linspace(0, 1, 30)))
    >>> rounds, inputs = np.indices(latency.shape)
    >>> samples = Samples.from_arrays(latency.ravel(), rounds.ravel(), inputs.ravel())
    >>> [p90] = percentile_intervals(samples, [90], rng=1)
    >>> round(p90.estimate_s, 4), p90.low_s < p90.estimate_s < p90.high_s
    (2.4596, True)
    """
    check_level(confidence_level)
    counts = draw_inputs(samples.inputs.size, n_resamples=n_resamples, rng=np.random.default_rng(rng))
    drawn = resampled_log_percentiles(samples, percentiles, counts=counts)
    return intervals_from(samples, percentiles, drawn=drawn, confidence_level=confidence_level)


def intervals_from(
    samples: Samples, percentiles: Sequence[float], *, drawn: NDArray[np.float64], confidence_level: float
) -> tuple[PercentileInterval, ...]:
    """As `percentile_intervals`, from percentiles that `resampled_log_percentiles` has drawn already."""
    by_round = log_percentiles(samples, percentiles)
    return tuple(
        _interval(samples, percentile, by_round[row], drawn[row], confidence_level)
        for row, percentile in enumerate(percentiles)
    )


def _interval(
    samples: Samples,
    percentile: float,
    by_round: NDArray[np.float64],
    drawn: NDArray[np.float64],
    confidence_level: float,
) -> PercentileInterval:
    rounds, inputs, value = samples.rounds.size, samples.fewest_inputs, float(by_round.mean())
    refusal = refuse(rounds=rounds, inputs=inputs, percentile=percentile)
    estimate = None
    low_s = high_s = None
    if refusal is None:
        estimate = estimate_over_rounds(by_round, drawn, percentile=percentile, inputs=inputs)
        margin = estimate.margin(confidence_level)
        low_s, high_s = exponential(value - margin), exponential(value + margin)
    return PercentileInterval(
        percentile=percentile,
        estimate_s=math.exp(value),
        by_round_s=tuple(np.exp(by_round).tolist()),
        low_s=low_s,
        high_s=high_s,
        confidence_level=confidence_level,
        rounds=rounds,
        inputs=inputs,
        samples=samples.log_latency.size,
        estimate=estimate,
        refusal=refusal,
    )


def check_level(confidence_level: float) -> None:
    """Refuse what is no confidence level."""
    if not 0 < confidence_level < 1:
        raise ValueError(f"a confidence level is above 0 and below 1, got {confidence_level!r}")
