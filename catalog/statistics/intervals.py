"""A latency percentile of one strategy with its interval, or why there is none and what has to be measured for one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.log_estimate import (
    LogEstimate,
    estimate_over_rounds,
    exponential,
    over_hosts,
    readable_bounds,
    unless_rounding,
)
from catalog.statistics.pool_percentiles import CORRECTION_DF, PoolPercentile
from catalog.statistics.samples import (
    Samples,
    draw_inputs,
    log_percentiles,
    resampled_log_percentiles,
    seeded_log_percentiles,
)
from catalog.units import counted


class RefusalKind(StrEnum):
    """Why there is no interval."""

    ONE_ROUND = "one_round"
    TOO_THIN = "too_thin"
    NOTHING_IN_COMMON = "nothing_in_common"
    TOO_FEW_IMAGES = "too_few_images"


@dataclass(frozen=True)
class IntervalRefusal:
    """No interval, the reason in words, and the least that would allow one.

    Attributes
    ----------
    kind : RefusalKind
    reason : str
    rounds_needed, inputs_needed : int
        In total, not in addition; of `TOO_FEW_IMAGES`, how many images have to be of the kind that `reason` names.
    """

    kind: RefusalKind
    reason: str
    rounds_needed: int
    inputs_needed: int


def inputs_needed(percentile: float, *, confidence_level: float = 0.95) -> int:
    """Return the fewest inputs that can bound a percentile from above without assuming a distribution.

    Parameters
    ----------
    percentile : float
        Above 0 and below 100.
    confidence_level : float
        Above 0 and below 1.

    Returns
    -------
    int
        The smallest n with 1 - p**n >= `confidence_level`, p being `percentile` / 100.

    Raises
    ------
    ValueError
        Outside these ranges.

    Notes
    -----
    The largest of n independent values is above the percentile with probability 1 - p**n: with fewer, not even the
    largest is an upper bound. Mirror the percentile for a lower bound.

    References
    ----------
    S. S. Wilks, Determination of sample sizes for setting tolerance limits, Annals of Mathematical Statistics 12
    (1941).

    Examples
    --------
    >>> [inputs_needed(p) for p in (50, 90, 95, 99)]
    [5, 29, 59, 299]
    """
    if not (0 < percentile < 100 and 0 < confidence_level < 1):
        raise ValueError(
            f"a percentile is above 0 and below 100 and a confidence level above 0 and below 1, "
            f"got {percentile!r} and {confidence_level!r}"
        )
    # All n inputs below the true percentile have the probability p ** n; only then is their largest no upper bound.
    needed = math.log(1 - confidence_level) / math.log(percentile / 100)
    # A last bit above a whole number must not cost another input.
    return max(1, math.ceil(needed - 1e-9))


# Where sizes explain so much of what inputs differ in, a curve over size stands in for inputs that were not measured.
_EXPLAINED = 0.95
# From here on, the largest inputs decide.
_TAIL_FROM = 95.0
_TAIL_INPUTS = 10
_TAIL_CLARITY = 3.0
# What sizes must explain for a promise about the tail: draws that happen to miss all outliers come near 0.95.
_TAIL_EXPLAINED = 0.97


def refuse(
    *, rounds: int, inputs: int, percentile: float, interpenetrating: bool = False, explained: float = 0.0
) -> IntervalRefusal | None:
    """Return why so few rounds or inputs have no interval of the percentile; None where they have one.

    Parameters
    ----------
    rounds, inputs : int
        Of the evidence; the inputs of the round with the fewest, or of all rounds where these are interpenetrating.
    percentile : float
        Above 0 and below 100.
    interpenetrating : bool
        Whether every round draws inputs of its own: then further rounds bring further inputs.
    explained : float
        The share of what inputs differ in that their sizes explain; from 0.95 on, few inputs are enough.

    Returns
    -------
    IntervalRefusal or None

    Notes
    -----
    The rule for the inputs is that of a single bound at 95 %, whatever the level of the interval. Below the median the
    lower bound is the one that needs the inputs.
    """
    # Both bounds are needed, and below the median the lower one is the harder.
    needed = inputs_needed(max(percentile, 100 - percentile))
    by_size = interpenetrating and explained >= _EXPLAINED
    if interpenetrating and inputs < needed and not by_size:
        more = max(2, math.ceil(needed * rounds / inputs))
        reason = (
            f"too thin: p{percentile:g} needs {needed} inputs over all rounds, got {inputs}; {more} rounds bring them"
        )
        return IntervalRefusal(RefusalKind.TOO_THIN, reason, rounds_needed=more, inputs_needed=needed)
    if inputs < needed and not by_size:
        reason = f"too thin: p{percentile:g} needs {needed} inputs in each round, got {inputs}"
        return IntervalRefusal(RefusalKind.TOO_THIN, reason, rounds_needed=max(2, rounds), inputs_needed=needed)
    if rounds < 2:
        reason = "one round describes and decides nothing: how rounds differ is unknown, at least 2 are needed"
        return IntervalRefusal(RefusalKind.ONE_ROUND, reason, rounds_needed=2, inputs_needed=inputs)
    return None


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
        None together with a `refusal`, and where they are more than tenfold away from the estimate: `unknown` says it.
    confidence_level : float
        Of the interval.
    rounds, inputs, samples : int
        The inputs of the round with the fewest; of interpenetrating rounds, those of all.
    estimate : LogEstimate or None
    refusal : IntervalRefusal or None
    by_model : str or None
        Why the interval is no promise: it rests on the curve over size where few inputs were measured.
    jackknife : LogEstimate or None
        Where rounds draw their inputs, the estimate with the variance across rounds alone, that of the inputs in it:
        without the caution of a promise.

    Notes
    -----
    What is inferred is a typical start on this dataset; `next_start_s` is about the next start, which is one of many.
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
    refusal: IntervalRefusal | None
    by_model: str | None = None
    jackknife: LogEstimate | None = None

    @property
    def unknown(self) -> str | None:
        """Why there is no interval, in words; None where there is one."""
        if self.refusal is not None:
            return self.refusal.reason
        return f"unknown after {counted(self.rounds, 'round')}" if self.low_s is None else None

    def upper_s(self, confidence_level: float) -> float | None:
        """Return the one-sided upper bound in seconds, guarded at any level; None where there is a refusal."""
        return None if self.estimate is None else exponential(self.estimate.upper(confidence_level))

    def next_start_s(self, confidence_level: float) -> float | None:
        """Return the one-sided upper bound of the percentile of the next start; None where there is a refusal.

        A start varies by the variance of one round, around a mean that is known to a fraction of it: the square of the
        standard error grows from V to (R + 1) V, by sqrt(1 + 1 / R) on the scale of one round.
        """
        if self.estimate is None:
            return None
        key = "next start", self.rounds, confidence_level
        return exponential(self.estimate.tables.bound(key, partial(self._next_start, self.estimate, confidence_level)))

    def _next_start(self, estimate: LogEstimate, confidence_level: float) -> float:
        return replace(estimate, variance_rounds=(self.rounds + 1) * estimate.variance_rounds).upper(confidence_level)


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
        In the order of `percentiles`; without an interval for one round, or for fewer inputs than `inputs_needed`.

    Raises
    ------
    ValueError
        For a percentile, level or number of resamples out of range.

    Notes
    -----
    On the log latency, the percentile within each round (all repetitions of all inputs), averaged over rounds. Its
    variance is s**2 / rounds across rounds plus what resampling the inputs, the same draw for all rounds, moves the
    rounds by together (`estimate_over_rounds`). Student's t with Satterthwaite's degrees of freedom. Where each round
    has drawn its inputs, the variance across rounds holds that of the inputs, and nothing is resampled.
    docs/statistics.md has the simulated coverage.

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
    if isinstance(rng, int):
        drawn = seeded_log_percentiles(samples, percentiles, n_resamples=n_resamples, seed=(rng,))
    else:
        counts = draw_inputs(samples.inputs.size, n_resamples=n_resamples, rng=np.random.default_rng(rng))
        drawn = resampled_log_percentiles(samples, percentiles, counts=counts)
    return intervals_from(samples, percentiles, drawn=drawn, confidence_level=confidence_level)


def percentile_estimate(samples: Samples, percentile: float) -> float:
    """Return the estimate of `percentile_intervals` alone, in seconds: it needs no resampling.

    Parameters
    ----------
    samples : Samples
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For a percentile outside that range.

    Examples
    --------
    >>> samples = Samples.from_arrays([1.0, 100.0, 1.0, 10000.0], [1, 1, 2, 2], [0, 1, 0, 1])
    >>> round(percentile_estimate(samples, 50), 6) == round((10 * 100) ** 0.5, 6)
    True
    """
    return math.exp(float(log_percentiles(samples, [percentile])[0].mean()))


def intervals_from(
    samples: Samples, percentiles: Sequence[float], *, drawn: NDArray[np.float64], confidence_level: float
) -> tuple[PercentileInterval, ...]:
    """Estimate as `percentile_intervals` does, from percentiles that `resampled_log_percentiles` has drawn."""
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
    rounds, inputs, value = samples.rounds.size, samples.supporting_inputs, float(by_round.mean())
    pool = samples.pool_percentiles([percentile])[0] if samples.interpenetrating else None
    refusal = refuse(
        rounds=rounds,
        inputs=inputs,
        percentile=percentile,
        interpenetrating=samples.interpenetrating,
        explained=pool.fit.explained if pool else 0.0,
    )
    estimate = jackknife = None
    low_s = high_s = None
    if refusal is None:
        estimate = estimate_over_rounds(by_round, drawn, percentile=percentile, inputs=inputs, rounds=samples.rounds)
        if pool:
            # Nothing is resampled where the variance across rounds holds that of the inputs.
            jackknife = replace(estimate, variance_inputs=0.0) if estimate.variance_inputs else estimate
            estimate = _promised(jackknife, pool, samples)
        levels = by_round if pool is None or pool.by_level is None else pool.by_level
        estimate = over_hosts(estimate, levels, samples.hosts)
        low_s, high_s = readable_bounds(value, estimate.margin(confidence_level))
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
        by_model=_by_model(percentile, inputs, pool) if pool and refusal is None else None,
        jackknife=jackknife,
    )


def _promised(jackknife: LogEstimate, pool: PoolPercentile, samples: Samples) -> LogEstimate:
    """Replace the variance of the jackknife by that of the levels of the rounds and that of the inputs."""
    if pool.by_level is None:
        return jackknife
    return replace(
        jackknife,
        variance_rounds=unless_rounding(float(pool.by_level.var(ddof=1) / pool.by_level.size)),
        by_round=tuple(zip(samples.rounds.tolist(), pool.by_level.tolist(), strict=True)),
        variance_inputs=pool.variance_inputs,
        variance_inputs_above=pool.variance_above,
        df_inputs=CORRECTION_DF,
    )


def _by_model(percentile: float, inputs: int, pool: PoolPercentile) -> str | None:
    fit = pool.fit
    return model_reason(
        percentile,
        inputs=inputs,
        tail_inputs=fit.tail_inputs,
        tail_clarity=fit.tail_clarity,
        explained=fit.explained,
    )


def model_reason(
    percentile: float, *, inputs: int, tail_inputs: int, tail_clarity: float = math.inf, explained: float = 1.0
) -> str | None:
    """Return why an interval rests on the curve over size alone, which makes a budget likely and never proven.

    Parameters
    ----------
    percentile : float
        Above 0 and below 100.
    inputs, tail_inputs : int
        Measured over all rounds; `tail_inputs` are distinct sizes among the three percent of largest inputs.
    tail_clarity : float
        By how many standard deviations of their residuals the curve rises there.
    explained : float
        The share of what inputs differ in that their sizes explain.

    Returns
    -------
    str or None
        None where enough inputs were measured where it matters.
    """
    needed = inputs_needed(max(percentile, 100 - percentile))
    if inputs >= needed:
        return None
    by_curve = f"p{percentile:g} rests on the curve over input size: "
    if percentile < _TAIL_FROM:
        return f"{by_curve}{inputs} of {needed} inputs were measured"
    if tail_inputs < _TAIL_INPUTS:
        return f"{by_curve}{tail_inputs} of the 3 % largest inputs were measured, {_TAIL_INPUTS} are needed"
    if tail_clarity < _TAIL_CLARITY or explained < _TAIL_EXPLAINED:
        return f"{by_curve}the largest inputs scatter too widely around it"
    return None


def check_level(confidence_level: float) -> None:
    """Raise ValueError unless the confidence level is between 0 and 1."""
    if not 0 < confidence_level < 1:
        raise ValueError(f"a confidence level is above 0 and below 1, got {confidence_level!r}")
