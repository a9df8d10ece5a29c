"""How far apart two strategies of a race are, and how far that may be off: over the rounds that both have.

A strategy that left after one round was perhaps measured in a slow one. Means over all rounds of each would compare
that round with twelve others; over common rounds, what moves both cancels.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.looks import LEAVING_LOOKS
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

# So many samples show how they scatter.
_FEWEST_SAMPLES = 8

_values: CandidateCache[float] = CandidateCache()


@dataclass(frozen=True)
class LogRatio:
    """A log ratio of two latencies, with its standard error and how well that is known."""

    value: float
    error: float
    df: float

    @property
    def low(self) -> float:
        """The lower bound at the level of leaving."""
        return self.value - _quantile(self.df) * self.error

    def gain_beyond(self, margin: float) -> float:
        """Return what choosing the first strategy gains on average where it is faster by more than a margin.

        The mean of max(-ratio - margin, 0), with the ratio normal around its estimate: what is lost by leaving the
        choice as it is.

        Examples
        --------
        >>> LogRatio(0.0, 0.1, 10).gain_beyond(0.0), LogRatio(1.0, 0.1, 10).gain_beyond(0.0)
        (0.0399, 0.0)
        """
        beyond = -self.value - margin
        if not self.error > 0:
            return max(beyond, 0.0)
        standard = beyond / self.error
        density = math.exp(-(standard**2) / 2) / math.sqrt(2 * math.pi)
        return round(self.error * (density + standard * float(scipy.special.ndtr(standard))), 4)


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
        several = [candidate for candidate in self._candidates if candidate.rounds > 1]
        variances = strategy_variances([self._by_round(candidate) for candidate in several]) if several else None
        self._shared, self._effects = (variances.shared, variances.effects) if variances else (0.0, {})
        sides = (variances.side(place) for place in range(len(several))) if variances else ()
        own = {candidate: RoundVariance(*side) for candidate, side in zip(several, sides, strict=False)}
        usual = _usual(list(own.values()))
        self._variances = {
            candidate: _at_least(_scatter(candidate, percentile), own.get(candidate, usual))
            for candidate in self._candidates
        }

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

    def recoverable(self, candidate: Candidate) -> float:
        """Return how much lower than its estimate a log latency may turn out with more rounds, at the level of leaving.

        Of rounds on several machines of a class, what the machines differ in is no matter of rounds.
        """
        estimate = self.estimate(candidate)
        if estimate is None or estimate.machines is None or not estimate.by_machines:
            return self.margin(candidate)
        machines = estimate.machines
        of_rounds = replace(
            estimate,
            variance_rounds=estimate.variance_rounds * (1 - machines.lasting / machines.variance),
            df_rounds=max(candidate.rounds - machines.count, machines.df),
        )
        return of_rounds.upper(LEAVING_LEVEL) - of_rounds.value

    def log_ratio(self, candidate: Candidate, other: Candidate) -> LogRatio:
        """Return the log latency of one strategy above that of another, without what moves their rounds alike.

        Over the rounds that both have, or over all rounds less the effects of these, whichever is known better. With
        fewer than three rounds, the median ratio over common inputs counts where it is the smaller one.
        """
        sides = self._variances[candidate], self._variances[other]
        common = tuple(sorted({*_numbers(candidate)} & {*_numbers(other)}))
        ratio = _ratio(
            self._above_rounds(candidate) - self._above_rounds(other),
            [self._of_mean(side, member) for side, member in zip(sides, (candidate, other), strict=True)],
        )
        # Without effects nothing but the common rounds tells a slow strategy from one that was measured in slow rounds.
        if common and not (self._effects and ratio.error**2 <= sum(side.variance for side in sides) / len(common)):
            ratio = _ratio(
                self._on(candidate, common) - self._on(other, common),
                [RoundVariance(side.variance / len(common), side.df) for side in sides],
            )
        # The largest of ten inputs may have been held up: the percentile of one round is no reason to leave.
        if candidate.rounds <= LEAVING_LOOKS[-1] and (typical := _typical_ratio(candidate, other)) is not None:
            return replace(ratio, value=min(ratio.value, typical))
        return ratio

    def _above_rounds(self, candidate: Candidate) -> float:
        """Return the log latency less the mean effect of the rounds."""
        effects = [self._effects.get(number, 0.0) for number in _numbers(candidate)]
        return self.value(candidate) - sum(effects) / len(effects)

    def _of_mean(self, side: RoundVariance, candidate: Candidate) -> RoundVariance:
        """Return the variance of a mean over rounds; where their effect is not known, it varies as well."""
        numbers = _numbers(candidate)
        unknown = sum(number not in self._effects for number in numbers)
        return RoundVariance((side.variance + self._shared * unknown / len(numbers)) / len(numbers), side.df)

    def _on(self, candidate: Candidate, numbers: tuple[int, ...]) -> float:
        if len(numbers) == candidate.rounds:
            return self.value(candidate)
        key = self._percentile, numbers
        return _values.get(
            candidate,
            key,
            lambda: math.log(interval(on_rounds(candidate, numbers), self._percentile).estimate_s),
        )

    def _by_round(self, candidate: Candidate) -> dict[int, float]:
        by_round_s = interval(candidate, self._percentile).by_round_s
        return dict(zip(_numbers(candidate), np.log(by_round_s).tolist(), strict=True))


def _numbers(candidate: Candidate) -> tuple[int, ...]:
    return candidate.round_numbers or tuple(range(candidate.rounds))


def _typical_ratio(candidate: Candidate, other: Candidate) -> float | None:
    """Return the median log ratio over the rounds and inputs that two strategies have in common."""
    one, reference = _by_input(candidate), _by_input(other)
    common = one.keys() & reference.keys()
    return statistics.median(one[key] - reference[key] for key in common) if common else None


def _by_input(candidate: Candidate) -> Mapping[tuple[int, int], float]:
    indices = candidate.input_index or ()
    return {
        (number, index): latency
        for number, inputs, values in zip(_numbers(candidate), indices, candidate.latency_s, strict=False)
        for index, latency in zip(inputs.tolist(), np.log(values).tolist(), strict=True)
    }


def _at_least(variance: float, side: RoundVariance) -> RoundVariance:
    return replace(side, variance=max(variance, side.variance))


def _scatter(candidate: Candidate, percentile: float) -> float:
    """Return the variance that the percentile of one round owes to how its samples scatter around their sizes.

    That of a quantile of so many normal values. Rounds may agree by luck, and a single one says nothing else: ten
    inputs of which three were throttled have a p90 that the next ten do not repeat.
    """
    values = np.log(np.concatenate(candidate.latency_s))
    size = None if candidate.design is None else candidate.design.size
    if values.size < _FEWEST_SAMPLES:
        return 0.0
    if size is not None and np.ptp(size) > 0:
        values = values - np.polyval(np.polyfit(np.log1p(size), values, 1), np.log1p(size))
    share, samples = percentile / 100, values.size / candidate.rounds
    density = math.exp(-(float(scipy.special.ndtri(share)) ** 2) / 2) / math.sqrt(2 * math.pi)
    return float(values.var(ddof=2)) * share * (1 - share) / samples / density**2


def _usual(variances: Sequence[RoundVariance]) -> RoundVariance:
    """Return what to expect of a strategy with a single round: the median of the others, beside what is assumed."""
    # The mean would take every other strategy for as noisy as the noisiest.
    median = statistics.median(variance.variance for variance in variances) if variances else 0.0
    weight = min(sum(variance.df for variance in variances), _MOST_DF)
    return RoundVariance((median * weight + _ROUND_SD**2 * _ROUND_DF) / (weight + _ROUND_DF), weight + _ROUND_DF)


def _ratio(value: float, sides: Sequence[RoundVariance]) -> LogRatio:
    """Return a difference with Satterthwaite's degrees of freedom."""
    total = sum(side.variance for side in sides)
    spread = sum(side.variance**2 / side.df for side in sides)
    return LogRatio(value, math.sqrt(total), total**2 / spread if spread > 0 else 1.0)


def _quantile(df: float) -> float:
    return float(scipy.special.stdtrit(df, LEAVING_LEVEL))
