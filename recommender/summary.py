"""The answer in two sentences."""

from recommender.answer.quality import quality_note
from recommender.answer.wording import CONDITIONS, bounded, join, lacks, strategy_name, to_do, undecided_reason, why
from recommender.constraint_words import relaxation_words
from recommender.errors import FILL_COMMAND
from recommender.ranking import Answer, Estimate


def summary(answer: Answer) -> str:
    """The answer in two sentences, whatever it is: what to use and why, then what that rests on or what to change."""
    best = answer.recommendation
    if best is not None:
        it = best.candidate
        return (
            f"Use {strategy_name(it)}: {why(answer)} This rests on {_many(it.rounds, 'round')} of "
            f"{_many(it.inputs, 'input')} each, {CONDITIONS}{_promise(answer, best)}{_quality(answer)}."
        )
    return f"{_nothing(answer)}. {_way_out(answer)}."


def _quality(answer: Answer) -> str:
    note = quality_note(answer)
    return "" if note is None else f"; {note}"


def _promise(answer: Answer, best: Estimate) -> str:
    if best.feasibility is None or not bounded(answer.budgets):
        return "; no budget was asked, so nothing is promised"
    level = best.feasibility.joint_confidence
    confidence = "above 0.9999" if level > 0.9999 else f"{level:.4f}"
    return f"; all budgets hold with joint confidence {confidence}, over {_many(len(answer.considered), 'candidate')}"


def _nothing(answer: Answer) -> str:
    """What became of the candidates when none of them is recommended."""
    if not answer.considered:
        if answer.excluded:
            return f"All of the {len(answer.excluded)} measured strategies are excluded by a constraint"
        return "Nothing has been measured for this subject in this environment yet"
    parts = [f"None of the {len(answer.considered)} considered strategies is known to meet every budget"]
    if answer.undecided:
        parts.append(f"{len(answer.undecided)} could not be decided{_too_few(answer)}")
    if answer.near_misses:
        nearest = answer.near_misses[0]
        name = strategy_name(nearest.estimate.candidate)
        parts.append(f"of those that miss a budget the nearest, {name}, {join(list(lacks(nearest)))}")
    return "; ".join(parts)


def _too_few(answer: Answer) -> str:
    """What the items cannot show of any strategy, where that is what the first undecided one lacks."""
    first = answer.undecided[0]
    return f" ({undecided_reason(first)})" if first.check is not None and first.check.out_of_reach else ""


def _way_out(answer: Answer) -> str:
    if answer.relaxations:
        return f"The cheapest single change: {relaxation_words(answer.relaxations[0])}"
    if answer.undecided:
        return f"To decide more, {to_do(answer.undecided[0])}"
    if not answer.considered and not answer.excluded:
        return f"Run `{FILL_COMMAND}`, then ask again"
    return "No single change of one budget or constraint makes a strategy feasible"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
