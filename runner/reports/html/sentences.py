"""One pair of strategies over all subjects in one sentence, from the numbers: also if there is no difference."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from catalog.analysis import PairResult
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.outcomes import ComparisonOutcome, magnitude
from catalog.statistics.study_analysis import Speedup, speedup
from catalog.units import counted
from runner.reports.html.markup import Html, joined, tag

METRIC_NAMES = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "agreement": "agreement with identity"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count(value: int) -> str:
    """Return `three`, `13`."""
    return _NUMBERS[value] if value < len(_NUMBERS) else str(value)


def listed(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def spoken(operator: str) -> str:
    """Spell an operator for use within a sentence."""
    return operator.replace("_", " ")


def sentence(text: str) -> str:
    """Add a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def extent(values: Sequence[float], unit: str = "") -> str:
    """Return `1.20x`, or `1.20x to 2.40x` if they differ as printed."""
    # Compared as printed: `1.20x to 1.20x` would look like a mistake.
    low, high = f"{min(values):.2f}{unit}", f"{max(values):.2f}{unit}"
    return low if low == high else f"{low} to {high}"


def scope(members: Sequence[str], everyone: Sequence[str], *, note: str = "", again: bool = False) -> str:
    """Return the subjects of a statement: `in net`, `across four subjects`, `in two of four subjects (a and b)`.

    `note` joins the names in brackets; `again` leaves out the total, which an earlier clause has.
    """
    if len(everyone) == 1:
        return f"in {everyone[0]}"
    if len(members) == len(everyone):
        return f"across {count(len(everyone))} subjects{f' ({note})' if note else ''}"
    total = "" if again else f" of {count(len(everyone))} subjects"
    return f"in {count(len(members))}{total} ({listed(members)}{f'; {note}' if note else ''})"


class SubjectOutcome(StrEnum):
    """The deciding analysis's result for one subject."""

    LOWER = "lower"
    HIGHER = "higher"
    EQUIVALENT = "equivalent"
    UNRESOLVED = "unresolved"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class PairOfSubject:
    """One subject's comparison of the strategy that the sentence is about with its reference, in either order."""

    subject: str
    median_s: float
    reference_s: float
    pair: PairResult
    turned: bool

    @property
    def outcome(self) -> SubjectOutcome:
        """Return the outcome for the strategy that the sentence is about."""
        decided = self.pair.decided
        # Without a bound nothing is decided, whatever the estimate is.
        if decided.refusal is not None or decided.high is None:
            return SubjectOutcome.UNDECIDED
        if decided.verdict is ComparisonOutcome.DIFFERENT:
            # A ratio below 1 says that the left one is faster; turned, the sentence is about the right one.
            return SubjectOutcome.LOWER if (decided.high < 1) != self.turned else SubjectOutcome.HIGHER
        return (
            SubjectOutcome.EQUIVALENT if decided.verdict is ComparisonOutcome.EQUIVALENT else SubjectOutcome.UNRESOLVED
        )

    @property
    def direction(self) -> str:
        """Return `lower`, `higher` or `equal`: the median of the strategy that the sentence is about."""
        return speedup(self.median_s, self.reference_s).direction

    @property
    def is_shown(self) -> bool:
        """Return whether either analysis shows a difference."""
        return self.pair.paper.significant or self.is_different

    @property
    def is_different(self) -> bool:
        """Return whether a difference is decided."""
        return self.outcome in (SubjectOutcome.LOWER, SubjectOutcome.HIGHER)


@dataclass(frozen=True)
class MissingSubject:
    """A subject that has no such pair, and why."""

    subject: str
    why: str


def without(missing: Sequence[MissingSubject]) -> str:
    """Return `; without b and c (edge not measured)`: the subjects missing from an average; empty if none is."""
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
    """Write `Edge shows 1.83x lower average median latency than mobile across four subjects (...); ...`

    Speed-ups are of medians, averaged as the study does, but never over opposite directions: where subjects differ in
    direction, each direction has its own factor. What the deciding analysis says follows, then the study's effect
    sizes. `where` is what both have in common, such as `on mobile, `. Subjects that are not in the average are named
    with the reason.
    """
    left_out, everyone = without(missing), [member.subject for member in members]
    shown = [member for member in members if member.is_shown]
    # A subject that is not shown to differ joins the factor only where all medians point the same way.
    uniform = len({member.direction for member in members}) == 1
    decision = _decision(members, named=[] if uniform else shown)
    # What the study's test alone shows makes a difference only as long as nothing is decided.
    if not shown or (decision and not any(member.is_different for member in members)):
        text = f"{where}no difference between {spoken_of} and {reference} is shown{f': {decision}' if decision else ''}"
        return sentence(f"{text}{left_out}{_effects(members)}")
    clauses: list[str] = []
    for direction in ("lower", "higher"):
        group = [member for member in (members if uniform else shown) if member.direction == direction]
        if group:
            subjects = [member.subject for member in group]
            than = "" if clauses else f" than {reference}"
            clauses.append(
                f"{_factor(group)}{than} {scope(subjects, everyone, note=_range(group), again=bool(clauses))}"
            )
    # Only where the decided percentile differs although the medians are the same to the last digit.
    shows = " and ".join(clauses) or f"equal median latency to {reference}"
    return sentence(
        f"{where}{spoken_of} shows {shows}{f'; {decision}' if decision else ''}{left_out}{_effects(members)}"
    )


def _factor(members: Sequence[PairOfSubject]) -> Speedup:
    return speedup([member.median_s for member in members], [member.reference_s for member in members])


def _range(members: Sequence[PairOfSubject]) -> str:
    if len(members) < 2:
        return ""
    return extent([speedup(member.median_s, member.reference_s).factor for member in members], "x")


def _decision(members: Sequence[PairOfSubject], *, named: Sequence[PairOfSubject]) -> str:
    """Return what the deciding analysis says of all subjects; empty where it decides none, as after one round.

    `named` are the subjects that the sentence has just named one by one.
    """
    everyone = [member.subject for member in members]
    groups = {outcome: [member for member in members if member.outcome is outcome] for outcome in SubjectOutcome}
    different = groups[SubjectOutcome.LOWER] + groups[SubjectOutcome.HIGHER]
    if len(groups[SubjectOutcome.UNDECIDED]) == len(members):
        return ""
    texts = [_different(different, everyone, named)] if different else []
    return ", ".join([*texts, *_not_different(groups, everyone)]) + _contrary(different)


def _different(different: Sequence[PairOfSubject], everyone: Sequence[str], named: Sequence[PairOfSubject]) -> str:
    if len(everyone) == 1:
        return "different"
    if len(different) == len(everyone):
        return "different in all"
    subjects = {member.subject for member in different}
    if subjects == {member.subject for member in named}:
        return "different there"
    names = [name for name in everyone if name in subjects]
    return f"different in {count(len(names))} ({listed(names)})"


def _contrary(different: Sequence[PairOfSubject]) -> str:
    """Name the subjects whose decided percentile differs the other way than their medians."""
    contrary = [member for member in different if member.direction not in ("equal", member.outcome.value)]
    if not contrary:
        return ""
    percentile = contrary[0].pair.decided.question.percentile
    return f" (the other way at p{percentile:g} in {listed([member.subject for member in contrary])})"


def _not_different(groups: dict[SubjectOutcome, list[PairOfSubject]], everyone: Sequence[str]) -> Iterator[str]:
    for outcome in (SubjectOutcome.EQUIVALENT, SubjectOutcome.UNRESOLVED, SubjectOutcome.UNDECIDED):
        members = groups[outcome]
        if not members:
            continue
        text = "not decided" if outcome is SubjectOutcome.UNDECIDED else str(outcome)
        if outcome is SubjectOutcome.EQUIVALENT:
            text += f" within {100 * members[0].pair.decided.question.equivalent_within:g} %"
        if outcome is SubjectOutcome.UNRESOLVED and (needed := _needed(members)):
            text += f" ({needed})"
        names = [member.subject for member in members]
        if len(everyone) == 1:
            yield text
        else:
            yield f"{text} in {'all' if len(names) == len(everyone) else f'{count(len(names))} ({listed(names)})'}"


def _needed(members: Sequence[PairOfSubject]) -> str:
    """Return what would settle all of them: the most rounds that any of them needs, if rounds help."""
    needed = [member.pair.decided.needed for member in members]
    rounds = [need.rounds for need in needed if need and need.rounds is not None]
    # Only where rounds settle every one of them: some pairs need inputs, and some would stay unresolved.
    return f"about {counted(max(rounds), 'round')} would settle it" if len(rounds) == len(members) else ""


def _effects(members: Sequence[PairOfSubject]) -> str:
    """Return the result of the study's test for the same pairs."""
    subjects: dict[str, list[str]] = {}
    for member in members:
        size = magnitude(member.pair.paper.delta) if member.pair.paper.significant else "not significant"
        subjects.setdefault(size, []).append(member.subject)
    order = [name for name in ("large", "medium", "small", "negligible", "not significant") if name in subjects]
    if len(order) == 1:
        text = order[0] + (" in all" if len(members) > 1 else "")
    else:
        text = ", ".join(f"{name} in {count(len(subjects[name]))} ({listed(subjects[name])})" for name in order)
    disagreeing = [member.subject for member in members if member.pair.disagreement]
    tail = f"; the two analyses disagree in {listed(disagreeing)}" if disagreeing else ""
    return f". As in the paper: Cliff's delta {text}{tail}"


_LETTERS = {"static_ptq": "Q", "early_exit": "E", "partition": "P"}


@dataclass(frozen=True)
class Codes:
    """Short names by operator and by placement; the full ones where short ones would be ambiguous."""

    operators: Mapping[str, str]
    placements: Mapping[str, str]

    def head(self, strategy: str) -> Html:
        """Return `I` with its placement as a subscript."""
        operator, placement = split(strategy)
        return joined(self.operators[operator], tag("sub", self.placements[placement]))

    def legend(self, strategies: Iterable[str]) -> str:
        """Explain the short names of these strategies; empty if none is shortened."""
        pairs = [split(strategy) for strategy in strategies]
        shortened = {self.operators[operator]: operator for operator, _ in pairs}
        placed = {self.placements[placement]: placement for _, placement in pairs}
        return "; ".join(
            ", ".join(f"{code} {name}" for code, name in group.items() if code != name) for group in (shortened, placed)
        ).strip("; ")


def split(strategy: str) -> tuple[str, str]:
    """Return operator and placement of `operator@placement`."""
    operator, _, placement = strategy.rpartition("@")
    return operator, placement


def codes_of(evidence: Iterable[StrategyEvidence]) -> Codes:
    """Return short names for all strategies of a report."""
    listed = list(evidence)
    operators = {strategy.operator: _operator(strategy) for strategy in listed}
    placements = {strategy.placement: "".join(tier[0].upper() for tier in strategy.tiers) for strategy in listed}
    return Codes(_unambiguous(operators), _unambiguous(placements))


def _operator(strategy: StrategyEvidence) -> str:
    # By passes and not by name: an operator may be called anything.
    passes = [str(step["name"]) for step in strategy.passes]
    return "".join(_LETTERS.get(name, name[0].upper()) for name in passes) or "I"


def _unambiguous(codes: Mapping[str, str]) -> Mapping[str, str]:
    return codes if len(set(codes.values())) == len(codes) else {name: name for name in codes}
