"""Evidence and budgets in, a ranked answer out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from weakref import ref

from catalog.statistics.comparison import Comparison, Question, compare
from catalog.statistics.looks import with_share
from catalog.statistics.outcomes import ComparisonOutcome
from recommender.ranking.candidates import (
    SEED,
    Candidate,
    CandidateCache,
    Estimate,
    estimate,
    interval,
    ratio_variance,
    samples_of,
    widened,
)
from recommender.ranking.feasibility import in_spite, judge_all, miss_confidence
from recommender.ranking.model import (
    LIKELY_FROM,
    WITHOUT_ESTIMATE,
    Alternative,
    Budgets,
    Constraints,
    ExcludedCandidate,
    NearMiss,
    Objective,
    Prospect,
    RankedAnswer,
    Status,
    breaches,
)
from recommender.ranking.prospects import cost_of_breaking, status_of
from recommender.ranking.relaxations import Decision, relaxations


def pareto_front(points: Sequence[tuple[float, float | None]]) -> frozenset[int]:
    """Return the indices of the points that no other dominates.

    Parameters
    ----------
    points : sequence of (float, float or None)
        A cost, smaller is better, and a gain, larger is better; without a gain a point is never on the front.

    Returns
    -------
    frozenset of int
        Points that are equal in both are on the front together.

    Examples
    --------
    >>> sorted(pareto_front([(1.0, 80.0), (2.0, 90.0), (3.0, 85.0), (2.0, 90.0), (0.5, None)]))
    [0, 1, 3]
    """
    # In order of cost, a point is on the front exactly if it gains more than all before it; equal points all are.
    placed = sorted((cost, -gain, index) for index, (cost, gain) in enumerate(points) if gain is not None)
    front: list[int] = []
    best: tuple[float, float] | None = None
    for cost, loss, index in placed:
        if best is None or loss < best[1] or (cost, loss) == best:
            best = (cost, loss)
            front.append(index)
    return frozenset(front)


_FREE = Constraints()
_comparisons: CandidateCache[Comparison] = CandidateCache()


def recommend(
    candidates: Sequence[Candidate],
    budgets: Budgets,
    *,
    constraints: Constraints = _FREE,
    proven_only: bool = False,
    relax: bool = True,
) -> RankedAnswer:
    """Choose among measured strategies.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of one subject, measured in one environment; those without a sample are left out.
    budgets : Budgets
        No budget at all means: the best by the objective.
    constraints : Constraints, optional
    proven_only : bool
        Recommend nothing but what is proven, for callers that act on any recommendation.
    relax : bool
        Whether to look for relaxations, which takes several decisions.

    Returns
    -------
    RankedAnswer
        Each candidate is in exactly one of recommendation, within, near misses and excluded, but that a recommended
        near miss is in both. Where the recommendation is not proven, `relaxations` says which single change leads to
        one that is.

    Notes
    -----
    A candidate whose *estimate* misses a budget is a near miss. Where all do and it is neither proven nor likely that
    none keeps the budgets, the near miss of least loss is recommended, of those that keep them with a probability of at
    least 0.2. Of all others the recommendation is the one of least
    loss, log(latency) + cost_of_breaking * (1 - probability), so that a faster strategy is worth a risk and a small
    gain is not worth a large one. By latency, those equivalent to it are tied with it; ties are broken by probability,
    accuracy, fewer tiers, smaller models and fewer bytes sent, in this order. A changed model whose answers were not
    judged, and whose outputs are far from identity's or not compared with them, is chosen only where there is no other;
    one whose accuracy is not known is never chosen under a budget of accuracy.

    It is proven when every one-sided bound keeps within its budget, at a level that makes all that is said to be proven
    hold together (step-down, `judge_all`). Comparisons are simultaneous over all pairs of strategies that
    could be chosen, because which one is best was seen first.

    Examples
    --------
    >>> import numpy as np
    >>> from recommender.ranking import LatencyBudget
    >>> slow = Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.2),) * 3, inputs=30)
    >>> fast = Candidate("quantized", "mobile", ("mobile",), (np.full(30, 0.1),) * 3, inputs=30)
    >>> answer = recommend([slow, fast], Budgets(latency=(LatencyBudget(90, 0.15),)))
    >>> answer.recommendation.candidate.operator, round(answer.near_misses[0].latency[0].over_s, 3)
    ('quantized', 0.05)
    """
    measured = [candidate for candidate in candidates if candidate.samples]
    # Constraints first: an excluded strategy must neither be chosen nor count among those that hold together.
    admitted, excluded = _divided(measured, constraints)
    considered = [estimate(candidate, budgets.percentile) for candidate in admitted]
    placed = judge_all(considered, budgets)
    missed = sorted((item for item in placed if isinstance(item, NearMiss)), key=lambda near_miss: near_miss.distance)
    prospects = [item for item in placed if isinstance(item, Prospect)]
    prospects.sort(key=lambda prospect: (prospect.loss, _preference(prospect.estimate, budgets.objective)))
    proven = _best([prospect for prospect in prospects if prospect.status is Status.PROVEN], budgets, admitted)
    best = proven if proven_only else _best(prospects, budgets, admitted)
    within = tuple(prospect for prospect in prospects if prospect is not best)
    infeasible, infeasible_probability = (None, None) if prospects else _infeasible(missed, admitted, budgets)
    if infeasible is Status.OPEN and not proven_only:
        best = _best(_possible(missed, budgets), budgets, admitted)
    certain = best is not None and best.status is Status.PROVEN
    return RankedAnswer(
        budgets=budgets,
        recommendation=best,
        proven=None if proven is best else proven,
        within=within,
        alternatives=tuple(_alternatives(within, best, budgets, admitted)) if best else (),
        near_misses=tuple(missed),
        considered=tuple(considered),
        excluded=tuple(excluded),
        relaxations=()
        if certain or not relax
        else relaxations(
            measured,
            budgets,
            constraints,
            _Rules(measured, proven_only),
            # What misses a budget by its estimate is no answer that a proof alone would improve.
            answered=best is not None and best.miss is None,
        ),
        pareto=_pareto(considered),
        infeasible=infeasible,
        infeasible_probability=infeasible_probability,
    )


def _infeasible(
    missed: Sequence[NearMiss], admitted: Sequence[Candidate], budgets: Budgets
) -> tuple[Status | None, float | None]:
    """Say how sure it is that no candidate keeps the budgets, where no estimate does."""
    if not missed:
        return None, None
    chances = [near_miss.probability for near_miss in missed]
    stated = [chance for chance in chances if chance is not None]
    if len(stated) < len(chances):
        return Status.ESTIMATED, None
    # Strategies share rounds and inputs, so that they miss together more often than this says.
    together = math.prod(1 - chance for chance in stated)
    # It is wrong only if one certain candidate holds, whose own test then errs: no price for many.
    if all(
        miss_confidence(near_miss.estimate.candidate, budgets, among=admitted)
        >= with_share(budgets.confidence, near_miss.estimate.candidate.error_share)
        for near_miss in missed
    ):
        return Status.PROVEN, together
    return status_of(together), together


def _possible(missed: Sequence[NearMiss], budgets: Budgets) -> list[Prospect]:
    """Return the near misses that are not likely to break a budget; where all are, those least likely to."""
    least = min(1 - LIKELY_FROM, max(near_miss.probability or 0.0 for near_miss in missed))
    return [in_spite(near_miss, budgets) for near_miss in missed if (near_miss.probability or 0.0) >= least]


class _Rules:
    """This module's rules as `relaxations` applies them."""

    def __init__(self, measured: Sequence[Candidate], proven_only: bool) -> None:
        self._measured, self._proven_only = measured, proven_only
        self._last: tuple[Budgets, Constraints, Decision] | None = None

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """Return the candidates that the constraints admit."""
        return _divided(self._measured, constraints)[0]

    def decision(self, budgets: Budgets, constraints: Constraints) -> Decision:
        """Return what would be recommended, and how many candidates are proven."""
        # A limit is tried first and stepped from afterwards.
        if self._last is None or self._last[:2] != (budgets, constraints):
            self._last = budgets, constraints, self._decided(budgets, constraints)
        return self._last[2]

    def _decided(self, budgets: Budgets, constraints: Constraints) -> Decision:
        admitted = self.admitted(constraints)
        placed = judge_all([estimate(candidate, budgets.percentile) for candidate in admitted], budgets)
        prospects = [item for item in placed if isinstance(item, Prospect)]
        proven = [prospect for prospect in prospects if prospect.status is Status.PROVEN]
        return Decision(_best(proven if self._proven_only else prospects, budgets, admitted), len(proven))


def _divided(
    measured: Sequence[Candidate], constraints: Constraints
) -> tuple[list[Candidate], list[ExcludedCandidate]]:
    """Separate the candidates that may be chosen from those that may not."""
    if not constraints.any_set:
        return list(measured), []
    broken = {candidate: breaches(candidate, constraints) for candidate in measured}
    return (
        [candidate for candidate in measured if not broken[candidate]],
        [ExcludedCandidate(candidate, broken[candidate]) for candidate in measured if broken[candidate]],
    )


# Probabilities that differ by less than a percent are equal.
_SAME_PROBABILITY = 0.01


def _best(prospects: Sequence[Prospect], budgets: Budgets, among: Sequence[Candidate]) -> Prospect | None:
    """Choose the least loss; among those equivalent to it, by the declared rules.

    What may answer anything is last: how fast or small it is says nothing of its use.
    """
    estimated = [prospect for prospect in prospects if prospect.gap is None or prospect.gap.gap not in WITHOUT_ESTIMATE]
    # A faster strategy whose answers nothing vouches for must not win by default; alone it is still the answer.
    eligible = [prospect for prospect in estimated if not prospect.candidate.quality_open] or estimated
    if not eligible:
        return None
    least = min(eligible, key=lambda prospect: (prospect.loss, _preference(prospect.estimate, budgets.objective)))
    if budgets.objective != "latency":
        close = least.loss + _SAME_PROBABILITY * cost_of_breaking(budgets)
        tied = [prospect for prospect in eligible if prospect.loss <= close]
        return min(tied, key=lambda prospect: _preference(prospect.estimate, budgets.objective))
    # Ties are with the least loss, not with each other: "equivalent" is not transitive, and a chain could drift.
    tied = [prospect for prospect in eligible if _tied(prospect, least, budgets, _Compared(len(prospects), among))]
    return min(tied, key=_tie_break)


def _tied(prospect: Prospect, least: Prospect, budgets: Budgets, compared: "_Compared") -> bool:
    if prospect is least:
        return True
    ratio = math.log(prospect.estimate.percentile_s / least.estimate.percentile_s)
    # An interval inside the margin has its estimate inside: most pairs need no comparison.
    if abs(ratio) > math.log1p(budgets.equivalent_within):
        return False
    # All that could be chosen count, because which of them are eligible or least was decided after seeing them.
    comparison = compared.compare(prospect.estimate, least.estimate, budgets)
    return comparison.verdict is ComparisonOutcome.EQUIVALENT


def _alternatives(
    within: Sequence[Prospect], best: Prospect, budgets: Budgets, among: Sequence[Candidate]
) -> Iterator[Alternative]:
    """Yield the other proven strategies, compared with the fastest and with the best."""
    proven = [prospect for prospect in within if prospect.status is Status.PROVEN]
    fastest = min((best, *proven), key=lambda prospect: _preference(prospect.estimate, "latency"))
    mine, compared = best.candidate.accuracy, _Compared(len(proven) + 1, among)
    for prospect in proven:
        other = prospect.candidate.accuracy
        yield Alternative(
            prospect=prospect,
            latency_ratio=prospect.estimate.percentile_s / best.estimate.percentile_s,
            accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
            comparison=None if prospect is fastest else compared.compare(prospect.estimate, fastest.estimate, budgets),
            against_best=compared.compare(prospect.estimate, best.estimate, budgets),
        )


def _pareto(considered: Sequence[Estimate]) -> frozenset[Candidate]:
    """Return the Pareto front; agreement with identity is not a gain: it says how alike, not how right."""
    points = [
        (
            estimate.percentile_s,
            accuracy.accuracy_pct if (accuracy := estimate.candidate.accuracy) and accuracy.from_labels else None,
        )
        for estimate in considered
    ]
    return frozenset(considered[index].candidate for index in pareto_front(points))


@dataclass(frozen=True, eq=False)
class _Compared:
    """Comparisons of so many strategies that could be chosen, all of them measured among these candidates."""

    within: int
    among: Sequence[Candidate]

    def compare(self, one: Estimate, other: Estimate, budgets: Budgets) -> Comparison:
        """Compare simultaneously over all pairs that could be chosen: which one to compare was decided after that."""
        question = _question(budgets.percentile, budgets.equivalent_within, budgets.confidence)
        # All pairs, not those with the fastest alone: the fastest was found by looking.
        pairs = max(1, self.within * (self.within - 1) // 2)
        first, second = one.candidate, other.candidate
        # The interval depends on the number of pairs, and its variance on the others.
        key = ref(second), question, pairs, tuple(map(ref, self.among))
        return _comparisons.get(first, key, lambda: _compare(first, second, question, pairs, self.among))


@lru_cache(maxsize=64)
def _question(percentile: float, equivalent_within: float, confidence: float) -> Question:
    return Question(percentile, equivalent_within, confidence)


def _compare(
    first: Candidate, second: Candidate, question: Question, pairs: int, among: Sequence[Candidate]
) -> Comparison:
    variance = ratio_variance(first, second, among, question.percentile)
    comparison = compare(
        samples_of(first), samples_of(second), question, comparisons=pairs, variance=variance, rng=SEED
    )
    return widened(comparison, *(interval(candidate, question.percentile).estimate for candidate in (first, second)))


def _tie_break(prospect: Prospect) -> tuple[float, float, int, float, float, float]:
    """Order by the declared rules: probability, accuracy, fewer tiers, smaller, less sent; the faster one last."""
    candidate, probability = prospect.candidate, prospect.probability
    return (
        # Rounded: the others would never decide between 0.9998 and 0.9999.
        0.0 if probability is None else -round(probability / _SAME_PROBABILITY),
        # What is not known counts as worst, here and below.
        -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf,
        len(candidate.tiers),
        math.inf if candidate.size_bytes is None else candidate.size_bytes,
        math.inf if candidate.sent_bytes is None else candidate.sent_bytes,
        prospect.estimate.percentile_s,
    )


def _preference(estimate: Estimate, objective: Objective) -> tuple[float, float, float, int, float, str, str]:
    """Order by the objective, smaller first; names come last, so that exact ties break the same way each time."""
    candidate = estimate.candidate
    inaccuracy = -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    size = math.inf if candidate.size_bytes is None else candidate.size_bytes
    sent = math.inf if candidate.sent_bytes is None else candidate.sent_bytes
    cpu = math.inf if candidate.client_cpu_s is None else candidate.client_cpu_s
    first = {"latency": estimate.percentile_s, "accuracy": inaccuracy, "size": size, "sent": sent, "cpu": cpu}[
        objective
    ]
    return first, estimate.percentile_s, inaccuracy, len(candidate.tiers), size, candidate.operator, candidate.placement
