"""Declared strategies without a latency: what would measure them, and whether that could change the answer."""

from collections.abc import Iterator

from recommender.answer.wording import breach_words, cannot_show
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import DeclaredStrategy, SubjectEvidence
from recommender.ranking import (
    AccuracyMeasurement,
    Budgets,
    Candidate,
    Constraints,
    RankedAnswer,
    declared_breaches,
    shortfalls,
)
from recommender.ranking.model import Unit
from recommender.schemas import NotConsideredOut

_NO_BOUND = "nothing known rules it out: its latency is open"


def not_considered(
    subject_evidence: SubjectEvidence, answer: RankedAnswer, constraints: Constraints
) -> Iterator[NotConsideredOut]:
    """Yield every declared strategy without evidence, and whether its evidence could change the answer.

    It could become the recommendation unless one of these is known already:

    - its operator cannot apply to the subject;
    - a constraint excludes it by what is declared (tiers, operators, the size of its model files);
    - its accuracy is known, its own or the same operator's at another placement (the model is the same file), and
      misses an accuracy budget, or cannot promise it even if it were the only candidate;
    - the objective is accuracy or size, something is recommended, and the known accuracy or size is worse.

    A bound on its latency from parts measured elsewhere is not used: another tier, another load, no sound bound.
    """
    accuracies = _accuracies(subject_evidence)
    for strategy in subject_evidence.strategies:
        if strategy.candidate is None:
            accuracy = strategy.accuracy or accuracies.get(strategy.operator)
            excuse = _cannot_change(strategy, accuracy, answer, constraints)
            yield NotConsideredOut(
                operator=strategy.operator,
                placement=strategy.placement,
                reason=strategy.reason
                or ("not measured yet" if strategy.applicable else "the operator cannot apply here"),
                command=FILL_COMMAND if strategy.applicable else None,
                could_change_answer=excuse is None,
                because=excuse or _NO_BOUND,
            )


def _accuracies(subject_evidence: SubjectEvidence) -> dict[str, AccuracyMeasurement]:
    """Map operators to accuracies: an accuracy does not depend on where the model runs, up to rounding."""
    return {
        strategy.operator: strategy.accuracy
        for strategy in subject_evidence.strategies
        if strategy.accuracy is not None
    }


def _cannot_change(
    strategy: DeclaredStrategy, accuracy: AccuracyMeasurement | None, answer: RankedAnswer, constraints: Constraints
) -> str | None:
    if not strategy.applicable:
        return "the operator cannot apply to this subject"
    broken = declared_breaches(strategy.operator, strategy.tiers, strategy.model_bytes, constraints)
    if broken:
        return f"excluded by what is declared: {breach_words(broken[0])}"
    if accuracy is not None:
        excuse = _too_inaccurate(strategy, accuracy, answer.budgets) or _worse_accuracy(accuracy, answer)
        if excuse is not None:
            return excuse
    return _larger(strategy, answer)


def _too_inaccurate(strategy: DeclaredStrategy, accuracy: AccuracyMeasurement, budgets: Budgets) -> str | None:
    """Name an accuracy budget that the measured accuracy misses, or could not promise as the only candidate."""
    alone = Candidate(strategy.operator, strategy.placement, strategy.tiers, (), inputs=0, accuracy=accuracy)
    accuracy_budgets = Budgets(
        min_accuracy_pct=budgets.min_accuracy_pct,
        max_accuracy_drop_pp=budgets.max_accuracy_drop_pp,
        confidence=budgets.confidence,
    )
    for shortfall in shortfalls(alone, accuracy_budgets, among=[alone]):
        beyond = shortfall.bound_over if shortfall.bound_over is not None else shortfall.over
        if beyond is not None and beyond > 1e-9:
            what = f"{accuracy.metric} {accuracy.accuracy_pct:.2f} %"
            if shortfall.over is not None and shortfall.over > 1e-9:
                return f"its accuracy is known ({what}) and misses {shortfall.budget}"
            reason = f"its accuracy is known ({what}) and cannot promise {shortfall.budget}"
            if shortfall.out_of_reach and shortfall.items is not None and shortfall.best_bound is not None:
                unit: Unit = "%" if shortfall.budget == "min_accuracy_pct" else "pp"
                return f"{reason}: {cannot_show(shortfall.items, shortfall.best_bound, unit)}"
            return reason
    return None


def _worse_accuracy(accuracy: AccuracyMeasurement, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.accuracy if answer.recommendation else None
    if answer.budgets.objective == "accuracy" and best is not None and accuracy.accuracy_pct < best.accuracy_pct:
        return f"its accuracy is known ({accuracy.metric} {accuracy.accuracy_pct:.2f} %) and below the recommendation's"
    return None


def _larger(strategy: DeclaredStrategy, answer: RankedAnswer) -> str | None:
    best = answer.recommendation.candidate.size_bytes if answer.recommendation else None
    if answer.budgets.objective != "size" or best is None or strategy.model_bytes is None:
        return None
    larger = sum(strategy.model_bytes.values()) > best
    return "its model files are known and larger than the recommendation's" if larger else None
