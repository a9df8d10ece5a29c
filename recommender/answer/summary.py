"""An answer in a few sentences: what to use, how sure that is, why, and what would make it sure."""

from catalog.units import counted, duration
from recommender.answer.reasons import why
from recommender.answer.to_do import ToDo
from recommender.answer.wording import (
    chance,
    join,
    lacks,
    percentile_name,
    quality_note,
    relaxation_words,
    strategy_name,
    undecided_reason,
)
from recommender.errors import FILL_COMMAND
from recommender.ranking import Prospect, RankedAnswer, Status
from recommender.schemas.base import CONDITIONS


def summary(answer: RankedAnswer, to_do: ToDo | None) -> str:
    """Summarise any answer for a reader who acts on it."""
    best = answer.recommendation
    if best is None:
        return " ".join(filter(None, (f"{nothing(answer)}.", _way_out(answer, to_do))))
    sentences = [f"{head(answer, best)}.", _capital(why(answer))]
    if to_do is not None:
        sentences.append(f"{to_do.words}.")
    if answer.proven is not None:
        estimate = answer.proven.estimate
        latency = f"{percentile_name(estimate.percentile)} {duration(estimate.percentile_s)}"
        sentences.append(f"Proven already is {strategy_name(answer.proven.candidate)} ({latency}).")
    candidate, note = best.candidate, quality_note(answer)
    quality = "" if note is None else f"; {note}"
    sentences.append(
        f"This rests on {counted(candidate.rounds, 'round')} of {counted(candidate.inputs, 'input')} each, "
        f"{CONDITIONS}{_promise(answer, best)}{quality}."
    )
    return " ".join(sentences)


def head(answer: RankedAnswer, best: Prospect) -> str:
    """Say what to use and how sure that is, in a clause that a manager reads."""
    name = strategy_name(best.candidate)
    if not answer.budgets.any_set:
        return f"Use {name}"
    if best.status is Status.PROVEN:
        return f"Use {name}: it is proven to keep every budget"
    if best.probability is None:
        return f"By its estimates {name}; how sure that is cannot be said, {_reason(best)}"
    word = "Probably" if best.status is Status.LIKELY else "Perhaps"
    return f"{word} {name}: {chance(best.probability)}"


def nothing(answer: RankedAnswer) -> str:
    """Say what became of the candidates when none of them is recommended."""
    if not answer.considered:
        if answer.excluded:
            return f"All of the {len(answer.excluded)} measured strategies are excluded by a constraint"
        return "Nothing has been measured for this subject in this environment yet"
    if answer.within:
        first = answer.within[0]
        sure = "" if first.probability is None else f" ({chance(first.probability)})"
        reason = "" if first.gap is None else f": {undecided_reason(first.gap)}"
        name = f"{strategy_name(first.candidate)}{sure}"
        return f"No strategy is proven to keep every budget; the best candidate is {name}{reason}"
    return f"{_infeasible(answer)}; {_nearest(answer)}"


def _infeasible(answer: RankedAnswer) -> str:
    probability, count = answer.infeasible_probability, len(answer.considered)
    none = (
        "the only considered strategy does not keep"
        if count == 1
        else f"none of the {count} considered strategies keeps"
    )
    if answer.infeasible is Status.PROVEN:
        return f"Proven: {none} every budget"
    if answer.infeasible is Status.LIKELY and probability is not None:
        return f"Probably {none} every budget: {chance(probability)}"
    sure = "how sure that is cannot be said" if probability is None else f"that is open, {chance(probability)}"
    return f"By the estimates {none} every budget; {sure}"


def _nearest(answer: RankedAnswer) -> str:
    nearest = answer.near_misses[0]
    return f"the nearest, {strategy_name(nearest.estimate.candidate)}, {join(list(lacks(nearest)))}"


def _way_out(answer: RankedAnswer, to_do: ToDo | None) -> str:
    ways = []
    if answer.relaxations:
        ways.append(f"The cheapest single change: {relaxation_words(answer.relaxations[0])}.")
    elif answer.excluded or answer.near_misses:
        ways.append("No single change of one budget or constraint makes a strategy proven.")
    if to_do is not None:
        ways.append(f"{to_do.words}.")
    elif not answer.considered and not answer.excluded:
        ways.append(f"Run `{FILL_COMMAND}`, then ask again.")
    return " ".join(ways)


def _reason(best: Prospect) -> str:
    return "nothing says how far the estimates may be off" if best.gap is None else undecided_reason(best.gap)


def _promise(answer: RankedAnswer, best: Prospect) -> str:
    if not answer.budgets.any_set:
        return "; no budget was asked, so nothing is promised"
    if best.status is not Status.PROVEN:
        return ""
    level = best.joint_confidence
    # Four decimals would round it to 1.0000, a certainty that no sample gives.
    confidence = "above 0.9999" if level > 0.9999 else f"{level:.4f}"
    return f"; all budgets hold with joint confidence {confidence}, over {counted(len(answer.considered), 'candidate')}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
