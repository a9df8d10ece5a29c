"""The words for an answer's numbers: one sentence each, the same over HTTP and in the terminal."""

from collections.abc import Iterator, Sequence

from catalog.statistics.feasibility import BudgetCheck
from catalog.units import duration, size
from recommender.answer.quality import doubt, passed_over, quality_note
from recommender.errors import FILL_COMMAND
from recommender.ranking import (
    Breach,
    Budgets,
    Candidate,
    Change,
    Estimate,
    Gap,
    NearMiss,
    RankedAnswer,
    Relaxation,
    UndecidedCandidate,
)
from recommender.ranking.model import Unit
from recommender.schemas.base import CONDITIONS

_LEAST = {"size": "smallest", "sent": "least data sent", "cpu": "least CPU where the raw input arises"}


def percentile_name(percentile: float) -> str:
    """Return `p90` or `p99.9`."""
    return f"p{percentile:g}"


def strategy_name(candidate: Candidate) -> str:
    """Return a name such as `quantized on edge`."""
    return f"{candidate.operator} on {candidate.placement}"


def why(answer: RankedAnswer) -> str:
    """Say in numbers why the recommendation was chosen over the next best."""
    if answer.recommendation is None:
        raise ValueError("an answer without a recommendation has nothing to explain")
    best = answer.recommendation.estimate
    claim = _claim(answer, best)
    quicker = passed_over(answer)
    # A faster strategy that was passed over needs more of an explanation than the next best.
    if quicker is not None:
        return f"{_instead_of(answer, quicker)}{prediction_note(best.candidate)}."
    if not answer.alternatives:
        return f"{claim}{prediction_note(best.candidate)}."
    following = answer.alternatives[0]
    other = following.estimate
    speed = _speed(best, other, following.latency_ratio)
    accuracy = _accuracy_against(following.accuracy_difference_pp, best.candidate)
    return (
        f"{claim}; {speed} the next best, {strategy_name(other.candidate)}{accuracy}{prediction_note(best.candidate)}."
    )


def _instead_of(answer: RankedAnswer, quicker: Estimate) -> str:
    """Say why a strategy was chosen although a faster one, of unjudged answers, is feasible."""
    assert answer.recommendation is not None
    best = answer.recommendation.estimate
    name = percentile_name(best.percentile)
    return (
        f"chosen because its answers are identity's, close to them, or judged against labels ({name} "
        f"{duration(best.percentile_s)}); faster is {strategy_name(quicker.candidate)} "
        f"({duration(quicker.percentile_s)}), but {doubt(quicker.candidate)}"
    )


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
        # Beyond ten times too much, a percentage has too many digits to be read.
        share = late.got_s / late.budget.max_s - 1
        excess = f"{100 * share:.1f} % too much" if share < 10 else f"{share + 1:.3g} times the budget"
        yield (
            f"is {duration(late.over_s)} over {percentile_name(late.budget.percentile)} <= "
            f"{duration(late.budget.max_s)} ({_source(miss.estimate)} {duration(late.got_s)}, {excess})"
        )
    accuracy = miss.estimate.candidate.accuracy
    if accuracy is not None and miss.accuracy_short_pp is not None:
        # A near miss stores its distance from the budget; the budget follows from it.
        floor = accuracy.accuracy_pct + miss.accuracy_short_pp
        yield (
            f"is {_pp(miss.accuracy_short_pp)} short of {accuracy.metric} >= {floor:.2f} % "
            f"(measured {accuracy.accuracy_pct:.2f} %)"
        )
    if accuracy is not None and accuracy.drop_pp is not None and miss.drop_over_pp is not None:
        allowed = accuracy.drop_pp - miss.drop_over_pp
        yield (
            f"drops {_pp(accuracy.drop_pp)} of {accuracy.metric} against identity, "
            f"{_pp(miss.drop_over_pp)} more than the {_pp(allowed)} allowed"
        )


def _source(estimate: Estimate) -> str:
    return "measured" if estimate.candidate.predicted is None else "predicted"


def undecided_reason(gap: UndecidedCandidate) -> str:
    """Say why nothing can be promised about this candidate."""
    candidate = gap.estimate.candidate
    if gap.gap is Gap.TOO_THIN and gap.percentile is not None:
        return (
            f"too thin: a bound on {percentile_name(gap.percentile)} needs at least {gap.inputs_needed} inputs, "
            f"measured were {candidate.inputs}"
        )
    if gap.gap is Gap.ONE_ROUND:
        return "measured in one round alone: one round describes and does not decide, at least 2 are needed"
    if gap.gap is Gap.UNPROVEN and gap.check is not None:
        return _unproven(gap.check, gap.unit)
    if gap.gap is Gap.TOO_FEW_IMAGES and gap.refusal is not None:
        return f"too few images to bound its mean intersection over union: {gap.refusal.reason}"
    if gap.gap is Gap.ITEMS_MISSING:
        return "its accuracy is known as a number only; without its items no bound can be given"
    if gap.gap is Gap.DROP_MISSING:
        return "its accuracy is known, but identity's is not, so its drop cannot be computed"
    if candidate.accuracy is not None and not candidate.accuracy.from_labels:
        return "it has no accuracy: agreement with identity, measured without labels, holds no accuracy budget"
    return candidate.accuracy_missing or "its accuracy has not been measured"


def to_do(gap: UndecidedCandidate) -> str:
    """Say what to measure so that the candidate can be decided."""
    if gap.gap is Gap.TOO_THIN and gap.percentile is not None:
        return (
            f"set `experiment.inputs` to {gap.inputs_needed} or more and run `runner fill-catalog`, "
            f"or ask for a lower percentile than {percentile_name(gap.percentile)}"
        )
    if gap.gap is Gap.ONE_ROUND:
        return "set `experiment.rounds` to 3 or more and run `runner fill-catalog`"
    # More measurements at the present rates would not reduce the model's error; those at the asked rates replace it.
    if gap.gap is Gap.UNPROVEN and gap.percentile is not None and gap.estimate.candidate.predicted is not None:
        links = " and ".join(gap.estimate.candidate.predicted.links)
        return f"declare {links} as asked and measure it there (`runner fill-catalog`), or ask at a lower `confidence`"
    if gap.gap is Gap.TOO_FEW_IMAGES:
        return "judge it on more validation images (`runner fill-catalog`), or ask without an accuracy budget"
    if gap.check is not None and (needed := gap.check.items_needed) is not None:
        return (
            f"judge it on at least {needed} validation items (`runner fill-catalog`), or ask at a lower `confidence` "
            "or for a wider budget of accuracy"
        )
    if gap.gap is Gap.UNPROVEN:
        what = "rounds or inputs" if gap.percentile is not None else "validation items"
        return f"measure more {what} (`runner fill-catalog`), or ask at a lower `confidence`"
    if gap.gap is Gap.ITEMS_MISSING:
        return "ask without an accuracy budget, or measure it here: `runner fill-catalog` keeps the items"
    if not gap.estimate.candidate.judged:
        return "ask without an accuracy budget, or give the subject labels (`task: any` has none)"
    return "run `runner fill-catalog` to measure the accuracy that is missing"


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
    return f"{items} items cannot show {what} {figure} {unit} at the joint confidence"


def _claim(answer: RankedAnswer, best: Estimate) -> str:
    number = f"{percentile_name(best.percentile)} {duration(best.percentile_s)}"
    feasible = 1 + len(answer.alternatives)
    if feasible == 1:
        only = (
            "the only strategy measured"
            if len(answer.considered) == 1
            else (f"the only one of {len(answer.considered)} measured strategies known to meet every budget")
        )
        return f"{only}, with {number}"
    meeting = f"the {feasible} that meet every budget" if bounded(answer.budgets) else f"{feasible} strategies"
    accuracy = best.candidate.accuracy
    objective = answer.budgets.objective
    if objective == "accuracy" and accuracy is not None:
        return f"most accurate of {meeting} ({accuracy.metric} {accuracy.accuracy_pct:.2f} %, {number})"
    if objective in _LEAST:
        return f"{_LEAST[objective]} of {meeting} ({number})"
    # Only the fastest itself has no comparison with the fastest; a tie that was broken makes it an alternative.
    fastest = next(
        (alternative.estimate for alternative in answer.alternatives if alternative.comparison is None), None
    )
    if fastest is not None:
        return (
            f"equivalent to the fastest of {meeting}, {strategy_name(fastest.candidate)} "
            f"({duration(fastest.percentile_s)}; this one {number}), and preferred for {_preferred(best, fastest)}"
        )
    return f"fastest of {meeting} ({number})"


def _preferred(best: Estimate, fastest: Estimate) -> str:
    """Name the declared rule that broke the tie: accuracy, fewer tiers, smaller models, less data sent."""
    # In the order of `_tie_break` in `recommender.ranking.recommend`: the first rule that differs decided.
    one, other = best.candidate, fastest.candidate
    if one.accuracy and (other.accuracy is None or one.accuracy.accuracy_pct > other.accuracy.accuracy_pct):
        return "its accuracy"
    if len(one.tiers) != len(other.tiers):
        return "needing fewer tiers"
    return "its smaller models" if one.size_bytes != other.size_bytes else "sending less data"


def _speed(best: Estimate, other: Estimate, ratio: float) -> str:
    name = percentile_name(best.percentile)
    # A ratio nearer to 1 would print as "1.00 times faster".
    if ratio >= 1.005:
        return f"{ratio:.2f} times faster at {name} ({duration(other.percentile_s)}) than"
    if ratio <= 1 / 1.005:
        return f"{1 / ratio:.2f} times slower at {name} ({duration(other.percentile_s)}) than"
    return f"within 0.5 % at {name} ({duration(other.percentile_s)}) of"


def _accuracy_against(difference_pp: float | None, best: Candidate) -> str:
    if difference_pp is None or best.accuracy is None:
        return ", whose accuracy cannot be compared"
    # A smaller difference would print as 0.00 pp.
    if abs(difference_pp) < 0.005:
        return f", at the same {best.accuracy.metric}"
    word = "less" if difference_pp > 0 else "more"
    return f", and {_pp(abs(difference_pp))} {word} accurate ({best.accuracy.metric})"


def bounded(budgets: Budgets) -> bool:
    """Return whether the question has any budget."""
    return bool(budgets.latency) or budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None


def _pp(points: float) -> str:
    return f"{points:.2f} pp"


def join(phrases: list[str]) -> str:
    """Join phrases as `a, b and c`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def breach_words(breach: Breach) -> str:
    """Say why one constraint excludes a strategy."""
    name = breach.name
    match breach.constraint:
        case "allow_tiers":
            return f"it computes on {name}, which allow_tiers does not name"
        case "forbid_tiers":
            return f"it computes on {name}, which forbid_tiers names"
        case "allow_operators":
            return f"allow_operators does not name {name}"
        case "forbid_operators":
            return f"forbid_operators names {name}"
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
    """Return a phrase such as `max_latency_s (p90) from 5 ms to 21.3 ms gives quantized on edge`."""
    change = relaxation.change
    name = strategy_name(relaxation.gives.candidate)
    if change.after is None:
        return f"without {_field(change)} (asked: {_value(change, change.before)}) it is {name}"
    return f"{_field(change)} from {_value(change, change.before)} to {_value(change, change.after)} gives {name}"


def _field(change: Change) -> str:
    where = change.key or (percentile_name(change.percentile) if change.percentile is not None else None)
    return f"{change.field} ({where})" if where else change.field


def _value(change: Change, value: float | str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if value is None or isinstance(value, str):
        return str(value)
    if change.field.endswith("_bytes"):
        return f"{value:.0f} bytes"  # exact, because the figure is one to ask with
    if change.field == "max_latency_s":
        return duration(value)
    return f"{value:g} {'pp' if change.field == 'max_accuracy_drop_pp' else '%'}"


def summary(answer: RankedAnswer) -> str:
    """Summarise any answer in two sentences: what to use and why, then what that rests on or what to change."""
    best = answer.recommendation
    if best is not None:
        candidate = best.candidate
        return (
            f"Use {strategy_name(candidate)}: {why(answer)} This rests on {_many(candidate.rounds, 'round')} of "
            f"{_many(candidate.inputs, 'input')} each, {CONDITIONS}{_promise(answer, best.estimate)}{_quality(answer)}."
        )
    return f"{_nothing(answer)}. {_way_out(answer)}."


def _quality(answer: RankedAnswer) -> str:
    note = quality_note(answer)
    return "" if note is None else f"; {note}"


def _promise(answer: RankedAnswer, best: Estimate) -> str:
    if best.feasibility is None or not bounded(answer.budgets):
        return "; no budget was asked, so nothing is promised"
    level = best.feasibility.joint_confidence
    # Four decimals would round it to 1.0000, a certainty that no sample gives.
    confidence = "above 0.9999" if level > 0.9999 else f"{level:.4f}"
    return f"; all budgets hold with joint confidence {confidence}, over {_many(len(answer.considered), 'candidate')}"


def _nothing(answer: RankedAnswer) -> str:
    """Say what became of the candidates when none of them is recommended."""
    if not answer.considered:
        if answer.excluded:
            return f"All of the {len(answer.excluded)} measured strategies are excluded by a constraint"
        return "Nothing has been measured for this subject in this environment yet"
    clauses = [f"None of the {len(answer.considered)} considered strategies is known to meet every budget"]
    if answer.undecided:
        clauses.append(f"{len(answer.undecided)} could not be decided{_too_few(answer)}")
    if answer.near_misses:
        nearest = answer.near_misses[0]
        name = strategy_name(nearest.estimate.candidate)
        clauses.append(f"of those that miss a budget the nearest, {name}, {join(list(lacks(nearest)))}")
    return "; ".join(clauses)


def _too_few(answer: RankedAnswer) -> str:
    """Say what the items cannot show of any strategy, where that is what the first undecided one lacks."""
    first = answer.undecided[0]
    return f" ({undecided_reason(first)})" if first.check is not None and first.check.out_of_reach else ""


def _way_out(answer: RankedAnswer) -> str:
    if answer.relaxations:
        return f"The cheapest single change: {relaxation_words(answer.relaxations[0])}"
    if answer.undecided:
        return f"To decide more, {to_do(answer.undecided[0])}"
    if not answer.considered and not answer.excluded:
        return f"Run `{FILL_COMMAND}`, then ask again"
    return "No single change of one budget or constraint makes a strategy feasible"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
