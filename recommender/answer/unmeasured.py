"""Declared strategies without a latency: what would measure them, and whether that could change the answer."""

from collections.abc import Iterator

from recommender.answer.wording import breach_words, cannot_show
from recommender.errors import FILL_COMMAND
from recommender.evidence.model import Known, SubjectEvidence
from recommender.ranking import Accuracy, Answer, Budgets, Candidate, Constraints, declared_breaches, shortfalls
from recommender.ranking.model import Unit
from recommender.schemas import NotConsideredOut

_NO_BOUND = "nothing known rules it out: its latency is open"


def not_considered(part: SubjectEvidence, answer: Answer, constraints: Constraints) -> Iterator[NotConsideredOut]:
    """Every declared strategy without evidence, each with the verdict of `could_change`.

    It could become the recommendation unless one of these is known already:

    - its operator cannot apply to the subject;
    - a constraint excludes it by what is declared (tiers, operators, the size of its model files);
    - its accuracy is known, its own or the same operator's at another placement (the model is the same file), and
      misses an accuracy budget, or cannot promise it even if it were the only candidate;
    - the objective is accuracy or size, something is recommended, and the known accuracy or size is worse.

    A bound on its latency from parts measured elsewhere is not used: another tier, another load, no sound bound.
    """
    accuracies = _accuracies(part)
    for known in part.strategies:
        if known.candidate is None:
            accuracy = known.accuracy or accuracies.get(known.operator)
            excuse = _cannot_change(known, accuracy, answer, constraints)
            yield NotConsideredOut(
                operator=known.operator,
                placement=known.placement,
                reason=known.reason or ("not measured yet" if known.applicable else "the operator cannot apply here"),
                command=FILL_COMMAND if known.applicable else None,
                could_change_answer=excuse is None,
                because=excuse or _NO_BOUND,
            )


def _accuracies(part: SubjectEvidence) -> dict[str, Accuracy]:
    """One per operator: accuracy does not depend on where the same model runs, up to rounding of the provider."""
    return {known.operator: known.accuracy for known in part.strategies if known.accuracy is not None}


def _cannot_change(known: Known, accuracy: Accuracy | None, answer: Answer, constraints: Constraints) -> str | None:
    if not known.applicable:
        return "the operator cannot apply to this subject"
    broken = declared_breaches(known.operator, known.tiers, known.model_bytes, constraints)
    if broken:
        return f"excluded by what is declared: {breach_words(broken[0])}"
    if accuracy is not None:
        found = _too_inaccurate(known, accuracy, answer.budgets) or _worse_accuracy(accuracy, answer)
        if found is not None:
            return found
    return _larger(known, answer)


def _too_inaccurate(known: Known, accuracy: Accuracy, budgets: Budgets) -> str | None:
    """An accuracy budget that its known accuracy misses, or could not promise as the only candidate."""
    alone = Candidate(known.operator, known.placement, known.tiers, (), inputs=0, accuracy=accuracy)
    asked = Budgets(
        min_accuracy_pct=budgets.min_accuracy_pct,
        max_accuracy_drop_pp=budgets.max_accuracy_drop_pp,
        confidence=budgets.confidence,
    )
    for shortfall in shortfalls(alone, asked, among=[alone]):
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


def _worse_accuracy(accuracy: Accuracy, answer: Answer) -> str | None:
    best = answer.recommendation.candidate.accuracy if answer.recommendation else None
    if answer.budgets.objective == "accuracy" and best is not None and accuracy.accuracy_pct < best.accuracy_pct:
        return f"its accuracy is known ({accuracy.metric} {accuracy.accuracy_pct:.2f} %) and below the recommendation's"
    return None


def _larger(known: Known, answer: Answer) -> str | None:
    best = answer.recommendation.candidate.size_bytes if answer.recommendation else None
    if answer.budgets.objective != "size" or best is None or known.model_bytes is None:
        return None
    larger = sum(known.model_bytes.values()) > best
    return "its model files are known and larger than the recommendation's" if larger else None
