"""One pair of strategies over all subjects in one sentence, from the numbers: also where nothing was found."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from catalog.analysis import PairResult
from catalog.statistics import Speedup, magnitude, speedup
from catalog.statistics.verdicts import Verdict
from runner.reports.html.words import count, extent, listed, scope, sentence


class Outcome(StrEnum):
    """What the deciding analysis says of one subject."""

    LOWER = "lower"
    HIGHER = "higher"
    EQUIVALENT = "equivalent"
    UNRESOLVED = "unresolved"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class PairOfSubject:
    """One subject's comparison of the strategy spoken of with its reference, whichever is listed first."""

    subject: str
    median_s: float
    reference_s: float
    pair: PairResult
    turned: bool

    @property
    def outcome(self) -> Outcome:
        """Of the strategy spoken of."""
        decided = self.pair.decided
        if decided.refusal is not None or decided.high is None:
            return Outcome.UNDECIDED
        if decided.verdict is Verdict.DIFFERENT:
            return Outcome.LOWER if (decided.high < 1) != self.turned else Outcome.HIGHER
        return Outcome.EQUIVALENT if decided.verdict is Verdict.EQUIVALENT else Outcome.UNRESOLVED


@dataclass(frozen=True)
class MissingSubject:
    """A subject that has no such pair, and why."""

    subject: str
    why: str


def without(missing: Sequence[MissingSubject]) -> str:
    """`; without b and c (edge not measured)`: who is not in an average, nothing where all are."""
    subjects: dict[str, list[str]] = {}
    for entry in missing:
        subjects.setdefault(entry.why, []).append(entry.subject)
    named = listed([f"{listed(names)} ({why})" for why, names in subjects.items()])
    return f"; without {named}" if named else ""


def pair_sentence(
    spoken_of: str,
    reference: str,
    members: Sequence[PairOfSubject],
    *,
    where: str = "",
    missing: Sequence[MissingSubject] = (),
) -> str:
    """`Edge shows 1.83x lower average median latency than mobile across four subjects (...); different in all.`

    Speed-ups are of medians, averaged as the study does; whether there is a difference is the deciding analysis's to
    say; the study's effect sizes follow. `where` is what both have in common, such as `on mobile, `. Subjects that are
    not in the average are named with the reason.
    """
    left_out = without(missing)
    everyone = [each.subject for each in members]
    groups = {outcome: [each for each in members if each.outcome is outcome] for outcome in Outcome}
    shown = groups[Outcome.LOWER] + groups[Outcome.HIGHER]
    if len(groups[Outcome.UNDECIDED]) == len(members):
        refusal = members[0].pair.decided.refusal
        why = f": {refusal.reason}" if refusal else ""
        shows = f"{where}{spoken_of} shows {_factor(members)} than {reference}"
        return sentence(f"{shows} {scope(everyone, everyone)}; not decided{why}{left_out}")
    rest = ", ".join(_not_different(groups, everyone))
    if not shown:
        return sentence(
            f"{where}no difference between {spoken_of} and {reference} is shown: {rest}{left_out}{_effects(members)}"
        )
    parts: list[str] = []
    for outcome in (Outcome.LOWER, Outcome.HIGHER):
        if groups[outcome]:
            subjects = [each.subject for each in groups[outcome]]
            than = "" if parts else f" than {reference}"
            whom = scope(subjects, everyone, note=_range(groups[outcome]), again=bool(parts))
            parts.append(f"{_factor(groups[outcome])}{than} {whom}")
    different = _different(len(shown), len(members))
    others = f", {rest}" if rest else ""
    return sentence(f"{where}{spoken_of} shows {' and '.join(parts)}; {different}{others}{left_out}{_effects(members)}")


def _different(shown: int, everyone: int) -> str:
    if everyone == 1:
        return "different"
    return f"different {'in all' if shown == everyone else 'there'}"


def _factor(members: Sequence[PairOfSubject]) -> Speedup:
    return speedup([each.median_s for each in members], [each.reference_s for each in members])


def _range(members: Sequence[PairOfSubject]) -> str:
    if len(members) < 2:
        return ""
    return extent([speedup(each.median_s, each.reference_s).factor for each in members], "x")


def _not_different(groups: dict[Outcome, list[PairOfSubject]], everyone: Sequence[str]) -> Iterator[str]:
    for outcome in (Outcome.EQUIVALENT, Outcome.UNRESOLVED, Outcome.UNDECIDED):
        members = groups[outcome]
        if not members:
            continue
        said = "not decided" if outcome is Outcome.UNDECIDED else str(outcome)
        if outcome is Outcome.EQUIVALENT:
            said += f" within {100 * members[0].pair.decided.question.equivalent_within:g} %"
        if outcome is Outcome.UNRESOLVED and (needed := _needed(members)):
            said += f" ({needed})"
        names = [each.subject for each in members]
        if len(everyone) == 1:
            yield said
        else:
            yield f"{said} in {'all' if len(names) == len(everyone) else f'{count(len(names))} ({listed(names)})'}"


def _needed(members: Sequence[PairOfSubject]) -> str:
    """What would settle all of them: the most rounds that one needs, where rounds help."""
    needed = [each.pair.decided.needed for each in members]
    rounds = [each.rounds for each in needed if each and each.rounds is not None]
    return f"about {max(rounds)} rounds would settle it" if len(rounds) == len(members) else ""


def _effects(members: Sequence[PairOfSubject]) -> str:
    """What the study's test says of the same pairs."""
    sizes = [magnitude(each.pair.paper.delta) if each.pair.paper.significant else "not significant" for each in members]
    found = Counter(sizes)
    order = [name for name in ("large", "medium", "small", "negligible", "not significant") if name in found]
    if len(found) == 1:
        said = order[0] + (" in all" if len(members) > 1 else "")
    else:
        said = ", ".join(f"{name} in {count(found[name])}" for name in order)
    disagreeing = [each.subject for each in members if each.pair.disagreement]
    tail = f"; the two analyses disagree in {listed(disagreeing)}" if disagreeing else ""
    return f". As in the paper: Cliff's delta {said}{tail}"
