"""How far apart two strategies of a race are, and how far that may be off: over the rounds that both have.

A strategy that left after one round was perhaps measured in a slow one. Means over all rounds of each would compare
that round with twelve others; over common rounds, what moves both cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.variances import strategy_variances
from recommender.ranking.candidates import Candidate, CandidateCache, interval, on_rounds
from recommender.ranking.feasibility import steadied

# One-sided, of a single bound by which a strategy leaves; docs/racing.md has the simulation.
LEAVING_LEVEL = 0.85
# Before several rounds show it: how a strategy's value varies from round to round, on the log scale, and for how many
# degrees of freedom that counts.
_ROUND_SD = 0.15
_ROUND_DF = 4.0
# Beyond so many, the rounds of the other strategies say no more about one that has a single round.
_MOST_DF = 12.0

_values: CandidateCache[float] = CandidateCache()


@dataclass(frozen=True)
class LogRatio:
    """A log ratio of two latencies, and its one-sided margin at the level of leaving."""

    value: float
    margin: float

    @property
    def low(self) -> float:
        """The lower bound."""
        return self.value - self.margin


@dataclass(frozen=True)
class RoundVariance:
    """The variance of one round of a strategy by itself, and how well it is known."""

    variance: float
    df: float


class Contenders:
    """The strategies of a race at one percentile.

    Parameters
    ----------
    candidates : sequence of Candidate
        All that were measured, those that left included: the usual variance comes from all of them, never from the
        survivors alone.
    percentile : float
    """

    def __init__(self, candidates: Sequence[Candidate], percentile: float) -> None:
        self._candidates, self._percentile = tuple(candidates), percentile
        self._intervals = steadied(self._candidates, percentile)
        self._variances, self._shared = self._round_variances()

    def estimate(self, candidate: Candidate) -> LogEstimate | None:
        """Return the log latency as a promise takes it; None where nothing bounds it yet."""
        return self._intervals[candidate].estimate

    def value(self, candidate: Candidate) -> float:
        """Return the estimated log latency, over all rounds of the strategy."""
        return math.log(interval(candidate, self._percentile).estimate_s)

    def margin(self, candidate: Candidate) -> float:
        """Return the one-sided margin of a log latency at the level of leaving."""
        estimate = self.estimate(candidate)
        if estimate is not None:
            return estimate.upper(LEAVING_LEVEL) - estimate.value
        own = self._variances[candidate]
        return _quantile(own.df) * math.sqrt((own.variance + self._shared) / candidate.rounds)

    def log_ratio(self, candidate: Candidate, other: Candidate) -> LogRatio:
        """Return the log latency of one strategy above that of another, over the rounds that both have."""
        common = tuple(sorted({*_numbers(candidate)} & {*_numbers(other)}))
        sides = [self._variances[candidate], self._variances[other]]
        if not common:
            # Of other rounds, what all strategies share does not cancel.
            scaled = [
                RoundVariance((side.variance + self._shared) / member.rounds, side.df)
                for side, member in zip(sides, (candidate, other), strict=True)
            ]
            return LogRatio(self.value(candidate) - self.value(other), _margin(scaled))
        scaled = [RoundVariance(side.variance / len(common), side.df) for side in sides]
        return LogRatio(self._on(candidate, common) - self._on(other, common), _margin(scaled))

    def _on(self, candidate: Candidate, numbers: tuple[int, ...]) -> float:
        if len(numbers) == candidate.rounds:
            return self.value(candidate)
        key = self._percentile, numbers
        return _values.get(
            candidate,
            key,
            lambda: math.log(interval(on_rounds(candidate, numbers), self._percentile).estimate_s),
        )

    def _round_variances(self) -> tuple[Mapping[Candidate, RoundVariance], float]:
        """Return the steadied own variance of one round of each strategy, and the variance that all share."""
        several = [candidate for candidate in self._candidates if candidate.rounds > 1]
        variances = strategy_variances([self._by_round(candidate) for candidate in several]) if several else None
        own: dict[Candidate, RoundVariance] = {}
        if variances is not None:
            own = {candidate: RoundVariance(*variances.side(place)) for place, candidate in enumerate(several)}
        weight = sum(variance.df for variance in own.values())
        pooled = sum(variance.variance * variance.df for variance in own.values()) + _ROUND_SD**2 * _ROUND_DF
        usual = RoundVariance(pooled / (weight + _ROUND_DF), min(weight + _ROUND_DF, _MOST_DF))
        return (
            {candidate: own.get(candidate, usual) for candidate in self._candidates},
            variances.shared if variances else 0.0,
        )

    def _by_round(self, candidate: Candidate) -> dict[int, float]:
        by_round_s = interval(candidate, self._percentile).by_round_s
        return dict(zip(_numbers(candidate), np.log(by_round_s).tolist(), strict=True))


def _numbers(candidate: Candidate) -> tuple[int, ...]:
    return candidate.round_numbers or tuple(range(candidate.rounds))


def _margin(sides: Sequence[RoundVariance]) -> float:
    """Return the margin of a difference, with Satterthwaite's degrees of freedom."""
    total = sum(side.variance for side in sides)
    spread = sum(side.variance**2 / side.df for side in sides)
    return _quantile(total**2 / spread) * math.sqrt(total) if spread > 0 else 0.0


def _quantile(df: float) -> float:
    return float(scipy.special.stdtrit(df, LEAVING_LEVEL))
