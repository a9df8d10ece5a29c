"""What a race has decided, who left it and why, and whom the next rounds hold.

Two errors are kept apart. A promise (`proven`) pays for all candidates, those that left included, and for every look
(`catalog.statistics.feasibility`); nothing here can make it false. Leaving has its own, looser level: a strategy that
left too early costs some latency or a wrong "infeasible", never a broken promise.

Two strategies are compared over the rounds that both have (`Contenders`): one that left after one round was perhaps
measured in a slow one, and means over all rounds of each would compare that round with twelve others. Over common
rounds, what moves both cancels.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import scipy

from catalog.statistics.feasibility import LEAVING_LOOKS, LOOKS, error_share, look_of, with_share
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.posterior import ROUNDS_MAX, rounds_needed
from catalog.statistics.variances import strategy_variances
from catalog.units import counted
from recommender.ranking.candidates import Candidate, CandidateCache, interval, on_rounds
from recommender.ranking.feasibility import steadied
from recommender.ranking.model import (
    Budgets,
    Constraints,
    Gap,
    LatencyBudget,
    NearMiss,
    Prospect,
    RankedAnswer,
    Status,
)
from recommender.ranking.prospects import accuracy_chance, below_floor, cost_of_breaking, drop_of, labelled_accuracy
from recommender.ranking.recommend import recommend

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


# Less than this on the scale of a log latency, on average, is worth no round.
_LEAST_GAIN = 0.005
# Rounds of one that may be faster than what is proven already, and of one that no declared question is about: who asks
# for it later continues the race.
_RIVAL_ROUNDS = 8
_UNDECLARED_ROUNDS = 5
# In undeclared questions: how many percentage points of accuracy are worth no latency, and what share of it each
# further one is worth. Half of the accuracy for a tenth of the latency is no answer that rounds should look for.
_FREE_POINTS = 2.0
_LATENCY_SHARE_PER_POINT = 0.1
# What only rounds can mend.
_OF_ROUNDS = (Gap.ONE_ROUND, Gap.TOO_THIN, Gap.BY_MODEL)


@dataclass(frozen=True)
class RaceQuestion:
    """What a race shall decide: a declared SLO, an asked question, or the fastest without a latency budget."""

    name: str
    budgets: Budgets
    constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True, eq=False)
class Contest:
    """One question of a race, as of now.

    Attributes
    ----------
    question : RaceQuestion
    answer : RankedAnswer
    leader : Candidate or None
        What would be recommended.
    challenger : Candidate or None
        The likeliest to take its place.
    undecided : tuple of Candidate
        Those whose rounds could prove or change the answer, the most deciding first: by what they may gain for the
        time that a round of them takes.
    """

    question: RaceQuestion
    answer: RankedAnswer
    leader: Candidate | None
    challenger: Candidate | None
    undecided: tuple[Candidate, ...]

    @property
    def decided(self) -> bool:
        """Whether no further round could prove or change the answer."""
        return not self.undecided


@dataclass(frozen=True, eq=False)
class Departure:
    """Why a strategy left the race.

    Attributes
    ----------
    candidate : Candidate
    rounds : int
        After how many of its rounds.
    reason : str
        `misses` every declared budget, or is `beaten`.
    by : Candidate or None
        What beats it.
    slo : str or None
        The nearest budget that it misses.
    margin : float
        By how much, as a bound says: 0.35 is 35 % beyond, of an accuracy 35 percentage points.
    """

    candidate: Candidate
    rounds: int
    reason: Literal["misses", "beaten"]
    by: Candidate | None
    slo: str | None
    margin: float

    @property
    def words(self) -> str:
        """Say it in one line, for a person."""
        name, rounds = _name(self.candidate), counted(self.rounds, "round")
        if self.by is not None:
            return f"{name} left after {rounds}: {self.margin:.0%} slower than {_name(self.by)} at least"
        return f"{name} left after {rounds}: beyond every budget, {self.slo} by {self.margin:.0%} at least"


@dataclass(frozen=True, eq=False)
class RaceState:
    """The questions of a race, who left it, and the candidates of the next rounds: none where it is over."""

    contests: tuple[Contest, ...]
    departures: Mapping[Candidate, Departure]
    next: tuple[Candidate, ...]


def race_state(
    candidates: Sequence[Candidate],
    questions: Sequence[RaceQuestion],
    *,
    equivalent_within: float = 0.05,
    seconds_per_round: Mapping[Candidate, float] | None = None,
) -> RaceState:
    """Say what a race has decided by its evidence so far, and whom the next rounds hold.

    Parameters
    ----------
    candidates : sequence of Candidate
        All measured strategies of one subject in one environment, those that left included.
    questions : sequence of RaceQuestion
        In the order of their importance. The fastest at every accuracy follows them, because what is stored also
        answers budgets that are asked later.
    equivalent_within : float
        Relative difference of latency that does not matter.
    seconds_per_round : mapping of Candidate to float, optional
        What a round takes; without it all rounds take the same time.

    Returns
    -------
    RaceState
        A function of the evidence alone, so that a race that was interrupted continues where it was.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking.model import LatencyBudget
    >>> rounds = [np.full(30, 0.1) * factor for factor in (1.0, 1.01, 0.99)]
    >>> fast = Candidate("identity", "mobile", ("mobile",), tuple(rounds), inputs=30)
    >>> slow = Candidate("identity", "cloud", ("cloud",), tuple(4 * values for values in rounds), inputs=30)
    >>> interactive = RaceQuestion("interactive", Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> state = race_state([fast, slow], [interactive])
    >>> state.contests[0].leader.placement, state.contests[0].decided, state.next
    ('mobile', True, ())
    """
    measured = [candidate for candidate in candidates if candidate.samples]
    if not measured:
        return RaceState((), {}, ())
    race = _Race(measured, equivalent_within, seconds_per_round or {})
    contests = [race.contest(question) for question in questions]
    front_rounds = _UNDECLARED_ROUNDS if questions else _RIVAL_ROUNDS
    contests += [
        race.contest(question, points_count=True, rival_rounds=front_rounds)
        for question in race.front_questions(questions)
    ]
    departures = race.departures(questions, contests)
    return RaceState(tuple(contests), departures, race.next_rounds(contests, departures))


class _Race:
    """The candidates of a race, and its rules."""

    def __init__(
        self, candidates: Sequence[Candidate], equivalent_within: float, seconds: Mapping[Candidate, float]
    ) -> None:
        self._candidates, self._seconds = tuple(candidates), seconds
        self._equivalent = math.log1p(equivalent_within)
        self._by_percentile: dict[float, Contenders] = {}

    def _at(self, percentile: float) -> Contenders:
        if percentile not in self._by_percentile:
            self._by_percentile[percentile] = Contenders(self._candidates, percentile)
        return self._by_percentile[percentile]

    def front_questions(self, questions: Sequence[RaceQuestion]) -> Iterator[RaceQuestion]:
        """Yield the question of the fastest, without a budget and at every accuracy that may be worth its latency."""
        percentile = questions[0].budgets.percentile if questions else Budgets().percentile
        yield RaceQuestion("fastest", Budgets(percentile=percentile))
        limits = {_drop_pp(candidate) for candidate in self._candidates if self._may_lead(candidate, percentile)}
        for limit in sorted(limit for limit in limits if limit is not None):
            budgets = Budgets(percentile=percentile, max_accuracy_drop_pp=limit)
            yield RaceQuestion(f"fastest within {max(limit, 0.0):.2g} pp", budgets)

    def _may_lead(self, candidate: Candidate, percentile: float) -> bool:
        """Return whether no other is as accurate, by the estimates, and faster, by bound, than makes a difference."""
        own = _accuracy_pct(candidate)
        return not any(
            _accuracy_pct(other) >= own and self._at(percentile).log_ratio(candidate, other).low > self._equivalent
            for other in self._candidates
            if other is not candidate
        )

    def contest(
        self, question: RaceQuestion, *, points_count: bool = False, rival_rounds: int = _RIVAL_ROUNDS
    ) -> Contest:
        """Say how a question stands; `points_count` is whether accuracy counts that its budgets do not name.

        `rival_rounds` are those of a rival where the leader is proven, or where there is nothing to prove.
        """
        answer = recommend(self._candidates, question.budgets, constraints=question.constraints, relax=False)
        leader = answer.recommendation.candidate if answer.recommendation else None
        gains = dict(self._gains(answer, points_count=points_count, rival_rounds=rival_rounds))
        undecided = sorted(gains, key=lambda candidate: -gains[candidate] / self._seconds.get(candidate, 1.0))
        challenger = next((candidate for candidate in undecided if candidate is not leader), None)
        return Contest(question, answer, leader, challenger, tuple(undecided))

    def _gains(
        self, answer: RankedAnswer, *, points_count: bool, rival_rounds: int
    ) -> Iterator[tuple[Candidate, float]]:
        """Yield whose rounds could prove or change an answer, and how much that may gain on the scale of the loss."""
        best = answer.recommendation
        if best is None or best.miss is not None:
            yield from self._late_gains(answer)
            return
        risk = (1 - (best.probability or 0.0)) * cost_of_breaking(answer.budgets)
        # Rivals drop out between looks; what is promised is decided at them alone.
        if not at_look(best.candidate) or self._provable(best, answer):
            yield best.candidate, risk + self._equivalent
        # Once the answer is proven, rounds may only find a faster one.
        most = rival_rounds if best.status is Status.PROVEN or not answer.budgets.latency else ROUNDS_MAX
        rivals: list[Prospect | NearMiss] = [*answer.within, *answer.near_misses]
        for rival in rivals:
            gain = self._gain(rival, best, answer.budgets, points_count=points_count)
            if gain > _LEAST_GAIN and rival.estimate.candidate.rounds < most:
                yield rival.estimate.candidate, gain

    def _late_gains(self, answer: RankedAnswer) -> Iterator[tuple[Candidate, float]]:
        """Yield, where no estimate keeps the budgets, those that may keep them after all."""
        if answer.infeasible is Status.PROVEN:
            return
        for near_miss in answer.near_misses:
            candidate = near_miss.estimate.candidate
            if candidate.rounds < ROUNDS_MAX and self._may_keep(near_miss, answer.budgets):
                yield candidate, 1 / (1 + near_miss.distance)

    def _gain(self, rival: Prospect | NearMiss, best: Prospect, budgets: Budgets, *, points_count: bool) -> float:
        """Return what a rival gains on average where it turns out better than the best."""
        if isinstance(rival, NearMiss):
            if not self._may_keep(rival, budgets):
                return 0.0
        elif rival.gap is not None and rival.gap.gap in (Gap.ACCURACY_MISSING, Gap.DROP_MISSING):
            return 0.0
        elif budgets.objective != "latency":
            return best.loss - rival.loss
        # Rounds may take back what a latency risks, and nothing of what an accuracy does.
        own = accuracy_chance(rival.estimate.candidate, budgets)
        lasting, risk = (
            (1 - (1.0 if chance is None else chance)) * cost_of_breaking(budgets) for chance in (own, best.probability)
        )
        ratio = self._at(budgets.percentile).log_ratio(rival.estimate.candidate, best.candidate)
        points = _points_lost(rival.estimate.candidate, best.candidate) if points_count else 0.0
        return ratio.gain_beyond(self._equivalent + lasting - risk + points)

    def _may_keep(self, near_miss: NearMiss, budgets: Budgets) -> bool:
        """Return whether only latencies miss their budgets, and by no more than further rounds may take back."""
        if near_miss.accuracy_short_pp is not None or near_miss.drop_over_pp is not None:
            return False
        candidate = near_miss.estimate.candidate
        return all(
            math.log(miss.got_s / miss.budget.max_s) <= self._at(miss.budget.percentile).recoverable(candidate)
            for miss in near_miss.latency
        )

    def _provable(self, best: Prospect, answer: RankedAnswer) -> bool:
        """Return whether rounds may prove what the estimates say."""
        gap, checks = best.gap, best.estimate.checks
        if gap is None or best.candidate.rounds >= ROUNDS_MAX:
            return False
        if gap.gap in _OF_ROUNDS:
            return True
        budgets = answer.budgets.latency
        # Rounds say nothing of an accuracy.
        if gap.gap is not Gap.UNPROVEN or any(not check.holds for check in checks[len(budgets) :]):
            return False
        return all(
            check.holds or self._rounds_suffice(best.candidate, budget, check.level)
            for budget, check in zip(budgets, checks, strict=False)
        )

    def _rounds_suffice(self, candidate: Candidate, budget: LatencyBudget, level: float) -> bool:
        estimate = self._at(budget.percentile).estimate(candidate)
        share = error_share(candidate.looks + 1) / candidate.error_share
        return estimate is not None and (
            rounds_needed(
                estimate,
                math.log(budget.max_s),
                confidence_level=with_share(level, share),
                rounds=candidate.rounds,
                new_inputs=candidate.design is not None,
            )
            is not None
        )

    def departures(
        self, questions: Sequence[RaceQuestion], contests: Sequence[Contest]
    ) -> Mapping[Candidate, Departure]:
        """Say who leaves: the slowest first, as long as another of its placement stays."""
        percentile = contests[0].question.budgets.percentile
        leaders = {contest.leader for contest in contests}
        staying = Counter(candidate.placement for candidate in self._candidates)
        departures: dict[Candidate, Departure] = {}
        for candidate in sorted(self._candidates, key=self._at(percentile).value, reverse=True):
            # What-if starts from identity and from one strategy of every placement.
            if _is_identity(candidate) or candidate in leaders or staying[candidate.placement] == 1:
                continue
            departure = self._beaten(candidate, percentile) or self._missing(candidate, questions, percentile)
            if departure is not None:
                departures[candidate] = departure
                staying[candidate.placement] -= 1
        return departures

    def _beaten(self, candidate: Candidate, percentile: float) -> Departure | None:
        """Return the departure of a strategy that is worse than another under any constraints."""
        ratios = {
            other: self._at(percentile).log_ratio(candidate, other).low
            for other in self._candidates
            if other is not candidate and _needs_no_more(other, candidate) and _as_accurate(other, candidate)
        }
        by = max(ratios, key=lambda other: ratios[other], default=None)
        if by is None or ratios[by] <= self._equivalent:
            return None
        return Departure(candidate, candidate.rounds, "beaten", by, None, math.expm1(ratios[by]))

    def _missing(self, candidate: Candidate, questions: Sequence[RaceQuestion], percentile: float) -> Departure | None:
        """Return the departure of a strategy that misses every declared budget, and is no fastest at its accuracy."""
        margins = {question.name: self._miss(candidate, question.budgets) for question in questions}
        if not margins or min(margins.values()) <= 0 or self._may_lead(candidate, percentile):
            return None
        nearest = min(margins, key=lambda name: margins[name])
        return Departure(candidate, candidate.rounds, "misses", None, nearest, margins[nearest])

    def _miss(self, candidate: Candidate, budgets: Budgets) -> float:
        """Return by how much a strategy is shown to be beyond the budgets; 0 where it may keep them."""
        beyond = [0.0]
        for budget in budgets.latency:
            contenders = self._at(budget.percentile)
            least = contenders.value(candidate) - contenders.margin(candidate) - math.log(budget.max_s)
            beyond.append(math.expm1(least))
        accuracy, drop = labelled_accuracy(candidate), drop_of(candidate)
        floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
        if floor is not None and accuracy is not None and below_floor(accuracy, floor) >= LEAVING_LEVEL:
            beyond.append(max(1 - accuracy.accuracy_pct / floor, 0.0))
        if most is not None and drop is not None and drop.confidence_above(most) >= LEAVING_LEVEL:
            beyond.append(max((-drop.gain_bound.upper_pp(LEAVING_LEVEL) - most) / 100, 0.0))
        return max(beyond)

    def next_rounds(
        self, contests: Sequence[Contest], departures: Mapping[Candidate, Departure]
    ) -> tuple[Candidate, ...]:
        """Return whom the next rounds hold, the most deciding first."""
        deciding: dict[Candidate, None] = {}
        for contest in contests:
            if not contest.decided:
                named = (*contest.undecided, contest.leader, contest.challenger)
                deciding |= dict.fromkeys(candidate for candidate in named if candidate is not None)
        # Whatever the questions, what-if starts from identity, whose latency has an interval from two rounds on.
        deciding |= dict.fromkeys(
            member for member in self._candidates if _is_identity(member) and member.rounds < LEAVING_LOOKS[-1]
        )
        return tuple(candidate for candidate in deciding if candidate not in departures)


def at_look(candidate: Candidate) -> bool:
    """Return whether a candidate has as many rounds as one of the looks of its race."""
    return look_of(candidate.rounds, candidate.rounds_declared or LOOKS[0]).rounds == candidate.rounds


def _points_lost(candidate: Candidate, other: Candidate) -> float:
    """Return what the accuracy that a strategy has less than another is worth on the scale of a log latency."""
    lost_pp = _accuracy_pct(other) - _accuracy_pct(candidate)
    # Where either is not known, neither is the difference.
    return max(lost_pp - _FREE_POINTS, 0.0) * _LATENCY_SHARE_PER_POINT if math.isfinite(lost_pp) else 0.0


def _name(candidate: Candidate) -> str:
    return f"{candidate.operator} on {candidate.placement}"


def _is_identity(candidate: Candidate) -> bool:
    # A cut that is shown to compute the same has several parts.
    return not candidate.changed and len(candidate.tiers) == 1


def _drop_pp(candidate: Candidate) -> float | None:
    drop = drop_of(candidate)
    return None if drop is None else drop.drop_pp


def _accuracy_pct(candidate: Candidate) -> float:
    """Return the accuracy less identity's; what is not known is worst."""
    drop_pp = _drop_pp(candidate)
    return -math.inf if drop_pp is None else -drop_pp


def _as_accurate(candidate: Candidate, other: Candidate) -> bool:
    """Return whether a strategy is no less accurate than another, by bound or because both compute the same."""
    if candidate.operator == other.operator or (not candidate.changed and not other.changed):
        return True
    drop, most = drop_of(candidate), drop_of(other)
    if drop is None or most is None:
        # What computes what identity computes agrees with it best.
        return not candidate.changed
    return most.confidence_above(drop.upper_pp(LEAVING_LEVEL)) >= LEAVING_LEVEL


def _needs_no_more(candidate: Candidate, other: Candidate) -> bool:
    """Return whether a strategy keeps every constraint that another keeps: of tiers, sizes, memory and bytes sent."""
    # A chain of tiers: a strategy on some of the other's tiers is reached over some of its links.
    if not {*candidate.tiers} <= {*other.tiers} or candidate.tiers[0] != other.tiers[0]:
        return False
    amounts = (
        (candidate.model_bytes, other.model_bytes),
        (candidate.memory_bytes, other.memory_bytes),
        ({"": candidate.sent_bytes}, {"": other.sent_bytes}),
        ({"": candidate.size_bytes}, {"": other.size_bytes}),
    )
    return all(
        _no_larger(own.get(key), theirs.get(key)) for own, theirs in amounts for key in {*own, *theirs} & {*own, ""}
    )


def _no_larger(own: float | None, theirs: float | None) -> bool:
    # What was not recorded of either says nothing; of one alone it may be anything.
    return own is None and theirs is None if own is None or theirs is None else own <= theirs
