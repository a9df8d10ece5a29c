"""How probable it is, after the evidence, that a budget holds: what a decision weighs, beside the bounds that promise.

A bound says what may be asserted: over all studies, an assertion is wrong with at most the stated chance, whatever the
truth is. A decision asks another question: after this one study, how probable is it that this strategy keeps its
budgets? That takes a prior, and here it is flat: on the log latency, on the shares of lost and gained items.

The same estimates say how many rounds, or machines of a class, would prove what they promise (`rounds_needed`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.statistics.drop_bounds import ROUNDING_PP, PairedCounts, SeparateCounts
from catalog.statistics.drops import AccuracyDrop
from catalog.statistics.log_estimate import (
    HermiteTable,
    LogEstimate,
    MachineVariance,
    density_scale,
)

_DRAWS = 4096
# The same evidence gives the same probability.
_SEED = 1


def latency_probability(estimate: LogEstimate, max_log: float) -> float:
    """Return the posterior probability that a log latency is at or below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        With the variances that the decision shall use.
    max_log : float
        Natural logarithm of the limit.

    Returns
    -------
    float

    Notes
    -----
    With a flat prior on the log latency and on the logarithm of each variance, the posterior is the estimate plus a sum
    of scaled t variables, one for each source of variance. The source with the largest variance is integrated exactly
    over fixed points of the others, which have equal probability.

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> round(latency_probability(estimate, 0.1), 4)  # R: pt(1, 2)
    0.7887
    """
    tables, distance = estimate.tables, max_log - estimate.value
    table = tables.made.get(_PROBABILITY)
    if table is not None and (value := table.at(distance)) is not None:
        return value
    if tables.sources is None:
        own = _by_variance(estimate)
        tables.sources = own, _shifts(own)
    sources, shifts = tables.sources
    if not sources:
        return float(estimate.value <= max_log)
    if table is None and tables.is_due(_PROBABILITY):
        tables.made[_PROBABILITY] = _probability_table(sources)
    largest, df = sources[0]
    standard = (distance - shifts) / math.sqrt(largest)
    return float(scipy.special.stdtr(df, standard[np.newaxis]).mean(axis=1)[0])


def latency_probabilities(estimates: Sequence[LogEstimate | None], max_log: float) -> list[float | None]:
    """Return `latency_probability` of several estimates for one limit, and None for None.

    Parameters
    ----------
    estimates : sequence of LogEstimate or None
        With the variances that the decision shall use.
    max_log : float
        Natural logarithm of the limit.

    Returns
    -------
    list of float or None

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=9)
    >>> [None if own is None else round(own, 4) for own in latency_probabilities([estimate, None], 0.1)]
    [0.7887, None]
    """
    probabilities: list[float | None] = []
    for estimate in estimates:
        if estimate is None:
            probabilities.append(None)
            continue
        # Nearly all are looked up.
        table = estimate.tables.made.get(_PROBABILITY)
        value = None if table is None else table.at(max_log - estimate.value)
        probabilities.append(latency_probability(estimate, max_log) if value is None else value)
    return probabilities


def _by_variance(estimate: LogEstimate) -> list[tuple[float, float]]:
    """Return the variances that are not 0 with their degrees of freedom, the largest first."""
    sources = (source for source in _sources(estimate) if source[0] > 0)
    return sorted(sources, key=lambda source: source[0], reverse=True)


def _shares_within(
    sources: Sequence[tuple[float, float]], distances: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of an error below each distance, and its density there."""
    largest, df = sources[0]
    scale = math.sqrt(largest)
    standard = (distances[:, np.newaxis] - _shifts(sources)) / scale
    density = np.exp(density_scale(df) - (df + 1) / 2 * np.log1p(standard**2 / df)) / scale
    return scipy.special.stdtr(df, standard).mean(axis=1), density.mean(axis=1)


def _shifts(sources: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Return the errors of all sources but the first, at points of equal probability."""
    others = sources[1:]
    shifts = np.zeros(_POINTS if others else 1)
    for place, (variance, df) in enumerate(others):
        shifts = shifts + math.sqrt(variance) * _t_points(df)[_ORDERS[place]]
    return shifts


def _probability_table(sources: Sequence[tuple[float, float]]) -> HermiteTable:
    """Return the probability of an error below a distance, by the distance."""
    spread = math.sqrt(sum(variance for variance, _ in sources))
    # Denser in the middle, where the probability bends; far out it is computed.
    distances = 3 * spread * np.sinh(np.linspace(-4, 4, _NODES))
    return HermiteTable.of(distances, *_shares_within(sources, distances))


def _sources(estimate: LogEstimate) -> tuple[tuple[float, float], ...]:
    return (
        (estimate.variance_rounds, estimate.df_rounds),
        (estimate.variance_inputs, estimate.df_inputs),
        (estimate.variance_model, estimate.df_model),
        (estimate.variance_shared, estimate.df_shared),
    )


# The name of the table of `latency_probability` among those of an estimate.
_PROBABILITY = "probability"
# Of that table: so many that it agrees to eight decimals.
_NODES = 800
_POINTS = 64
# The points of different sources are combined at random: a Latin hypercube.
_ORDERS = [np.random.default_rng(place).permutation(_POINTS) for place in range(3)]


@lru_cache(maxsize=1024)
def _t_points(df: float) -> NDArray[np.float64]:
    """Return points of Student's t that stand for equal shares of its probability."""
    return np.asarray(scipy.special.stdtrit(df, (np.arange(_POINTS) + 0.5) / _POINTS), dtype=np.float64)


def drop_probability(drop: AccuracyDrop, max_pp: float) -> float:
    """Return the posterior probability that a drop of accuracy is at or below a limit.

    Parameters
    ----------
    drop : AccuracyDrop
    max_pp : float
        Percentage points.

    Returns
    -------
    float

    Notes
    -----
    Where items are lost, gained or neither, the shares of the three have a uniform Dirichlet prior, and the probability
    is the share of draws from the posterior within the limit. Where only numbers of right items are known, both shares
    have a uniform prior; shared items make the true posterior narrower. A mean intersection over union has the
    confidence of its resampled bound: its distribution is that of the drop with a flat prior.

    Examples
    --------
    >>> from catalog.statistics.drops import hit_drop
    >>> drop = hit_drop([True] * 100, [True] * 100)
    >>> drop_probability(drop, 1.0) > drop_probability(drop, 0.0)
    True
    """
    bound = drop.bound
    if isinstance(bound, PairedCounts):
        drawn = _drops_pp(bound.lost, bound.gained, bound.items)
    elif isinstance(bound, SeparateCounts):
        drawn = _separate_drops_pp(bound)
    else:
        return bound.confidence_at_most(max_pp)
    within = int(np.searchsorted(drawn, max_pp + ROUNDING_PP, side="right"))
    # Half a draw off both ends: so many draws never show certainty.
    return (within + 0.5) / (drawn.size + 1)


# Strategies share artifacts and questions ask about the same ones: a draw takes longer than all that uses it.
@lru_cache(maxsize=256)
def _drops_pp(lost: int, gained: int, items: int) -> NDArray[np.float64]:
    """Draw drops from their posterior, in ascending order."""
    counts = np.array([lost, gained, items - lost - gained]) + 1.0
    # Gamma variables over their sum are a draw from the Dirichlet distribution.
    gammas = np.random.default_rng(_SEED).standard_gamma(counts, size=(_DRAWS, 3))
    return np.sort(100 * (gammas[:, 0] - gammas[:, 1]) / gammas.sum(axis=1))


@lru_cache(maxsize=256)
def _separate_drops_pp(counts: SeparateCounts) -> NDArray[np.float64]:
    """Draw drops from the posteriors of two shares, as if they were of different items, in ascending order."""
    rng = np.random.default_rng(_SEED)
    right, reference_right = counts.right, counts.reference_right
    share = rng.beta(right + 1, counts.items - right + 1, _DRAWS)
    reference = rng.beta(reference_right + 1, counts.reference_items - reference_right + 1, _DRAWS)
    return np.sort(100 * (reference - share))


def share_probability(right: int, items: int, least: float) -> float:
    """Return the posterior probability that a share is at or above a limit, with a flat prior.

    Parameters
    ----------
    right, items : int
    least : float
        A share.

    Returns
    -------
    float

    Examples
    --------
    >>> round(share_probability(90, 100, 0.85), 3)  # R: 1 - pbeta(0.85, 91, 11)
    0.907
    """
    return 1 - float(scipy.special.betainc(right + 1, items - right + 1, min(max(least, 0.0), 1.0)))


# What the correlation of percentiles is taken for before anything is seen, and how many degrees of freedom it counts.
_PRIOR_CORRELATION = 0.5
_PRIOR_DF = 4.0


def percentile_correlation(by_round: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Estimate how the errors of several percentiles of one latency are correlated.

    Parameters
    ----------
    by_round : sequence of float array, shape (rounds, percentiles)
        The log percentiles of each round, for each strategy of a subject; at least two rounds each.

    Returns
    -------
    float array, shape (percentiles, percentiles)
        Pooled over the strategies, each on the scale of its own spread, with a correlation of one half for a prior of
        four degrees of freedom.

    Examples
    --------
    >>> percentile_correlation([np.array([[0.0, 0.0], [1.0, 1.0]])] * 16).round(2).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    count = by_round[0].shape[1]
    summed = _PRIOR_DF * np.where(np.eye(count, dtype=np.bool_), 1.0, _PRIOR_CORRELATION)
    for values in by_round:
        off = values - values.mean(axis=0)
        df = len(values) - 1
        # A noisy strategy must not drown the others.
        if (scale := float((off**2).sum()) / (df * count)) > 0:
            summed = summed + off.T @ off / scale
    spread = np.sqrt(np.diag(summed))
    return np.asarray(summed / np.outer(spread, spread), dtype=np.float64)


def joint_probability(probabilities: Sequence[float], correlation: NDArray[np.float64]) -> float:
    """Return the probability that several limits on one latency hold together.

    Parameters
    ----------
    probabilities : sequence of float
        Of each limit by itself.
    correlation : float array, shape (limits, limits)
        Of their errors.

    Returns
    -------
    float
        At most the least of them and at least their product.

    Notes
    -----
    A normal copula by fixed draws: the share of correlated normal vectors that are within the normal quantiles of the
    probabilities.

    Examples
    --------
    >>> halves = joint_probability([0.5, 0.5], np.array([[1.0, 0.5], [0.5, 1.0]]))
    >>> abs(halves - 1 / 3) < 0.01  # exactly 1 / 4 + arcsin(1 / 2) / (2 pi)
    True
    """
    least, product = min(probabilities), math.prod(probabilities)
    # Where all but one are certain, that one decides.
    if least - product < 1e-4:
        return least
    drawn = _normal_draws(len(probabilities)) @ np.linalg.cholesky(correlation).T
    share = float(np.all(drawn <= scipy.special.ndtri(np.asarray(probabilities)), axis=1).mean())
    return min(max(share, product), least)


@lru_cache(maxsize=8)
def _normal_draws(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(_SEED).standard_normal((_DRAWS, count))


# More rounds than this are no plan: another budget or a lower confidence is.
ROUNDS_MAX = 60
# A laboratory that has more boards of one kind than this does not ask.
MACHINES_MAX = 20
# The chance that so many rounds prove it, if the estimate is the truth.
_POWER = 0.8


def rounds_needed(
    estimate: LogEstimate,
    limit: float,
    *,
    confidence_level: float,
    rounds: int,
    new_inputs: bool,
    tests: int = 1,
    most: int = ROUNDS_MAX,
) -> int | None:
    """Return how many rounds would bring the upper bound of a log latency below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        From `rounds` rounds.
    limit : float
        On the scale of the estimate.
    confidence_level : float
        Of the one-sided bound.
    rounds : int
        As measured.
    new_inputs : bool
        Whether each round draws inputs of its own: then the variance from the inputs falls with the rounds too.
    tests : int
        Of how many bounds it is one, each at this level (`LogEstimate.upper`).
    most : int
        The largest number to try.

    Returns
    -------
    int or None
        In total, above `rounds`; None where not even `most` would do.

    Notes
    -----
    Takes the estimate for the truth. For a chance of four in five the distance to the limit must hold the guarded
    margin plus 0.84 standard errors. The variances fall with 1 / rounds, and each further round adds a degree of
    freedom; a model's error stays. An approximation, as `catalog.statistics.outcomes.still_needed`.

    Where the rounds ran on several machines of a class, further ones are taken to run on the same machines: what these
    differ in stays, and no degree of freedom is added (`machines_needed`).

    Examples
    --------
    >>> estimate = LogEstimate(0.0, variance_rounds=0.01, variance_inputs=0.0, df_rounds=2, df_inputs=1)
    >>> [rounds_needed(estimate, limit, confidence_level=0.95, rounds=3, new_inputs=False) for limit in (0.25, 0.1, 0)]
    [5, 20, None]
    """
    return _fewest(
        rounds,
        most,
        lambda number: (
            _bound_after(estimate, rounds, number, confidence_level, new_inputs=new_inputs, tests=tests) <= limit
        ),
    )


def machines_needed(
    estimate: LogEstimate, limit: float, *, confidence_level: float, tests: int = 1, most: int = MACHINES_MAX
) -> int | None:
    """Return how many machines of a class would bring the upper bound of a log latency below a limit.

    Parameters
    ----------
    estimate : LogEstimate
        From rounds on at least two machines (`LogEstimate.machines`).
    limit : float
        On the scale of the estimate.
    confidence_level : float
        Of the one-sided bound.
    tests : int
        Of how many bounds it is one, each at this level (`LogEstimate.upper`).
    most : int
        The largest number to try.

    Returns
    -------
    int or None
        In total, above those that it has; None where not even `most` would do, or where it has rounds of one machine.

    Notes
    -----
    As `rounds_needed`, with as many rounds on every further machine as on those before.

    Examples
    --------
    >>> from catalog.statistics.log_estimate import MachineVariance
    >>> boards = MachineVariance(2, variance=0.01, lasting=0.01)
    >>> estimate = LogEstimate(0.0, 0.01, 0.0, df_rounds=1, df_inputs=1, machines=boards)
    >>> rounds_needed(estimate, 0.4, confidence_level=0.95, rounds=6, new_inputs=True)
    >>> [machines_needed(estimate, limit, confidence_level=0.95) for limit in (0.4, 0.2, 0.01)]
    [3, 5, None]
    """
    machines = estimate.machines
    if machines is None:
        return None

    def within(number: int) -> bool:
        return _likely_bound(_on_machines(estimate, machines, number), confidence_level, tests) <= limit

    return _fewest(machines.count, most, within)


def _fewest(present: int, most: int, within: Callable[[int], bool]) -> int | None:
    """Return the smallest number above the present one that is within; None where not even `most` is."""
    low, high = present + 1, most + 1
    # More are never worse, so bisection finds the fewest.
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle + 1, high)
    return low if low <= most else None


def _bound_after(
    estimate: LogEstimate, rounds: int, number: int, confidence_level: float, *, new_inputs: bool, tests: int
) -> float:
    """Return the bound that so many rounds would give with the chance of `_POWER`."""

    def bound() -> float:
        later = _after(estimate, rounds, number, new_inputs=new_inputs)
        return _likely_bound(later, confidence_level, tests)

    # Kept, because every question about the same evidence searches through the same numbers of rounds.
    return estimate.tables.bound((rounds, number, confidence_level, new_inputs, tests), bound)


def _likely_bound(later: LogEstimate, confidence_level: float, tests: int) -> float:
    """Return the bound that an estimate gives with the chance of `_POWER`."""
    return later.upper(confidence_level, tests=tests) + float(scipy.special.ndtri(_POWER)) * later.standard_error


def _after(estimate: LogEstimate, rounds: int, number: int, *, new_inputs: bool) -> LogEstimate:
    """Return the estimate as so many rounds would know it, on the same machines."""
    share, machines = rounds / number, estimate.machines
    later = _with_rounds(estimate, share, number - rounds, new_inputs=new_inputs)
    return later if machines is None else _bounded_by(machines, machines.after(share), machines.df, estimate, later)


def _on_machines(estimate: LogEstimate, machines: MachineVariance, number: int) -> LogEstimate:
    """Return the estimate as so many machines would know it, on each of which as many rounds ran."""
    share = machines.count / number
    later = _with_rounds(estimate, share, number - machines.count, new_inputs=True)
    return _bounded_by(machines, machines.variance * share, number - 1, estimate, later)


def _bounded_by(
    machines: MachineVariance, variance: float, df: float, estimate: LogEstimate, later: LogEstimate
) -> LogEstimate:
    """Return a later estimate with a variance over machines, where that decides."""
    if not estimate.by_machines:
        return later.widened(variance, df)
    # What the other strategies say of it is in the estimate, and stays in proportion.
    steadied, others_df = estimate.variance_rounds / machines.variance, estimate.df_rounds - machines.df
    return replace(later, variance_rounds=steadied * variance, df_rounds=others_df + df)


def _with_rounds(estimate: LogEstimate, share: float, more: int, *, new_inputs: bool) -> LogEstimate:
    """Return an estimate whose variances have fallen to a share, and are known by more rounds."""
    above = estimate.variance_inputs_above
    return replace(
        estimate,
        variance_rounds=estimate.variance_rounds * share,
        df_rounds=estimate.df_rounds + more,
        variance_shared=estimate.variance_shared * share,
        df_shared=estimate.df_shared + more,
        variance_inputs=estimate.variance_inputs * (share if new_inputs else 1.0),
        variance_inputs_above=None if above is None else above * (share if new_inputs else 1.0),
        df_inputs=estimate.df_inputs + (more if new_inputs else 0),
    )
