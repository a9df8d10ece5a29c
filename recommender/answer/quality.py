"""Words about the quality of a strategy's answers, to stand beside its name."""

from collections.abc import Iterable, Iterator

from catalog.output_distance import OutputDistance, grouped
from catalog.units import counted
from recommender.ranking import Candidate, Estimate, RankedAnswer

# Less than this the sentence would print as 0.00 pp.
_LEAST_DROP_PP = 0.005


def quality_note(answer: RankedAnswer) -> str | None:
    """Return what must be known of the recommended strategy's answers; None for those that are identity's.

    A drop is mentioned where the question has no accuracy budget: with one, it is within the limit. That an accuracy
    says nothing is mentioned for identity too.
    """
    if answer.recommendation is None:
        return None
    chosen = answer.recommendation.candidate
    if not chosen.changed:
        return None if chosen.accuracy is None else chosen.accuracy.remark
    if chosen.accuracy is None or chosen.quality_open:
        return doubt(chosen)
    notes = [] if chosen.distance is None or not chosen.distance.is_large else [distance_words(chosen.distance)]
    if not chosen.accuracy.from_labels:
        alike = f"{chosen.accuracy.accuracy_pct:.2f} % of {counted(chosen.accuracy.items, 'item')}"
        notes.insert(0, f"it answers as identity does in {alike}; how many answers are right was not measured")
    elif _no_accuracy_budget(answer):
        notes = [*_drop(chosen), *notes]
    return "; ".join(filter(None, (*notes, chosen.accuracy.remark))) or None


def passed_over(answer: RankedAnswer) -> Estimate | None:
    """Return the strategy that was not chosen only because nothing says that its answers are of any use."""
    best = answer.recommendation
    # For any other objective, a faster strategy does not call the choice into question.
    if best is None or best.candidate.quality_open or answer.budgets.objective != "latency":
        return None
    quicker = [
        prospect.estimate
        for prospect in answer.within
        if prospect.candidate.quality_open and prospect.estimate.percentile_s < best.estimate.percentile_s
    ]
    return min(quicker, key=lambda estimate: estimate.percentile_s, default=None)


def output_warnings(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Name the operators whose outputs are far from identity's, whatever its accuracy; then those not compared."""
    changed = [candidate for candidate in candidates if candidate.changed]
    # By operator: placements share the artifact whose outputs were compared.
    distances = {candidate.operator: candidate.distance for candidate in changed}
    yield from grouped(
        {
            operator: distance_words(distance)
            for operator, distance in distances.items()
            if distance is not None and distance.is_large
        }
    )
    unknown = dict.fromkeys(
        candidate.operator for candidate in changed if candidate.accuracy is None and candidate.distance is None
    )
    if unknown:
        yield (
            f"nothing was measured of the answers of {', '.join(unknown)}: neither an accuracy nor how far the outputs "
            "are from identity's, which is measured when an artifact is built"
        )


def doubt(candidate: Candidate) -> str:
    """Return why nothing says that the answers of a changed model are of any use."""
    distance, accuracy = distance_words(candidate.distance), candidate.accuracy
    if accuracy is not None and accuracy.remark is not None:
        return f"{accuracy.remark}, and {distance}"
    return f"nothing was measured of the quality of its answers: {distance}"


def distance_words(distance: OutputDistance | None) -> str:
    """Return how far outputs are from identity's, as a clause."""
    if distance is None:
        return "how far its outputs are from identity's is not known"
    alike = distance.agreement
    if alike is None:
        return distance.in_words
    low, high = f"{100 * alike.low:.0f}", f"{100 * alike.high:.0f}"
    return f"{distance.in_words}, the same first class in {alike.agreeing} of {alike.items} ({low} to {high} %)"


def _no_accuracy_budget(answer: RankedAnswer) -> bool:
    return answer.budgets.min_accuracy_pct is None and answer.budgets.max_accuracy_drop_pp is None


def _drop(chosen: Candidate) -> list[str]:
    accuracy = chosen.accuracy
    if accuracy is None:
        return []
    if accuracy.drop_pp is None:
        return ["its drop of accuracy against identity is not known"]
    if accuracy.drop_pp < _LEAST_DROP_PP:
        return []
    return [f"it loses {accuracy.drop_pp:.2f} pp of {accuracy.metric} against identity; no accuracy budget was asked"]
