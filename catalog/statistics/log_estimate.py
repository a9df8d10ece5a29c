"""A log latency or a log ratio, averaged over rounds, with the variances that its bounds are made of.

Its tails are functions that are slow to compute and asked for again and again: what is asked for often is tabulated.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

# A table costs as much as some fifty values, so that it is worth making only where a service asks question upon
# question about the same evidence.
OFTEN = 20
# Bounds kept per estimate: questions choose their level, so that their number must be limited.
_MOST_BOUNDS = 256


@dataclass(frozen=True, eq=False)
class HermiteTable:
    """A function between its nodes by the cubic that has its values and slopes there.

    Attributes
    ----------
    nodes, values, slopes : array of float
        Ascending nodes. Python's arrays: looking one number up takes a fraction of what it takes in NumPy's, and the
        tables of a subject take a quarter of the memory of lists, so that a processor's cache holds them.

    Examples
    --------
    >>> x = np.linspace(0, 1, 33)
    >>> table = HermiteTable.of(x, np.exp(x), np.exp(x))
    >>> round(table.at(0.3), 6), table.at(1.5) is None  # exp(0.3)
    (1.349859, True)
    """

    nodes: "array[float]"
    values: "array[float]"
    slopes: "array[float]"

    @classmethod
    def of(cls, nodes: NDArray[np.float64], values: NDArray[np.float64], slopes: NDArray[np.float64]) -> "HermiteTable":
        """Take arrays of one length."""
        return cls(*(array("d", column.tolist()) for column in (nodes, values, slopes)))

    def at(self, place: float) -> float | None:
        """Return the function there; None beyond the nodes."""
        nodes, values, slopes = self.nodes, self.values, self.slopes
        right = bisect_right(nodes, place)
        if not 0 < right < len(nodes):
            return None
        left = right - 1
        start = nodes[left]
        width = nodes[right] - start
        share = (place - start) / width
        rest = 1 - share
        return rest * rest * ((1 + 2 * share) * values[left] + share * width * slopes[left]) + (
            share * share * ((3 - 2 * share) * values[right] - rest * width * slopes[right])
        )


@dataclass(eq=False)
class Tables:
    """The tables of one estimate, each made once its function was asked for often, and bounds as they were computed."""

    counts: dict[Hashable, int] = field(default_factory=dict)
    made: dict[Hashable, HermiteTable] = field(default_factory=dict)
    bounds: dict[Hashable, float] = field(default_factory=dict)
    # What a posterior is made of (`catalog.statistics.posterior`).
    sources: "tuple[Sequence[tuple[float, float]], NDArray[np.float64]] | None" = None

    def bound(self, key: Hashable, compute: Callable[[], float]) -> float:
        """Return a bound that only the key decides; budgets differ from question to question, levels seldom do."""
        bound = self.bounds.get(key)
        if bound is None:
            bound = compute()
            if len(self.bounds) >= _MOST_BOUNDS:
                self.bounds.clear()
            self.bounds[key] = bound
        return bound

    def is_due(self, key: Hashable) -> bool:
        """Count one more value that was computed without a table; return whether to make one now."""
        count = self.counts.get(key, 0) + 1
        self.counts[key] = count
        return count == OFTEN


@dataclass(frozen=True)
class MachineVariance:
    """The variance of an estimate over the machines of a class, some of which its rounds ran on.

    Attributes
    ----------
    count : int
        How many machines there are; at least 2.
    variance : float
        Of the estimate, as the means of the machines show it.
    lasting : float
        The part of it that further rounds on the same machines leave: what the machines differ in, without what their
        rounds do. 0 where no machine has several rounds, so that nothing tells the two apart.
    """

    count: int
    variance: float
    lasting: float

    @property
    def df(self) -> float:
        """How well the variance is known."""
        return float(self.count - 1)

    def after(self, share: float) -> float:
        """Return the variance once the part of it that rounds owe has fallen to a share."""
        return self.lasting + (self.variance - self.lasting) * share


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
    variance_inputs_above : float or None
        Of the inputs as an upper bound takes it, where the value may be off by more in one direction than in the other;
        None where both are `variance_inputs`.
    by_round : tuple of (int, float)
        The rounds and the logarithm that each gave, or its pseudo-value; empty where that is unknown.
    sides : tuple of (float, float)
        Of a log ratio: the variance across rounds of each of the two strategies, without what they share, and its
        degrees of freedom. Empty where they are unknown.
    sides_power : float
        What a level is raised to for the sides: as many comparisons as there are for each strategy.
    machines : MachineVariance or None
        What it varies by over the machines of a class, where its rounds ran on several of them (`over_hosts`).

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
    variance_inputs_above: float | None = None
    by_round: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    sides: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    sides_power: float = field(default=1.0, repr=False)
    machines: "MachineVariance | None" = field(default=None, repr=False)
    # Not given but made; a copy with other variances begins without.
    tables: Tables = field(init=False, repr=False, compare=False, default_factory=Tables)

    # Kept, because every question about the same evidence asks for it again.
    @cached_property
    def standard_error(self) -> float:
        """The standard error of `value`."""
        return math.sqrt(sum(variance for variance, _ in self._sources))

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom; infinite where nothing varies."""
        # (sum of V) ** 2 / sum of (V ** 2 / df): Satterthwaite 1946, matching the first two moments of a chi-square.
        spread = sum(variance**2 / df for variance, df in self._sources)
        return sum(variance for variance, _ in self._sources) ** 2 / spread if spread > 0 else math.inf

    @property
    def by_machines(self) -> bool:
        """Whether the variance across rounds is that over machines."""
        return self.machines is not None and not self.by_round

    def widened(self, variance: float, df: float) -> "LogEstimate":
        """Return an estimate with this variance over machines, if that makes the interval at 95 % wider."""
        own, other = (
            math.sqrt(squared) * float(scipy.special.stdtrit(freedom, 0.975))
            for squared, freedom in ((self.variance_rounds, self.df_rounds), (variance, df))
        )
        if other <= own:
            return self
        # What strategies share in a round is not what they share on a machine, so that nothing is split off by rounds.
        return replace(self, variance_rounds=variance, df_rounds=df, by_round=())

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
        return self.tables.bound((confidence_level, tests), lambda: self._upper(confidence_level, tests))

    def _upper(self, confidence_level: float, tests: int) -> float:
        if confidence_level < 0.5:
            return self.value - self._guarded(confidence_level)
        return self.value + self._upward._guarded(1 - confidence_level, tests)

    @cached_property
    def _upward(self) -> "LogEstimate":
        """Return the estimate with the variances of its upper bounds."""
        if self.variance_inputs_above is None:
            return self
        return replace(self, variance_inputs=self.variance_inputs_above, variance_inputs_above=None)

    def confidence_below(self, limit: float, *, tests: int = 1) -> float:
        """Return the largest confidence level whose one-sided upper bound is at or below the limit."""
        # The guarded margin grows as the tail shrinks, so the level whose bound is the limit is unique.
        distance = abs(limit - self.value)
        if not self.standard_error > 0:
            return float(self.value <= limit)
        if limit < self.value:
            return self._tail_beyond(distance, 1)
        # A jump may lie below the value alone: then nothing varies upwards.
        return 1 - self._upward._tail_beyond(distance, tests) if self._upward.standard_error > 0 else 1.0

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
        # The functions of numbers, which take a third of the time of those of arrays and give the same bits.
        from scipy.special import cython_special

        sources = [
            (float(variance), float(df), power, density_scale(df))
            for variance, df, power in self._powers(tests)
            if variance > 0
        ]
        distance = float(distance)
        tail = max(
            _root_tail(cython_special.stdtr(df, -distance / math.sqrt(variance)), power)
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
                quantile = cython_special.stdtrit(df, own_tail)
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


def confidences_below(estimates: Sequence[LogEstimate | None], limit: float, *, tests: int = 1) -> list[float]:
    """Return `LogEstimate.confidence_below` of several estimates for one limit, and 0 for None.

    Parameters
    ----------
    estimates : sequence of LogEstimate or None
    limit : float
        On the scale of the estimates.
    tests : int
        As in `LogEstimate.upper`.

    Returns
    -------
    list of float

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> [round(confidence, 4) for confidence in confidences_below([estimate, None], 0.1)]  # R: pt(1, 2)
    [0.7887, 0.0]
    """
    confidences = []
    for estimate in estimates:
        logarithm = None
        if estimate is None:
            confidences.append(0.0)
            continue
        # Nearly all are looked up: for those, nothing else that `confidence_below` distinguishes matters.
        if (distance := limit - estimate.value) >= 0:
            table = estimate._upward.tables.made.get(tests)
            logarithm = None if table is None else table.at(distance)
        confidences.append(
            estimate.confidence_below(limit, tests=tests) if logarithm is None else 1 - math.exp(logarithm)
        )
    return confidences


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
    between = _between_rounds(resampled)
    return LogEstimate(
        value=float(by_round.mean()),
        variance_rounds=unless_rounding(float(by_round.var(ddof=1) / count)),
        variance_inputs=unless_rounding(float(between * inputs / (inputs - 1))),
        df_rounds=count - 1,
        # Hall and Martin's relative variance, set equal to that of a chi-square, 2 / df.
        df_inputs=math.sqrt(math.pi * inputs * share * (1 - share)),
        by_round=() if rounds is None else tuple(zip(rounds.tolist(), by_round.tolist(), strict=True)),
    )


def _between_rounds(resampled: NDArray[np.float64]) -> float:
    """Return the mean covariance, over draws, between two different rounds."""
    # Two that are the same stand for rounds that drew their inputs themselves: there is nothing to resample.
    if resampled.shape[1] == 2 and np.array_equal(resampled[:, 0], resampled[:, 1]):
        return 0.0
    count = len(resampled)
    # A draw may leave a round without any of its inputs; such a draw says nothing about a covariance between rounds.
    drawn = resampled[:, np.isfinite(resampled).all(axis=0)]
    of_mean, of_each = drawn.mean(axis=0).var(ddof=1), drawn.var(axis=1, ddof=1).mean()
    # var(mean) = of_each / R + (R - 1) / R * covariance, solved for the covariance.
    return float((count * of_mean - of_each) / (count - 1))


def over_hosts(estimate: LogEstimate, by_round: NDArray[np.float64], hosts: NDArray[np.int64] | None) -> LogEstimate:
    """Return an estimate for all machines of a class, where its rounds ran on several of them.

    Parameters
    ----------
    estimate : LogEstimate
        As `estimate_over_rounds` returns it.
    by_round : float array, shape (rounds,)
        What it is the mean of.
    hosts : int array, shape (rounds,), or None
        The machine of each round; None where all ran on one.

    Returns
    -------
    LogEstimate
        With the variance of the machines' means where that makes the interval wider; the estimate itself otherwise.

    Notes
    -----
    The machines are a sample of their class: value = class + machine + round. Rounds of one machine share its effect,
    and the variance across rounds divided by their number understates that of the mean. The mean of each machine is
    independent of the others', so that their variance over the number of machines is right, with one degree of freedom
    less than machines. It is taken where its margin at 95 % is the wider one: to trust the rounds wherever machines do
    not look different covers too little with two machines (0.89 instead of 0.95).

    Examples
    --------
    >>> four = np.array([0.0, 0.02, 1.0, 1.02])
    >>> rounds = LogEstimate(0.51, 0.0834, 0.0, df_rounds=3, df_inputs=9)
    >>> widened = over_hosts(rounds, four, np.array([0, 0, 1, 1]))
    >>> widened.df_rounds, round(widened.variance_rounds, 6)
    (1.0, 0.25)
    >>> round(widened.machines.lasting, 5)  # rounds of one machine agree: more of them would show nothing new
    0.24995
    >>> over_hosts(rounds, four, None) is rounds
    True
    """
    names = np.unique(hosts) if hosts is not None else np.empty(0)
    if names.size < 2:
        return estimate
    machines = _over_machines([by_round[hosts == name] for name in names])
    return replace(estimate, machines=machines).widened(machines.variance, machines.df)


def _over_machines(by_machine: Sequence[NDArray[np.float64]]) -> MachineVariance:
    """Return the variance of the mean over machines, from what the rounds of each of them gave."""
    count = len(by_machine)
    between = float(np.var([values.mean() for values in by_machine], ddof=1)) / count
    df = sum(values.size - 1 for values in by_machine)
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in by_machine) / df if df else between
    # What a machine's mean owes to its rounds falls with their number.
    of_rounds = within * float(np.mean([1 / values.size for values in by_machine])) / count
    return MachineVariance(count, between, max(between - of_rounds, 0.0) if df else 0.0)


def estimate_of_one_round(
    value: float, resampled: NDArray[np.float64], *, percentile: float, inputs: int, drawn_by_round: bool
) -> LogEstimate:
    """Return what one round says of a log ratio: nothing of how rounds differ, which is left at 0 degrees of freedom.

    Parameters
    ----------
    value : float
        The log ratio.
    resampled : float array, shape (n_resamples,)
        The same for each draw of inputs.
    percentile : float
        Above 0 and below 100.
    inputs : int
        How many were drawn; at least 2.
    drawn_by_round : bool
        Whether every round draws inputs of its own: their variance is then among that of the rounds.
    """
    # All that the draw does, since one round cannot tell the inputs' part from its rest: too much, never too little.
    between = 0.0 if drawn_by_round else float(np.nanvar(resampled, ddof=1)) * inputs / (inputs - 1)
    share = percentile / 100
    return LogEstimate(
        value=value,
        variance_rounds=0.0,
        variance_inputs=unless_rounding(between),
        df_rounds=0.0,
        # As of several rounds.
        df_inputs=math.sqrt(math.pi * inputs * share * (1 - share)),
    )


def unless_rounding(variance: float) -> float:
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
