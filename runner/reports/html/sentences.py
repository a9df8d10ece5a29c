"""One pair of strategies over all subjects in one sentence, from the numbers: also where nothing was found."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from catalog.analysis import PairResult
from catalog.evidence import StrategyEvidence
from catalog.statistics import Speedup, magnitude, speedup
from catalog.statistics.outcomes import ComparisonOutcome
from runner.reports.html.markup import Html, joined, tag

METRIC_NAMES = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "agreement": "agreement with identity"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count(value: int) -> str:
    """`three`, `13`."""
    return _NUMBERS[value] if value < len(_NUMBERS) else str(value)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def spoken(operator: str) -> str:
    """An operator within a sentence."""
    return operator.replace("_", " ")


def sentence(said: str) -> str:
    """With a capital letter and a full stop."""
    return said[:1].upper() + said[1:] + ("" if said.endswith(".") else ".")


def extent(values: Sequence[float], unit: str = "") -> str:
    """`1.20x`, or `1.20x to 2.40x` where they differ as printed."""
    low, high = f"{min(values):.2f}{unit}", f"{max(values):.2f}{unit}"
    return low if low == high else f"{low} to {high}"


def scope(members: Sequence[str], everyone: Sequence[str], *, note: str = "", again: bool = False) -> str:
    """Whom a statement is about: `in net`, `across four subjects`, `in two of four subjects (a and b)`.

    `note` joins the names in brackets; `again` leaves out of how many, which was said before.
    """
    if len(everyone) == 1:
        return f"in {everyone[0]}"
    if len(members) == len(everyone):
        return f"across {count(len(everyone))} subjects{f' ({note})' if note else ''}"
    total = "" if again else f" of {count(len(everyone))} subjects"
    return f"in {count(len(members))}{total} ({listed(members)}{f'; {note}' if note else ''})"


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
        if decided.verdict is ComparisonOutcome.DIFFERENT:
            return Outcome.LOWER if (decided.high < 1) != self.turned else Outcome.HIGHER
        return Outcome.EQUIVALENT if decided.verdict is ComparisonOutcome.EQUIVALENT else Outcome.UNRESOLVED


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
    everyone = [member.subject for member in members]
    groups = {outcome: [member for member in members if member.outcome is outcome] for outcome in Outcome}
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
    return speedup([member.median_s for member in members], [member.reference_s for member in members])


def _range(members: Sequence[PairOfSubject]) -> str:
    if len(members) < 2:
        return ""
    return extent([speedup(member.median_s, member.reference_s).factor for member in members], "x")


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
        names = [member.subject for member in members]
        if len(everyone) == 1:
            yield said
        else:
            yield f"{said} in {'all' if len(names) == len(everyone) else f'{count(len(names))} ({listed(names)})'}"


def _needed(members: Sequence[PairOfSubject]) -> str:
    """What would settle all of them: the most rounds that one needs, where rounds help."""
    needed = [member.pair.decided.needed for member in members]
    rounds = [each.rounds for each in needed if each and each.rounds is not None]
    return f"about {max(rounds)} rounds would settle it" if len(rounds) == len(members) else ""


def _effects(members: Sequence[PairOfSubject]) -> str:
    """What the study's test says of the same pairs."""
    sizes = [
        magnitude(member.pair.paper.delta) if member.pair.paper.significant else "not significant" for member in members
    ]
    found = Counter(sizes)
    order = [name for name in ("large", "medium", "small", "negligible", "not significant") if name in found]
    if len(found) == 1:
        said = order[0] + (" in all" if len(members) > 1 else "")
    else:
        said = ", ".join(f"{name} in {count(found[name])}" for name in order)
    disagreeing = [member.subject for member in members if member.pair.disagreement]
    tail = f"; the two analyses disagree in {listed(disagreeing)}" if disagreeing else ""
    return f". As in the paper: Cliff's delta {said}{tail}"


_LETTERS = {"static_ptq": "Q", "early_exit": "E", "partition": "P"}


@dataclass(frozen=True)
class Codes:
    """Short names by operator and by placement; the full ones where short ones would be ambiguous."""

    operators: Mapping[str, str]
    placements: Mapping[str, str]

    def head(self, strategy: str) -> Html:
        """`I` with its placement as a subscript."""
        operator, placement = split(strategy)
        return joined(self.operators[operator], tag("sub", self.placements[placement]))

    def legend(self, strategies: Iterable[str]) -> str:
        """What the short names of these strategies stand for; empty where none is shortened."""
        pairs = [split(strategy) for strategy in strategies]
        said = {self.operators[operator]: operator for operator, _ in pairs}
        placed = {self.placements[placement]: placement for _, placement in pairs}
        return "; ".join(
            ", ".join(f"{code} {name}" for code, name in group.items() if code != name) for group in (said, placed)
        ).strip("; ")


def split(strategy: str) -> tuple[str, str]:
    """Operator and placement of `operator@placement`."""
    operator, _, placement = strategy.rpartition("@")
    return operator, placement


def codes_of(evidence: Iterable[StrategyEvidence]) -> Codes:
    """Short names for all strategies of a report."""
    listed = list(evidence)
    operators = {each.operator: _operator(each) for each in listed}
    placements = {each.placement: "".join(tier[0].upper() for tier in each.tiers) for each in listed}
    return Codes(_unambiguous(operators), _unambiguous(placements))


def _operator(each: StrategyEvidence) -> str:
    passes = [str(step["name"]) for step in each.passes]
    return "".join(_LETTERS.get(name, name[0].upper()) for name in passes) or "I"


def _unambiguous(codes: Mapping[str, str]) -> Mapping[str, str]:
    return codes if len(set(codes.values())) == len(codes) else {name: name for name in codes}
