"""A latency percentile of one strategy with its interval, or why there is none and what has to be measured for one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.statistics.pool_percentiles import CORRECTION_DF, PoolPercentile
from catalog.statistics.samples import (
    Samples,
    draw_inputs,
    log_percentiles,
    resampled_log_percentiles,
    seeded_draws,
)
from catalog.statistics.tables import HermiteTable, Tables


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


@dataclass(frozen=True)
class LogEstimate:
    """A log latency or a log ratio, averaged over rounds.

    Attributes
    ----------
    value : float
        Natural logarithm.
    variance_rounds, variance_inputs : float
        Of `value`, at or above 0.
    df_rounds, df_inputs : float
        How well each variance is known: a chi-square with so many degrees of freedom.
    variance_model, df_model : float
        The same for a model's error; 0 where the value was measured.
    variance_shared, df_shared : float
        The same for what moves all strategies of a subject alike in a round; 0 where it was not split off
        (`catalog.statistics.variances.moderated`) and is in `variance_rounds`.
    by_round : tuple of (int, float)
        The rounds and the logarithm that each gave, or its pseudo-value; empty where that is unknown.
    sides : tuple of (float, float)
        Of a log ratio: the variance across rounds of each of the two strategies, without what they share, and its
        degrees of freedom. Empty where they are unknown.
    sides_power : float
        What a level is raised to for the sides: as many comparisons as there are for each strategy.

    Notes
    -----
    `df` is Satterthwaite's: (sum of V)**2 / (sum of V**2 / df) over the sources. The guarded margin at a level is
    sqrt(sum of t**2 * V) with each source's t quantile of that level.

    Bounds of several estimates of one subject, each at level L, hold together at L**tests where they err apart. What is
    shared errs once for all of them, so that its quantile need not be that of L. Half of the joint error is left to it:
    its level is L**(tests / 2). docs/statistics.md has the simulation.

    References
    ----------
    F. E. Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946).
    S. K. Banerjee, Approximate confidence interval for linear functions of means of k populations when the population
    variances are not equal, Sankhya 22 (1960).

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> round(estimate.margin(0.95), 4)  # R: qt(0.975, 2) * 0.1
    0.4303
    """

    value: float
    variance_rounds: float
    variance_inputs: float
    df_rounds: float
    df_inputs: float
    variance_model: float = 0.0
    df_model: float = 1.0
    variance_shared: float = 0.0
    df_shared: float = 1.0
    by_round: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    sides: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    sides_power: float = field(default=1.0, repr=False)
    # Not given but made; a copy with other variances begins without.
    tables: Tables = field(init=False, repr=False, compare=False, default_factory=Tables)

    @property
    def standard_error(self) -> float:
        """The standard error of `value`."""
        return math.sqrt(sum(variance for variance, _ in self._sources))

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom; infinite where nothing varies."""
        # (sum of V) ** 2 / sum of (V ** 2 / df): Satterthwaite 1946, matching the first two moments of a chi-square.
        spread = sum(variance**2 / df for variance, df in self._sources)
        return sum(variance for variance, _ in self._sources) ** 2 / spread if spread > 0 else math.inf

    def margin(self, confidence_level: float) -> float:
        """Return half the width of the two-sided interval that describes."""
        return float(scipy.special.stdtrit(self.df, (1 + confidence_level) / 2)) * self.standard_error

    def guarded_margin(self, confidence_level: float) -> float:
        """Return half the width of the two-sided interval that decides."""
        # Not Satterthwaite: where rounds agree by luck, its degrees of freedom are those of the inputs, and it errs.
        margin = self._guarded((1 - confidence_level) / 2)
        if not self.sides:
            return margin
        quantile = float(scipy.special.stdtrit(self.df_rounds, (1 - confidence_level) / 2))
        of_rounds = quantile**2 * self.variance_rounds
        saved = max(of_rounds - self._of_sides(confidence_level) ** 2, 0.0)
        return math.sqrt(max(margin**2 - saved, 0.0))

    def _of_sides(self, confidence_level: float) -> float:
        """Return the sum of the two strategies' margins, across rounds."""
        tail = (1 - confidence_level**self.sides_power) / 2
        return sum(-float(scipy.special.stdtrit(df, tail)) * math.sqrt(variance) for variance, df in self.sides)

    def upper(self, confidence_level: float, *, tests: int = 1) -> float:
        """Return the one-sided upper bound, guarded; one of `tests` bounds, each at this level."""
        if confidence_level < 0.5:
            return self.value - self._guarded(confidence_level)
        return self.value + self._guarded(1 - confidence_level, tests)

    def confidence_below(self, limit: float, *, tests: int = 1) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""
        # The guarded margin grows as the tail shrinks, so the level whose bound is the limit is unique.
        distance = abs(limit - self.value)
        if not self.standard_error > 0:
            return float(self.value <= limit)
        return 1 - self._tail_beyond(distance, tests) if limit >= self.value else self._tail_beyond(distance, 1)

    def _tail_beyond(self, distance: float, tests: int) -> float:
        """Return the tail whose guarded margin is the distance, from a table where it is asked for often."""
        table = self.tables.made.get(tests)
        if table is not None:
            logarithm = table.at(distance)
            return self._tail_searched(distance, tests) if logarithm is None else math.exp(logarithm)
        if self.tables.is_due(tests):
            self.tables.made[tests] = self._tail_table(tests)
        return self._tail_searched(distance, tests)

    def _tail_table(self, tests: int) -> HermiteTable:
        """Return the logarithm of the tail by its guarded margin."""
        sources = [source for source in self._powers(tests) if source[0] > 0]
        # Where a source comes to its median, and begins to count, the margin has a bend: it must be a node.
        bends = [1 - 0.5 ** (1 / power) for _, _, power in sources]
        near, far = (np.geomspace(*ends, _NODES) for ends in ((0.495, 0.01), (0.01, _SMALLEST_TAIL)))
        tails = np.unique([*near, *far, *bends])
        tails = tails[(tails > 0) & (tails < 0.5)][::-1]
        square, slope = np.zeros_like(tails), np.zeros_like(tails)
        for variance, df, power in sources:
            own = np.minimum(-np.expm1(power * np.log1p(-tails)), 0.5)
            quantile = scipy.special.stdtrit(df, own)
            density = np.exp(density_scale(df) - (df + 1) / 2 * np.log1p(quantile**2 / df))
            square += quantile**2 * variance
            slope += 2 * quantile * variance / density * power * (1 - tails) ** (power - 1)
        margin = np.sqrt(square)
        return HermiteTable.of(margin, np.log(tails), 2 * margin / (slope * tails))

    def _tail_searched(self, distance: float, tests: int) -> float:
        """Return the tail whose guarded margin is the distance, by Newton's method on the nearly linear logarithms.

        With one variance it is the tail of Student's t. With several it exceeds the largest of their single tails.
        """
        sources = [
            (variance, df, power, density_scale(df)) for variance, df, power in self._powers(tests) if variance > 0
        ]
        tail = max(
            _root_tail(float(scipy.special.stdtr(df, -distance / math.sqrt(variance))), power)
            for variance, df, power, _ in sources
        )
        if len(sources) == 1:
            return tail
        target_square = distance**2
        for _ in range(_STEPS):
            if not _SMALLEST_TAIL < tail < 0.5:
                break
            square = slope = 0.0
            for variance, df, power, scale in sources:
                own_tail = tail if power == 1 else _tail_of(tail, power)
                # A source beyond its median adds nothing to the margin.
                if own_tail >= 0.5:
                    continue
                quantile = float(scipy.special.stdtrit(df, own_tail))
                own_square = quantile * quantile
                # Student's t density at the quantile: the derivative of the quantile by the tail is 1 / density.
                density = math.exp(scale - (df + 1) / 2 * math.log1p(own_square / df))
                square += own_square * variance
                growth = 1.0 if power == 1 else power * (1 - tail) ** (power - 1)
                slope += 2 * quantile * variance / density * growth
            step = math.log(square / target_square) * square / (slope * tail)
            # The cap keeps an overshooting step below one half, where the quantile changes its sign.
            tail = min(tail * math.exp(-step), (tail + 0.5) / 2)
            if abs(step) <= _CLOSE:
                break
        return tail

    def _guarded(self, tail: float, tests: int = 1) -> float:
        return math.sqrt(
            sum(
                float(scipy.special.stdtrit(df, min(_tail_of(tail, power), 0.5))) ** 2 * variance
                for variance, df, power in self._powers(tests)
                if variance > 0
            )
        )

    def _powers(self, tests: int) -> tuple[tuple[float, float, float], ...]:
        """Return each variance with its degrees of freedom and the power of the level that its quantile is taken at."""
        *own, shared = self._sources
        return (*((*source, 1.0) for source in own), (*shared, max(tests / 2, 1.0)))

    @property
    def _sources(self) -> tuple[tuple[float, float], ...]:
        """Each variance with its degrees of freedom."""
        return (
            (self.variance_rounds, self.df_rounds),
            (self.variance_inputs, self.df_inputs),
            (self.variance_model, self.df_model),
            (self.variance_shared, self.df_shared),
        )


def _tail_of(tail: float, power: float) -> float:
    """Return the tail of a level raised to a power, exact for the smallest tails too."""
    return tail if power == 1 else -math.expm1(power * math.log1p(-tail))


def _root_tail(tail: float, power: float) -> float:
    """Return the tail whose level, raised to a power, has the given tail."""
    return tail if power == 1 else -math.expm1(math.log1p(-tail) / power)


@lru_cache(maxsize=1024)
def density_scale(df: float) -> float:
    """Return the logarithm of the density of Student's t at 0."""
    # lgamma, because the gamma function itself overflows beyond 342 degrees of freedom.
    return math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2


# A smaller tail counts as none, and the search stops.
_SMALLEST_TAIL = 1e-15
_STEPS = 60
# Of a table, in each half: so many that it agrees with the search to eight digits.
_NODES = 400
# Newton's steps square the error: after one so small, what is left is below any rounding.
_CLOSE = 1e-7


def estimate_over_rounds(
    by_round: NDArray[np.float64],
    resampled: NDArray[np.float64],
    *,
    percentile: float,
    inputs: int,
    rounds: NDArray[np.int64] | None = None,
) -> LogEstimate:
    """Average over rounds and combine the two variances.

    Parameters
    ----------
    by_round : float array, shape (rounds,)
        Log percentiles or log ratios; at least 2 rounds.
    resampled : float array, shape (rounds, n_resamples)
        The same for each draw of inputs; draws with NaN are left out.
    percentile : float
        Above 0 and below 100.
    inputs : int
        How many were drawn; at least 2.
    rounds : int array, shape (rounds,), or None
        The numbers of the rounds, by which strategies share what happened in a round; None where they are unknown.

    Returns
    -------
    LogEstimate

    Notes
    -----
    The variance from the inputs is the mean covariance, over draws, between two different rounds. The variance of a
    single round over draws is its rest (round x input, repetition), which is in the variance across rounds already; for
    the ratio of two strategies, whose shared inputs cancel, it is most of what there is. The covariance is
    multiplied by n / (n - 1), because a bootstrap takes the n inputs for all there are, and set to zero where negative.

    It is itself a rough number: for a percentile it has, for large n, the relative variance of a
    chi-square with sqrt(pi n p (1 - p)) degrees of freedom (Hall and Martin's limit), far fewer than n - 1: 3 for p90
    of 30 inputs, 5 for p90 of 100. With n - 1 instead, intervals of p90 cover too little.

    References
    ----------
    P. Hall and M. A. Martin, Exact convergence rate of bootstrap quantile variance estimator, Probability Theory and
    Related Fields 80 (1988).
    """
    count, share = by_round.size, percentile / 100
    # A draw may leave a round without any of its inputs; such a draw says nothing about a covariance between rounds.
    drawn = resampled[:, np.isfinite(resampled).all(axis=0)]
    of_mean, of_each = drawn.mean(axis=0).var(ddof=1), drawn.var(axis=1, ddof=1).mean()
    # var(mean) = of_each / R + (R - 1) / R * covariance, solved for the covariance.
    between = (count * of_mean - of_each) / (count - 1)
    return LogEstimate(
        value=float(by_round.mean()),
        variance_rounds=_unless_rounding(float(by_round.var(ddof=1) / count)),
        variance_inputs=_unless_rounding(float(between * inputs / (inputs - 1))),
        df_rounds=count - 1,
        # Hall and Martin's relative variance, set equal to that of a chi-square, 2 / df.
        df_inputs=math.sqrt(math.pi * inputs * share * (1 - share)),
        by_round=() if rounds is None else tuple(zip(rounds.tolist(), by_round.tolist(), strict=True)),
    )


def _unless_rounding(variance: float) -> float:
    """Return 0 for a negative variance, and for what rounding leaves of equal latencies (1e-12, relative)."""
    return variance if variance > 1e-24 else 0.0


# Two rounds that disagree give a t quantile that overflows when exponentiated.
_LARGEST_LOG = 700.0
# A bound farther from the estimate, as a factor, is no figure that a reader could use: it is unknown.
WIDEST = 10.0


def exponential(log_value: float) -> float:
    """Return the exponential without overflow: a bound beyond 1e304 bounds nothing."""
    return math.exp(min(log_value, _LARGEST_LOG))


def readable_bounds(value: float, margin: float) -> tuple[float, float] | tuple[None, None]:
    """Return both ends of an interval of logarithms; None where they are more than tenfold away.

    Examples
    --------
    >>> [round(bound, 3) for bound in readable_bounds(0.0, 0.1)], readable_bounds(0.0, 3.0)
    ([0.905, 1.105], (None, None))
    """
    if margin > math.log(WIDEST):
        return None, None
    return math.exp(value - margin), math.exp(value + margin)


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

    @property
    def unknown(self) -> str | None:
        """Why there is no interval, in words; None where there is one."""
        if self.refusal is not None:
            return self.refusal.reason
        return f"unknown after {self.rounds} rounds" if self.low_s is None else None

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
        # Rounds that draw their inputs vary by those as well, so that the bound is on the safe side.
        one_start = replace(self.estimate, variance_rounds=(self.rounds + 1) * self.estimate.variance_rounds)
        return exponential(one_start.upper(confidence_level))


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
    inputs = samples.inputs.size
    if isinstance(rng, int):
        counts = seeded_draws(inputs, n_resamples, rng)
    else:
        counts = draw_inputs(inputs, n_resamples=n_resamples, rng=np.random.default_rng(rng))
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
    estimate = None
    low_s = high_s = None
    if refusal is None:
        estimate = estimate_over_rounds(by_round, drawn, percentile=percentile, inputs=inputs, rounds=samples.rounds)
        if pool:
            # Nothing is resampled: what the rounds' variance does not show of the inputs is all there is of theirs.
            estimate = replace(estimate, variance_inputs=pool.correction_variance, df_inputs=CORRECTION_DF)
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
