"""What is known of one candidate beside its budgets.

How probable it is that all of them hold, what choosing it would lose, and what bounds those of accuracy, or lacks.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.drops import AccuracyDrop, no_drop
from catalog.statistics.feasibility import BudgetCheck, confidence_below, drop_within, floor_from_drop, hits_at_least
from catalog.statistics.intervals import IntervalRefusal
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.posterior import (
    drop_probability,
    joint_probability,
    latency_probability,
    share_probability,
)
from recommender.ranking.candidates import AccuracyMeasurement, Candidate, CandidateCache, Estimate
from recommender.ranking.model import LIKELY_FROM, Budgets, Gap, Objective, Status

# An estimate within a budget that nothing is known of: the truth is as often above an estimate as below it.
_UNKNOWN = 0.5
# A broken budget costs log 2 by default; for the objective accuracy that is two percentage points.
_POINTS_PER_COST = 2 / math.log(2)
# The mean of three rounds of 0.1 s is not quite 0.1 s and must not miss a budget of 0.1 s.
LATENCY_SLACK = 1e-12


def drop_of(candidate: Candidate) -> AccuracyDrop | None:
    """Return what a candidate loses against identity; None where nothing bounds it.

    What computes what identity computes loses nothing, whether items were compared or not.
    """
    accuracy = labelled_accuracy(candidate)
    if accuracy is not None and accuracy.drop is not None:
        return accuracy.drop
    if candidate.changed:
        return None
    return no_drop(accuracy.items if accuracy is not None else 0, confidence_level=0.95, comparisons=1, counted=False)


def labelled_accuracy(candidate: Candidate) -> AccuracyMeasurement | None:
    """Return the accuracy that an accuracy budget can be compared with."""
    accuracy = candidate.accuracy
    return accuracy if accuracy is not None and accuracy.from_labels else None


def latency_chance(
    estimates: Sequence[LogEstimate | None],
    logarithms: Sequence[float],
    correlation: NDArray[np.float64] | None = None,
) -> float | None:
    """Return how probable it is that a candidate keeps its budgets of latency.

    Parameters
    ----------
    estimates : sequence of LogEstimate or None
        For each budget, with the variances to decide by.
    logarithms : sequence of float
        Of the budgets (`log_limits`).
    correlation : float array, shape (budgets, budgets), optional
        Of the errors of the percentiles; without it the least probability counts.

    Returns
    -------
    float or None
        None where the evidence says nothing of how far an estimate may be off, and 1 without a budget.
    """
    stated = [
        latency_probability(estimate, logarithm)
        for estimate, logarithm in zip(estimates, logarithms, strict=True)
        if estimate is not None
    ]
    if len(stated) < len(estimates):
        return None
    if correlation is not None and len(stated) > 1:
        return joint_probability(stated, correlation)
    return min(stated, default=1.0)


def log_limits(budgets: Budgets) -> list[float]:
    """Return the logarithms of the budgets of latency, with room for rounding."""
    return [math.log(budget.max_s * (1 + LATENCY_SLACK)) for budget in budgets.latency]


def accuracy_chance(candidate: Candidate, budgets: Budgets) -> float | None:
    """Return how probable it is that a candidate keeps its budgets of accuracy.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets

    Returns
    -------
    float or None
        None where the evidence says nothing of it, and 1 without such a budget.

    Notes
    -----
    A floor and a drop of one accuracy rise and fall together: the less probable one counts, which is the largest that
    the probability of both can be.
    """
    of_accuracy: list[float | None] = []
    if budgets.min_accuracy_pct is not None:
        of_accuracy.append(_floor_probability(labelled_accuracy(candidate), budgets.min_accuracy_pct))
    if budgets.max_accuracy_drop_pp is not None:
        drop = drop_of(candidate)
        of_accuracy.append(None if drop is None else drop_probability(drop, budgets.max_accuracy_drop_pp))
    return _least(of_accuracy)


def _least(probabilities: Sequence[float | None]) -> float | None:
    stated = [value for value in probabilities if value is not None]
    return None if len(stated) < len(probabilities) else min(stated, default=1.0)


def _floor_probability(accuracy: AccuracyMeasurement | None, floor: float) -> float | None:
    if accuracy is None:
        return None
    if accuracy.hits is not None:
        return share_probability(int(accuracy.hits.sum()), accuracy.hits.size, floor / 100)
    # The accuracy is 100 less the drop against a reference without error.
    return None if accuracy.short is None else drop_probability(accuracy.short, 100 - floor)


def status_of(probability: float | None) -> Status:
    """Return the status of a strategy that is not proven."""
    if probability is None:
        return Status.ESTIMATED
    return Status.LIKELY if probability >= LIKELY_FROM else Status.OPEN


def risk(probability: float | None, budgets: Budgets) -> float:
    """Return what the risk of a broken budget costs, which a choice adds to its objective (`objective_loss`).

    Parameters
    ----------
    probability : float or None
        That all budgets hold; None counts as one half.
    budgets : Budgets

    Returns
    -------
    float
        On the scale of a logarithm, so that 10 % slower is as bad for 5 ms as for 5 s; in percentage points for the
        objective accuracy.
    """
    return (1 - (_UNKNOWN if probability is None else probability)) * cost_of_breaking(budgets)


def cost_of_breaking(budgets: Budgets) -> float:
    """Return what a broken budget costs on the scale of the loss."""
    return budgets.cost_of_breaking * (_POINTS_PER_COST if budgets.objective == "accuracy" else 1.0)


def objective_loss(estimate: Estimate, objective: Objective) -> float:
    """Return the objective as a choice weighs it; infinite where it was not measured."""
    candidate = estimate.candidate
    if objective == "latency":
        return math.log(estimate.percentile_s)
    if objective == "accuracy":
        return -candidate.accuracy.accuracy_pct if candidate.accuracy else math.inf
    amount = {"size": candidate.size_bytes, "sent": candidate.sent_bytes, "cpu": candidate.client_cpu_s}[objective]
    if amount is None:
        return math.inf
    # What computes where the request starts sends nothing, and 0 has no logarithm; a microsecond more costs nothing.
    return math.log(amount + (1e-6 if objective == "cpu" else 1.0))


class MissingEvidence(NamedTuple):
    """What has to be measured of a candidate before any bound can be given."""

    gap: Gap
    percentile: float | None = None
    inputs_needed: int | None = None
    refusal: IntervalRefusal | None = None


def missing_accuracy(candidate: Candidate, budgets: Budgets) -> MissingEvidence | None:
    """Return what lacks before the budgets of accuracy can be judged."""
    accuracy, floor = labelled_accuracy(candidate), budgets.min_accuracy_pct
    without_drop = budgets.max_accuracy_drop_pp is not None and drop_of(candidate) is None
    if accuracy is None and (floor is not None or without_drop):
        return MissingEvidence(Gap.ACCURACY_MISSING)
    if accuracy is not None and without_drop:
        return MissingEvidence(Gap.DROP_MISSING if accuracy.drop_pp is None else Gap.ITEMS_MISSING)
    if accuracy is not None and floor is not None and accuracy.hits is None and accuracy.short is None:
        return MissingEvidence(Gap.ITEMS_MISSING)
    if accuracy is not None and (refused := _refusal(accuracy, budgets)) is not None:
        return MissingEvidence(Gap.TOO_FEW_IMAGES, refusal=refused)
    return None


def _refusal(accuracy: AccuracyMeasurement, budgets: Budgets) -> IntervalRefusal | None:
    """Return why the images give no bound for an accuracy budget of the question."""
    drops = (
        accuracy.short if budgets.min_accuracy_pct is not None and accuracy.hits is None else None,
        accuracy.drop if budgets.max_accuracy_drop_pp is not None else None,
    )
    return next((drop.refusal for drop in drops if drop is not None and drop.refusal is not None), None)


_accuracy_checks: CandidateCache[tuple[BudgetCheck | None, ...]] = CandidateCache()


def accuracy_checks(candidate: Candidate, budgets: Budgets) -> tuple[BudgetCheck | None, ...]:
    """Check the budgets of accuracy, the floor first, each at some level; None where items are missing.

    Parameters
    ----------
    candidate : Candidate
    budgets : Budgets

    Returns
    -------
    tuple of BudgetCheck or None
        One for each budget of accuracy that the question sets.
    """
    floor, most = budgets.min_accuracy_pct, budgets.max_accuracy_drop_pp
    if floor is None and most is None:
        return ()
    # At the level that an answer mostly needs, because another one takes a copy.
    key = floor, most, budgets.confidence
    return _accuracy_checks.get(candidate, key, lambda: _check_accuracy(candidate, *key))


def _check_accuracy(
    candidate: Candidate, floor: float | None, most: float | None, level: float
) -> tuple[BudgetCheck | None, ...]:
    checks: list[BudgetCheck | None] = []
    if floor is not None:
        accuracy = labelled_accuracy(candidate)
        has_items = accuracy is not None and (accuracy.hits is not None or accuracy.short is not None)
        checks.append(_floor_within(accuracy, floor).at(level) if accuracy is not None and has_items else None)
    if most is not None:
        drop = drop_of(candidate)
        checks.append(None if drop is None else drop_within(drop, most).at(level))
    return tuple(checks)


def below_floor(accuracy: AccuracyMeasurement, floor: float) -> float:
    """Return the largest level at which an accuracy is shown to be below a floor."""
    if accuracy.hits is not None:
        return confidence_below(floor / 100, int(accuracy.hits.sum()), accuracy.hits.size)
    return 0.0 if accuracy.short is None else accuracy.short.confidence_above(100 - floor)


def _floor_within(accuracy: AccuracyMeasurement, floor: float) -> BudgetCheck:
    """Check a floor by what is known of the accuracy: hits, or the drop against a flawless reference."""
    if accuracy.hits is not None:
        return hits_at_least(accuracy.hits, floor)
    assert accuracy.short is not None
    return floor_from_drop(accuracy.short, floor)
