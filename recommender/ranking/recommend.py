"""Evidence and budgets in, a ranked answer out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from catalog.statistics.comparison import Comparison, Question, compare
from catalog.statistics.feasibility import with_share
from catalog.statistics.outcomes import ComparisonOutcome
from recommender.ranking.candidates import (
    SEED,
    Candidate,
    Estimate,
    estimate,
    interval,
    ratio_variance,
    samples_of,
    widened,
)
from recommender.ranking.feasibility import Judgement, in_spite, judge
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
from recommender.ranking.prospects import CandidateTable, cost_of_breaking, labelled_accuracy, status_of, table_of
from recommender.ranking.relaxations import relaxations


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
    hold together (step-down, `Judgement`). Comparisons are simultaneous over all pairs of strategies that
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
    judged = judge(admitted, budgets)
    rows = [] if judged is None else _ordered(judged)
    placed = [] if judged is None else judged.places
    prospects = {row: prospect for row in rows if isinstance(prospect := placed[row], Prospect)}
    missed = sorted((item for item in placed if isinstance(item, NearMiss)), key=lambda near_miss: near_miss.distance)
    proven = _best(judged, [row for row in rows if prospects[row].status is Status.PROVEN])
    chosen = proven if proven_only else _best(judged, rows)
    best = None if chosen is None else prospects[chosen]
    infeasible, infeasible_probability = (
        (None, None) if rows or judged is None else _infeasible(judged, admitted, missed)
    )
    if infeasible is Status.OPEN and not proven_only and judged is not None:
        best = _best_risk(judged, placed)
    within = [row for row in rows if row != chosen]
    certain = best is not None and best.status is Status.PROVEN
    return RankedAnswer(
        budgets=budgets,
        recommendation=best,
        proven=None if proven is None or proven == chosen else prospects[proven],
        within=tuple([prospects[row] for row in within]),
        alternatives=()
        if chosen is None or judged is None
        else tuple(_alternatives(judged, within, chosen, prospects)),
        near_misses=tuple(missed),
        considered=tuple(item.estimate for item in placed),
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
        pareto=_pareto(admitted, budgets.percentile),
        infeasible=infeasible,
        infeasible_probability=infeasible_probability,
    )


def _infeasible(
    judged: Judgement, admitted: Sequence[Candidate], missed: Sequence[NearMiss]
) -> tuple[Status | None, float | None]:
    """Say how sure it is that no candidate keeps the budgets, where no estimate does."""
    chances = [near_miss.probability for near_miss in missed]
    stated = [chance for chance in chances if chance is not None]
    if len(stated) < len(chances):
        return Status.ESTIMATED, None
    # Strategies share rounds and inputs, so that they miss together more often than this says.
    together = math.prod(1 - chance for chance in stated)
    # It is wrong only if one certain candidate holds, whose own test then errs: no price for many.
    if all(
        judged.miss_confidence(row) >= with_share(judged.budgets.confidence, candidate.error_share)
        for row, candidate in enumerate(admitted)
    ):
        return Status.PROVEN, together
    return status_of(together), together


def _best_risk(judged: Judgement, placed: Sequence[Prospect | NearMiss]) -> Prospect | None:
    """Choose among the near misses that are not likely to break a budget; where all are, those least likely to."""
    missed = [item for item in placed if isinstance(item, NearMiss)]
    least = min(1 - LIKELY_FROM, max(near_miss.probability or 0.0 for near_miss in missed))
    possible = [row for row, near_miss in enumerate(missed) if (near_miss.probability or 0.0) >= least]
    possible.sort(key=lambda row: missed[row].distance)
    best = _best(judged, possible)
    return None if best is None else in_spite(missed[best], judged.loss[best])


class _Rules:
    """This module's rules as `relaxations` applies them."""

    def __init__(self, measured: Sequence[Candidate], proven_only: bool) -> None:
        self._measured, self._proven_only = measured, proven_only

    def admitted(self, constraints: Constraints) -> Sequence[Candidate]:
        """Return the candidates that the constraints admit."""
        return _divided(self._measured, constraints)[0]

    def decision(self, budgets: Budgets, constraints: Constraints) -> Prospect | None:
        """Return what would be recommended."""
        judged = judge(self.admitted(constraints), budgets)
        if judged is None:
            return None
        # Kept, because limits are tried at the bounds of candidates, whatever limit was asked.
        best = judged.table.kept(("best", budgets, self._proven_only), partial(self._best, judged))
        if best == _NONE:
            return None
        placed = judged.placed(best)
        return placed if isinstance(placed, Prospect) else None

    def _best(self, judged: Judgement) -> int:
        best = _best(judged, judged.proven if self._proven_only else judged.within)
        return _NONE if best is None else best


_NONE = -1


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


def _best(judged: Judgement | None, rows: Sequence[int]) -> int | None:
    """Choose the least loss; among those equivalent to it, by the declared rules.

    What may answer anything is last: how fast or small it is says nothing of its use.
    """
    if judged is None:
        return None
    budgets, loss, quality_open = judged.budgets, judged.loss, judged.table.quality_open
    estimated = [row for row in rows if judged.gap[row] not in WITHOUT_ESTIMATE]
    # A faster strategy whose answers nothing vouches for must not win by default; alone it is still the answer.
    eligible = [row for row in estimated if not quality_open[row]] or estimated
    if not eligible:
        return None
    order = _preferences(judged.table, budgets.objective, budgets.percentile)
    least = min(eligible, key=lambda row: (loss[row], order[row]))
    if budgets.objective != "latency":
        close = loss[least] + _SAME_PROBABILITY * cost_of_breaking(budgets)
        return min((row for row in eligible if loss[row] <= close), key=lambda row: order[row])
    # Ties are with the least loss, not with each other: "equivalent" is not transitive, and a chain could drift.
    compared = _Compared(len(rows), judged.table)
    tied = [row for row in eligible if row == least or _tied(judged, row, least, compared)]
    if len(tied) == 1:
        return least
    ties = _ties(judged.table, budgets.percentile)
    return min(tied, key=lambda row: (_probability_step(judged.chance[row]), ties[row]))


def _tied(judged: Judgement, row: int, least: int, compared: "_Compared") -> bool:
    budgets = judged.budgets
    estimate_s = judged.table.latency(budgets.percentile).estimate_s
    ratio = math.log(estimate_s[row] / estimate_s[least])
    # An interval inside the margin has its estimate inside: most pairs need no comparison.
    if abs(ratio) > math.log1p(budgets.equivalent_within):
        return False
    # All that could be chosen count, because which of them are eligible or least was decided after seeing them.
    comparison = compared.compare(row, least, budgets)
    return comparison.verdict is ComparisonOutcome.EQUIVALENT


def _ordered(judged: Judgement) -> list[int]:
    """Return the candidates within the budgets by loss, then by the objective."""
    budgets, loss = judged.budgets, judged.loss
    order = _preferences(judged.table, budgets.objective, budgets.percentile)
    return sorted(judged.within, key=lambda row: (loss[row], order[row]))


def _preferences(table: CandidateTable, objective: Objective, percentile: float) -> Sequence[int]:
    """Return the place of each candidate by an objective alone; equal ones share a place."""

    def places() -> Sequence[int]:
        keys = [_preference(estimate(candidate, percentile), objective) for candidate in table.candidates]
        by_key = {key: place for place, key in enumerate(sorted(set(keys)))}
        return [by_key[key] for key in keys]

    return table.column(("preference", objective, percentile), places)


def _ties(table: CandidateTable, percentile: float) -> Sequence[tuple[float, ...]]:
    return table.column(
        ("ties", percentile), lambda: [_tie_break(estimate(candidate, percentile)) for candidate in table.candidates]
    )


def _alternatives(
    judged: Judgement, within: Sequence[int], chosen: int, prospects: Mapping[int, Prospect]
) -> Iterator[Alternative]:
    """Yield the other proven strategies, compared with the fastest and with the best."""
    budgets, table, best = judged.budgets, judged.table, prospects[chosen]
    proven = [row for row in within if judged.status[row] is Status.PROVEN]
    order = _preferences(table, "latency", budgets.percentile)
    fastest = min((chosen, *proven), key=lambda row: order[row])
    mine, compared = best.candidate.accuracy, _Compared(len(proven) + 1, table)
    for row in proven:
        prospect = prospects[row]
        other = prospect.candidate.accuracy
        yield Alternative(
            prospect=prospect,
            latency_ratio=prospect.estimate.percentile_s / best.estimate.percentile_s,
            accuracy_difference_pp=other.accuracy_pct - mine.accuracy_pct if mine and other else None,
            comparison=None if row == fastest else compared.compare(row, fastest, budgets),
            against_best=compared.compare(row, chosen, budgets),
        )


def _pareto(candidates: Sequence[Candidate], percentile: float) -> frozenset[Candidate]:
    """Return the Pareto front; agreement with identity is not a gain: it says how alike, not how right."""
    if not candidates:
        return frozenset()
    table = table_of(candidates)

    def front() -> Sequence[int]:
        accuracies = [labelled_accuracy(candidate) for candidate in candidates]
        gains = [None if accuracy is None else accuracy.accuracy_pct for accuracy in accuracies]
        return sorted(pareto_front(list(zip(table.latency(percentile).estimate_s, gains, strict=True))))

    return frozenset(candidates[row] for row in table.column(("pareto", percentile), front))


class _Compared(NamedTuple):
    """Comparisons of so many strategies that could be chosen, all of them measured among those of the table."""

    within: int
    table: CandidateTable

    def compare(self, row: int, other: int, budgets: Budgets) -> Comparison:
        """Compare simultaneously over all pairs that could be chosen: which one to compare was decided after that."""
        # All pairs, not those with the fastest alone: the fastest was found by looking.
        pairs = max(1, self.within * (self.within - 1) // 2)
        # The interval depends on the number of pairs, and its variance on the others.
        key = row, other, pairs, budgets.percentile, budgets.equivalent_within, budgets.confidence

        def compared() -> Comparison:
            question = Question(budgets.percentile, budgets.equivalent_within, budgets.confidence)
            candidates = self.table.candidates
            return _compare(candidates[row], candidates[other], question, pairs, candidates)

        return self.table.comparison(key, compared)


def _compare(
    first: Candidate, second: Candidate, question: Question, pairs: int, among: Sequence[Candidate]
) -> Comparison:
    variance = ratio_variance(first, second, among, question.percentile)
    comparison = compare(
        samples_of(first), samples_of(second), question, comparisons=pairs, variance=variance, rng=SEED
    )
    return widened(comparison, *(interval(candidate, question.percentile).estimate for candidate in (first, second)))


def _probability_step(probability: float | None) -> float:
    # Rounded: the other rules would never decide between 0.9998 and 0.9999.
    return 0.0 if probability is None else -round(probability / _SAME_PROBABILITY)


def _tie_break(estimate: Estimate) -> tuple[float, int, float, float, float]:
    """Order by the declared rules after probability: accuracy, fewer tiers, smaller, less sent; the faster one last."""
    candidate = estimate.candidate
    return (
        # What is not known counts as worst, here and below.
        -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf,
        len(candidate.tiers),
        math.inf if candidate.size_bytes is None else candidate.size_bytes,
        math.inf if candidate.sent_bytes is None else candidate.sent_bytes,
        estimate.percentile_s,
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
