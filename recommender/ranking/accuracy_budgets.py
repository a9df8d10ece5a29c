"""Budgets of accuracy beside what is known of one candidate."""

from typing import NamedTuple

from catalog.statistics.feasibility import BudgetCheck, confidence_below, drop_within, floor_from_drop, hits_at_least
from catalog.statistics.intervals import IntervalRefusal
from recommender.ranking.candidates import AccuracyMeasurement, Candidate, CandidateCache
from recommender.ranking.model import Budgets, Gap
from recommender.ranking.prospects import drop_of, labelled_accuracy


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
