"""How far off a strategy may be that has too few rounds for a bound, by what the rounds of the others show.

A race leaves most strategies after one round. Their own variance is then unknown, and nothing is promised of them; but
that none of them keeps a budget of a tenth of its latency can be said.
"""

import math
from collections.abc import Mapping, Sequence
from weakref import ref

from catalog.statistics.intervals import PercentileInterval, RefusalKind
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.variances import strategy_variances
from recommender.ranking.candidates import Candidate, CandidateCache, interval

_presumed: CandidateCache[Mapping[int, LogEstimate]] = CandidateCache()


def presumed(candidates: Sequence[Candidate], percentile: float) -> Mapping[Candidate, LogEstimate]:
    """Return the log latency of strategies without a bound of their own, with the variance usual for the others.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of the question.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    mapping of Candidate to LogEstimate
        Of those that have one round, or inputs of their own in each and too few of them; empty where the others show
        too little.

    Notes
    -----
    The variance is the mean of the others' own, by their degrees of freedom, which noisy ones dominate, and what all
    share in a round. It may say that a strategy misses a budget, never that it keeps one.

    Examples
    --------
    >>> import numpy as np
    >>> rounds = tuple(np.full(30, 0.1 * factor) for factor in (1.0, 1.1, 0.9))
    >>> others = [Candidate(name, "edge", ("edge",), rounds, inputs=30) for name in "abc"]
    >>> one = Candidate("identity", "cloud", ("cloud",), rounds[:1], inputs=30)
    >>> estimate = presumed([*others, one], 90)[one]
    >>> round(estimate.upper(0.95) - estimate.value, 2), presumed([one], 90)
    (0.21, {})
    """
    if not candidates:
        return {}
    key = percentile, tuple(map(ref, candidates))
    places = _presumed.get(candidates[0], key, lambda: _by_place(candidates, percentile))
    return {candidates[place]: estimate for place, estimate in places.items()}


def _by_place(candidates: Sequence[Candidate], percentile: float) -> Mapping[int, LogEstimate]:
    intervals = [interval(member, percentile) for member in candidates]
    # A promise knows the inputs' variance apart from the rounds'; here the rounds must show both.
    estimates = [own.jackknife or own.estimate for own in intervals]
    several = [dict(own.by_round) for own in estimates if own is not None and own.by_round]
    thin = [place for place, member in enumerate(candidates) if _is_thin(member, intervals[place])]
    variances = strategy_variances(several)
    usual = variances.presumed
    if not thin or not usual.df:
        return {}
    return {
        place: LogEstimate(
            math.log(intervals[place].estimate_s),
            variance_rounds=usual.variance / intervals[place].rounds,
            variance_inputs=0.0,
            df_rounds=usual.df,
            df_inputs=1.0,
            variance_shared=variances.shared / intervals[place].rounds,
            df_shared=variances.shared_df,
        )
        for place in thin
    }


def _is_thin(candidate: Candidate, own: PercentileInterval) -> bool:
    # Where rounds send the same inputs, the variance across rounds says nothing of too few of these.
    if own.refusal is None or candidate.predicted is not None:
        return False
    return candidate.design is not None or own.refusal.kind is RefusalKind.ONE_ROUND
