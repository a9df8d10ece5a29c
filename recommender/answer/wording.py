"""The words for an answer's numbers: one sentence each, the same over HTTP and in the terminal.

Beside the name of a strategy stand words about the quality of its answers.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from catalog.artifact_details import OutputDistance, grouped
from catalog.statistics.feasibility import BudgetCheck
from catalog.units import counted, duration, duration_beside, limit_duration, size
from recommender.ranking import (
    Breach,
    Candidate,
    Change,
    Estimate,
    Gap,
    NearMiss,
    RankedAnswer,
    Relaxation,
    UndecidedCandidate,
)
from recommender.ranking.candidates import CandidateCache
from recommender.ranking.model import Status, Unit


def percentile_name(percentile: float) -> str:
    """Return `p90` or `p99.9`."""
    return f"p{percentile:g}"


def strategy_name(candidate: Candidate) -> str:
    """Return a name such as `quantized on edge`."""
    return f"{candidate.operator} on {candidate.placement}"


def how_sure(status: str, probability: float | None) -> str:
    """Return a status with its probability, the same words everywhere.

    Examples
    --------
    >>> how_sure("proven", 0.9999), how_sure("likely", 0.9749), how_sure("open", 0.6), how_sure("estimated", None)
    ('proven', 'likely, 97 %', 'open, 60 %', 'estimated')
    """
    return status if status in ("proven", "estimated") or probability is None else f"{status}, {chance(probability)}"


def chance(probability: float) -> str:
    """Return a probability in percent, rounded down: no estimate is a certainty.

    Examples
    --------
    >>> chance(0.7999), chance(0.9974), chance(0.99999), chance(0.004)
    ('79 %', '99.7 %', '> 99.9 %', '< 1 %')
    """
    if probability > 0.999:
        return "> 99.9 %"
    if probability < 0.01:
        return "< 1 %"
    # A last bit below a whole number must not cost a percent.
    whole = math.floor(100 * probability + 1e-9)
    return f"{whole} %" if whole < 99 else f"{math.floor(1000 * probability + 1e-9) / 10:.1f} %"


def prediction_note(candidate: Candidate) -> str:
    """Return a clause to follow why it was chosen; empty for a measured one."""
    foresight = candidate.predicted
    if foresight is None:
        return ""
    several = f"{foresight.settings} measured bandwidths" if foresight.settings > 1 else "one measured bandwidth"
    return f"; its latency is predicted from {several} of {' and '.join(foresight.links)}, not measured"


def lacks(miss: NearMiss) -> Iterator[str]:
    """Yield one phrase per budget that the strategy misses, ready to follow its name."""
    for late in miss.latency:
        got_s, max_s = late.got_s, late.budget.max_s
        measured = f"{_source(miss.estimate)} {percentile_name(late.budget.percentile)}"
        yield f"has a {measured} of {duration_beside(got_s, max_s)}, {over(got_s, max_s)}{limit_duration(max_s)}"
    accuracy = miss.estimate.candidate.accuracy
    if accuracy is not None and miss.accuracy_short_pp is not None:
        # A near miss stores its distance from the budget; the budget follows from it.
        floor = accuracy.accuracy_pct + miss.accuracy_short_pp
        yield (
            f"is {in_points(miss.accuracy_short_pp)} short of {accuracy.metric} >= {floor:.2f} % "
            f"(measured {accuracy.accuracy_pct:.2f} %)"
        )
    if accuracy is not None and accuracy.drop_pp is not None and miss.drop_over_pp is not None:
        allowed = accuracy.drop_pp - miss.drop_over_pp
        yield (
            f"drops {in_points(accuracy.drop_pp)} of {accuracy.metric} against identity, "
            f"{in_points(miss.drop_over_pp)} more than the {in_points(allowed)} allowed"
        )


def over(value: float, limit: float) -> str:
    """Say by how much a value is over a limit, for the limit to follow.

    Examples
    --------
    >>> over(13.02, 13), over(14, 10), over(30, 10)
    ('0.15 % over ', '40 % over ', '3 times the budget of ')
    """
    share = value / limit - 1
    # From twice as much on, people count in times.
    return f"{100 * share:.2g} % over " if share < 0.995 else f"{share + 1:.3g} times the budget of "


def _source(estimate: Estimate) -> str:
    return "measured" if estimate.candidate.predicted is None else "predicted"


# Why budgets of accuracy are not proven.
_of_items: CandidateCache[str] = CandidateCache()


def undecided_reason(gap: UndecidedCandidate) -> str:
    """Say why nothing can be promised about this candidate."""
    candidate = gap.estimate.candidate
    if gap.gap is Gap.TOO_THIN and gap.percentile is not None:
        return (
            f"too thin: a bound on {percentile_name(gap.percentile)} needs at least {gap.inputs_needed} inputs, "
            f"measured were {gap.estimate.interval.inputs}"
        )
    if gap.gap is Gap.ONE_ROUND:
        return "measured in one round alone: one round describes and does not decide, at least 2 are needed"
    if gap.gap is Gap.UNPROVEN and (check := gap.check) is not None:
        if check.items is None:
            return _unproven(check, gap.unit)
        # The same at every budget of latency.
        return _of_items.get(candidate, (gap.unit, check.limit, check.level), lambda: _unproven(check, gap.unit))
    if gap.gap is Gap.TOO_FEW_IMAGES and gap.refusal is not None:
        return f"too few images to bound its mean intersection over union: {gap.refusal.reason}"
    if gap.gap is Gap.BY_MODEL and gap.percentile is not None:
        return f"its {percentile_name(gap.percentile)} is inferred by the model, not measured: {gap.reason}"
    if gap.miss is not None:
        return f"its estimates miss a budget: it {join(list(lacks(gap.miss)))}"
    if gap.gap is Gap.ITEMS_MISSING:
        return "its accuracy is known as a number only; without its items no bound can be given"
    if gap.gap is Gap.DROP_MISSING:
        return "its accuracy is known, but identity's is not, so its drop cannot be computed"
    if candidate.accuracy is not None and not candidate.accuracy.from_labels:
        return "it has no accuracy: agreement with identity, measured without labels, holds no accuracy budget"
    return candidate.accuracy_missing or "its accuracy has not been measured"


def _unproven(check: BudgetCheck, unit: Unit) -> str:
    """Explain an estimate within the budget whose bound is beyond it."""
    if check.out_of_reach and check.items is not None and check.best_bound is not None:
        best = "all are right" if unit == "%" else "none is lost"
        return f"{cannot_show(check.items, check.best_bound, unit)}, even if {best}"

    def show(value: float) -> str:
        return duration(value) if unit == "s" else f"{value:.2f} {unit}"

    bound = "unknown" if check.bound is None else show(check.bound)
    what = {"s": "estimate", "%": "accuracy", "pp": "drop"}[unit]
    return (
        f"the {what} of {show(check.estimate)} is within the budget of {show(check.limit)}, but its bound at the joint "
        f"confidence, {bound}, is not (on its own the budget holds with confidence {check.confidence:.3f})"
    )


def cannot_show(items: int, best_bound: float, unit: Unit) -> str:
    """Say what so few items leave open at the level in use, even where none is lost.

    Examples
    --------
    >>> cannot_show(83, 3.54, "pp")
    '83 items cannot show a drop below 3.5 pp at the joint confidence'
    """
    what = "an accuracy above" if unit == "%" else "a drop below"
    figure = f"{best_bound:.2f}" if unit == "%" else f"{best_bound:.1f}" if best_bound >= 1 else f"{best_bound:.2g}"
    return f"{counted(items, 'item')} cannot show {what} {figure} {unit} at the joint confidence"


def in_points(value: float) -> str:
    """Return `0.45 pp`."""
    return f"{value:.2f} pp"


def join(phrases: list[str]) -> str:
    """Join phrases as `a, b and c`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def breach_words(breach: Breach) -> str:
    """Say why one constraint excludes a strategy."""
    name = breach.name
    match breach.constraint:
        case "allow_tiers":
            return f"it computes on {name}, which is not an allowed tier"
        case "forbid_tiers":
            return f"it computes on {name}, a forbidden tier"
        case "allow_operators":
            return f"{name} is not an allowed operator"
        case "forbid_operators":
            return f"{name} is a forbidden operator"
        case "keep_raw_input_on":
            return f"its first part computes on {name}, so the raw input would leave the tier it must stay on"
    what = {
        "max_memory_bytes": f"its peak memory on {name}",
        "max_model_bytes": f"the size of its model files on {name}",
        "max_sent_bytes": "what it sends per inference",
    }[breach.constraint]
    limit = size(breach.limit or 0)
    if breach.got is None:
        return f"{what} is not known, and a limit of {limit} is set"
    return f"{what}, {size(breach.got)}, is over the limit of {limit}"


def reasons(breaches: Sequence[Breach]) -> str:
    """Join all breaches in one phrase."""
    return "; ".join(breach_words(breach) for breach in breaches)


def relaxation_words(relaxation: Relaxation) -> str:
    """Return a phrase such as `the p90 budget from 5 ms to 21.3 ms gives quantized on edge`.

    How sure that strategy then is follows in parentheses, unless it is proven.
    """
    change, gives = relaxation.change, relaxation.gives
    sure = "" if gives.status is Status.PROVEN else f" ({how_sure(gives.status, gives.probability)})"
    name = f"{strategy_name(gives.candidate)}{sure}"
    if change.after is None:
        return f"without {_limit(change)} ({_value(change, change.before)}) it is {name}"
    return f"{_limit(change)} from {_value(change, change.before)} to {_value(change, change.after)} gives {name}"


# The fields of a question in words: a reader of the answer asked with an option, in a page or in a file.
_LIMITS = {
    "min_accuracy_pct": "the least accuracy",
    "max_accuracy_drop_pp": "the largest drop",
    "max_memory_bytes": "the memory limit",
    "max_model_bytes": "the limit of model files",
    "max_sent_bytes": "the limit of bytes sent",
    "keep_raw_input_on": "the tier that keeps the raw input",
    "allow_tiers": "the allowed tiers",
    "forbid_tiers": "the forbidden tiers",
    "allow_operators": "the allowed operators",
    "forbid_operators": "the forbidden operators",
}


def _limit(change: Change) -> str:
    if change.percentile is not None:
        return f"the {percentile_name(change.percentile)} budget"
    return f"{_LIMITS[change.field]} on {change.key}" if change.key else _LIMITS[change.field]


def _value(change: Change, value: float | str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if value is None or isinstance(value, str):
        return str(value)
    if change.field.endswith("_bytes"):
        return f"{value:.0f} bytes"  # exact, because the figure is one to ask with
    if change.field == "max_latency_s":
        return duration(value)
    return f"{value:g} {'pp' if change.field == 'max_accuracy_drop_pp' else '%'}"


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
