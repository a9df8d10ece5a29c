"""The study's five questions answered in words, generated from the numbers of all subjects of one environment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from catalog.analysis import FamilyResult, PairResult, SubjectResult
from catalog.evidence.strategy_evidence import in_canonical_order
from catalog.statistics import Family, strategy_name
from catalog.statistics.families import research_questions
from runner.reports.html.accuracy_pairs import StudyAccuracies, study_accuracies, wilcoxon_sentence
from runner.reports.html.codes import split
from runner.reports.html.grouping import families_of_all
from runner.reports.html.headlines import (
    accuracy_sentences,
    against_whole,
    fastest_sentence,
    outputs_sentence,
    tally_sentence,
)
from runner.reports.html.sentences import MissingSubject, PairOfSubject, pair_sentence
from runner.reports.html.words import spoken

QUESTIONS = {
    "RQ1": "Which tier for the model as it is?",
    "RQ2": "What does quantization change?",
    "RQ3": "What does early exit change?",
    "RQ4": "What does partitioning change?",
    "RQ5": "What do combined operators change?",
    "": "Operators that the study did not have",
}


@dataclass(frozen=True)
class QuestionSummary:
    """One question: the answer in short, the findings behind it, and all other comparisons that belong to it."""

    question: str
    title: str
    answers: tuple[str, ...]
    findings: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
    """Two strategies of a family over all subjects; `spoken_of` is compared with `reference`."""

    family: Family
    spoken_of: str
    reference: str
    members: tuple[PairOfSubject, ...]
    missing: tuple[MissingSubject, ...]


@dataclass(frozen=True, eq=False)
class _Told:
    """All that answers are made of."""

    results: Sequence[SubjectResult]
    passes: Mapping[str, Sequence[str]]
    pairs: tuple[_Pair, ...]
    accuracies: StudyAccuracies | None


def summarise(results: Sequence[SubjectResult]) -> tuple[QuestionSummary, ...]:
    """Every question that some operator belongs to, in order."""
    passes = _passes(results)
    told = _Told(results, passes, tuple(_pairs(results)), study_accuracies(results))
    found = []
    for question, title in QUESTIONS.items():
        mine = [pair for pair in told.pairs if _question_of(pair, passes) == question]
        if question not in {_question(steps) for steps in passes.values()}:
            continue
        key = [pair for pair in mine if _is_key(pair, passes)]
        found.append(
            QuestionSummary(
                question,
                title,
                tuple(_answers(question, told)),
                (*(_sentence(pair, passes) for pair in key), *_tests(question, told.accuracies)),
                tuple(_sentence(pair, passes) for pair in mine if pair not in key),
            )
        )
    return tuple(found)


def _passes(results: Sequence[SubjectResult]) -> Mapping[str, Sequence[str]]:
    evidence = [each for result in results for each in (*(s.evidence for s in result.strategies), *result.unmeasured)]
    return {each.operator: tuple(str(step["name"]) for step in each.passes) for each in in_canonical_order(evidence)}


def _question(steps: Sequence[str]) -> str:
    return next(iter(research_questions(steps)), "")


def _question_of(pair: _Pair, passes: Mapping[str, Sequence[str]]) -> str:
    """The later one of the two operators'; an operator the study did not have comes last."""
    order = list(QUESTIONS)
    return max((_question(passes[split(name)[0]]) for name in (pair.spoken_of, pair.reference)), key=order.index)


def _pairs(results: Sequence[SubjectResult]) -> Iterator[_Pair]:
    """Every pair of every family once, whichever families hold it."""
    seen: set[frozenset[str]] = set()
    for family in families_of_all(results):
        for left, right in combinations(family.members, 2):
            if frozenset((left, right)) in seen or _two_singles(family, left, right):
                continue
            members = list(_members(results, family.name, left, right))
            if not members:
                continue
            seen.add(frozenset((left, right)))
            missing = tuple(_missing(results, left, right, members))
            if _left_is_spoken_of(left, right, members):
                yield _Pair(family, left, right, tuple(members), missing)
            else:
                yield _Pair(family, right, left, tuple(map(_turned, members)), missing)


def _turned(member: PairOfSubject) -> PairOfSubject:
    return PairOfSubject(member.subject, member.reference_s, member.median_s, member.pair, turned=not member.turned)


def _two_singles(family: Family, left: str, right: str) -> bool:
    """In a family of partitions, two placements of the uncut operator: they belong to its own family."""
    operator = family.name.partition(":")[2]
    return family.kind == "partitions" and operator not in (split(left)[0], split(right)[0])


def _members(results: Sequence[SubjectResult], family: str, left: str, right: str) -> Iterator[PairOfSubject]:
    """The pair of every subject that compares it, in this family or, where it is in none of that name, in another."""
    for result in results:
        ordered = sorted(result.families, key=lambda found: found.paper.family.name != family)
        member = next(
            (
                _member(result.subject, found, pair, left)
                for found in ordered
                for pair in found.pairs
                if {pair.paper.left, pair.paper.right} == {left, right}
            ),
            None,
        )
        if member is not None:
            yield member


def _member(subject: str, family: FamilyResult, pair: PairResult, left: str) -> PairOfSubject:
    medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
    own, other = medians[pair.paper.left], medians[pair.paper.right]
    if pair.paper.left == left:
        return PairOfSubject(subject, own, other, pair, turned=False)
    return PairOfSubject(subject, other, own, pair, turned=True)


def _missing(
    results: Sequence[SubjectResult], left: str, right: str, members: Sequence[PairOfSubject]
) -> Iterator[MissingSubject]:
    """Subjects without the pair: they are not in its average, and nobody may have to count to notice."""
    compared = {member.subject for member in members}
    for result in results:
        if result.subject not in compared:
            yield MissingSubject(result.subject, _why_missing(result, (left, right)))


def _why_missing(result: SubjectResult, names: Sequence[str]) -> str:
    measured = {strategy.name for strategy in result.strategies}
    unmeasured = {strategy_name(row.operator, row.tiers): row for row in result.unmeasured}
    reasons = []
    for name in names:
        if name in unmeasured:
            row = unmeasured[name]
            reasons.append(f"{name} {'inapplicable' if row.status == 'inapplicable' else 'not measured'}")
        elif name not in measured:
            reasons.append(f"{name} not declared")
    return " and ".join(reasons) or "not compared there"


def _left_is_spoken_of(left: str, right: str, members: Sequence[PairOfSubject]) -> bool:
    """Two placements of one operator: the faster one, on average; else the one listed later is compared."""
    if split(left)[0] != split(right)[0]:
        return False
    return sum(math.log(each.median_s / each.reference_s) for each in members) <= 0


def _is_key(pair: _Pair, passes: Mapping[str, Sequence[str]]) -> bool:
    """Placements of one operator; an operator against identity; of a cut one, the placement nearest to the client."""
    operator, reference = split(pair.spoken_of)[0], split(pair.reference)[0]
    if operator == reference:
        return True
    if pair.family.kind == "partitions":
        nearest = next(name for name in pair.family.members if split(name)[0] == operator)
        return pair.spoken_of == nearest
    return not passes[reference] and "partition" not in passes[operator]


def _sentence(pair: _Pair, passes: Mapping[str, Sequence[str]]) -> str:
    (operator, placement), (other, where) = split(pair.spoken_of), split(pair.reference)
    if operator == other and not passes[operator]:
        return pair_sentence(placement, where, pair.members, missing=pair.missing)
    if operator == other:
        return pair_sentence(f"{spoken(operator)} on {placement}", f"on {where}", pair.members, missing=pair.missing)
    if placement == where:
        return pair_sentence(
            spoken(operator), spoken(other), pair.members, where=f"on {placement}, ", missing=pair.missing
        )
    return pair_sentence(
        f"{spoken(operator)} on {placement}", f"{spoken(other)} on {where}", pair.members, missing=pair.missing
    )


def _answers(question: str, told: _Told) -> Iterator[str]:
    for operator, steps in told.passes.items():
        if _question(steps) == question:
            found = _of_partition(operator, told) if "partition" in steps else _of_whole(operator, told)
            yield from (each for each in found if each is not None)


def _tests(question: str, accuracies: StudyAccuracies | None) -> Iterator[str]:
    """The study's test of accuracies, pair by pair."""
    if accuracies is None:
        return
    for pooled, once in accuracies.both():
        if question in pooled.pair.questions:
            yield wilcoxon_sentence(pooled, once, accuracies)


def _of_partition(operator: str, told: _Told) -> Iterator[str | None]:
    yield fastest_sentence(operator, told.results, f"partitions:{operator}")
    whole, compared = against_whole(operator, told.results)
    yield tally_sentence(operator, whole, "on its fastest tier", compared)


def _of_whole(operator: str, told: _Told) -> Iterator[str | None]:
    yield outputs_sentence(operator, told.results)
    identity = next((name for name, steps in told.passes.items() if not steps), "")
    same = _same_tier(operator, identity, told.pairs)
    compared = [member for pair in same for member in pair.members]
    missing = {entry: None for pair in same for entry in pair.missing}
    yield tally_sentence(operator, identity, "on the same tier", compared, missing=list(missing))
    yield fastest_sentence(operator, told.results, f"tiers:{operator}")
    yield from accuracy_sentences(operator, told.results)


def _same_tier(operator: str, identity: str, pairs: Sequence[_Pair]) -> list[_Pair]:
    return [
        pair
        for pair in pairs
        if split(pair.spoken_of)[0] == operator != split(pair.reference)[0] == identity
        and split(pair.spoken_of)[1] == split(pair.reference)[1]
    ]
