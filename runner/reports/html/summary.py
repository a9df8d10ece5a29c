"""The study's five questions answered in words, generated from the numbers of all subjects of one environment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from catalog.analysis import FamilyResult, PairResult, StrategyResult, SubjectResult
from catalog.evidence.strategy_evidence import in_canonical_order
from catalog.statistics.families import StrategyFamily, research_questions, strategy_name
from runner.reports.html.figures import families_of_all
from runner.reports.html.operator_sentences import (
    StudyAccuracies,
    accuracy_sentences,
    against_whole,
    extreme_medians,
    fastest_sentence,
    outputs_sentence,
    size_sentence,
    study_accuracies,
    tally_sentence,
    untested_sentence,
    whole_strategies,
    wilcoxon_sentence,
)
from runner.reports.html.reasons import (
    MeasuredCauses,
    condition_sentences,
    limit_sentences,
    node_sentence,
    pair_reason,
    size_slopes,
)
from runner.reports.html.sentences import MissingSubject, PairOfSubject, pair_sentence, split, spoken

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
    """One question: the answer in short, the findings behind it, and all other comparisons that belong to it.

    `operators` are those of the question, `pairs` the comparisons of `findings` and `others`, for tables by subject;
    `reasons` link findings to what was measured of parts, bytes, nodes and limits.
    """

    question: str
    title: str
    answers: tuple[str, ...]
    findings: tuple[str, ...]
    others: tuple[str, ...]
    operators: tuple[str, ...]
    pairs: tuple["StrategyPair", ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class StrategyPair:
    """Two strategies of a family over all subjects; `spoken_of` is compared with `reference`."""

    family: StrategyFamily
    spoken_of: str
    reference: str
    members: tuple[PairOfSubject, ...]
    missing: tuple[MissingSubject, ...]


@dataclass(frozen=True, eq=False)
class _SummaryBasis:
    """The data that all answers are made from."""

    results: Sequence[SubjectResult]
    passes: Mapping[str, Sequence[str]]
    pairs: tuple[StrategyPair, ...]
    accuracies: StudyAccuracies | None
    causes: MeasuredCauses

    @property
    def strategies(self) -> Mapping[tuple[str, str], StrategyResult]:
        """The measured strategies by subject and name."""
        return {(result.subject, row.name): row for result in self.results for row in result.strategies}


def summarise(results: Sequence[SubjectResult], causes: MeasuredCauses | None = None) -> tuple[QuestionSummary, ...]:
    """Summarise every question that some operator belongs to, in order; without causes, no reasons are given."""
    passes = _passes(results)
    accuracies = study_accuracies(results)
    basis = _SummaryBasis(results, passes, tuple(_pairs(results)), accuracies, causes or MeasuredCauses())
    summaries = []
    for question, title in QUESTIONS.items():
        mine = [pair for pair in basis.pairs if _question_of(pair, passes) == question]
        if question not in {_question(steps) for steps in passes.values()}:
            continue
        key = [pair for pair in mine if _is_key(pair, passes)]
        summaries.append(
            QuestionSummary(
                question,
                title,
                tuple(_answers(question, basis)),
                (*(pair_finding(pair, passes) for pair in key), *_accuracies_and_sizes(question, basis)),
                tuple(pair_finding(pair, passes) for pair in mine if pair not in key),
                tuple(operator for operator, steps in passes.items() if _question(steps) == question),
                tuple(mine),
                tuple(_reasons(question, key, basis)),
            )
        )
    return tuple(summaries)


def _passes(results: Sequence[SubjectResult]) -> Mapping[str, Sequence[str]]:
    evidence = [
        strategy for result in results for strategy in (*(s.evidence for s in result.strategies), *result.unmeasured)
    ]
    return {
        strategy.operator: tuple(str(step["name"]) for step in strategy.passes)
        for strategy in in_canonical_order(evidence)
    }


def _question(steps: Sequence[str]) -> str:
    return next(iter(research_questions(steps)), "")


def _question_of(pair: StrategyPair, passes: Mapping[str, Sequence[str]]) -> str:
    return _later_question((split(pair.spoken_of)[0], split(pair.reference)[0]), passes)


def _later_question(operators: tuple[str, str], passes: Mapping[str, Sequence[str]]) -> str:
    """Return the later of the two operators' questions; an operator that the study did not have comes last."""
    order = list(QUESTIONS)
    return max((_question(passes[operator]) for operator in operators), key=order.index)


def _pairs(results: Sequence[SubjectResult]) -> Iterator[StrategyPair]:
    """Yield every pair of every family once, even if several families hold it."""
    seen: set[frozenset[str]] = set()
    for family in families_of_all(results):
        # Families overlap, and a sentence that stands twice reads like two findings.
        for left, right in combinations(family.members, 2):
            if frozenset((left, right)) in seen or _two_singles(family, left, right):
                continue
            members = list(_members(results, family.name, left, right))
            if not members:
                continue
            seen.add(frozenset((left, right)))
            missing = tuple(_missing(results, left, right, members))
            if _left_is_spoken_of(left, right, members):
                yield StrategyPair(family, left, right, tuple(members), missing)
            else:
                yield StrategyPair(family, right, left, tuple(map(_turned, members)), missing)


def _turned(member: PairOfSubject) -> PairOfSubject:
    return PairOfSubject(member.subject, member.reference_s, member.median_s, member.pair, turned=not member.turned)


def _two_singles(family: StrategyFamily, left: str, right: str) -> bool:
    """Return whether both are placements of the uncut operator, which belong to its own family."""
    operator = family.name.partition(":")[2]
    return family.kind == "partitions" and operator not in (split(left)[0], split(right)[0])


def _members(results: Sequence[SubjectResult], family: str, left: str, right: str) -> Iterator[PairOfSubject]:
    """Yield the pair of every subject that compares it, in this family or, if not in this one, in another."""
    for result in results:
        # The family of the sentence first: False sorts before True.
        ordered = sorted(result.families, key=lambda other_family: other_family.paper.family.name != family)
        member = next(
            (
                _member(result.subject, other_family, pair, left)
                for other_family in ordered
                for pair in other_family.pairs
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
    """Yield the subjects without the pair, so that readers need not count who is missing from the average."""
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
    return " and ".join(reasons) or "rounds differ"


def _left_is_spoken_of(left: str, right: str, members: Sequence[PairOfSubject]) -> bool:
    """Return whether `left` is the subject of the sentence: the placement that is faster on average."""
    # Of two operators the later one of the family is spoken of, against the earlier.
    if split(left)[0] != split(right)[0]:
        return False
    # In logarithms: a subject that is twice as fast and one that is half as fast cancel out.
    return sum(math.log(member.median_s / member.reference_s) for member in members) <= 0


def _is_key(pair: StrategyPair, passes: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a pair is a key finding: two placements, identity, or the placement nearest to the client."""
    operator, reference = split(pair.spoken_of)[0], split(pair.reference)[0]
    if operator == reference:
        return True
    if pair.family.kind == "partitions":
        # A cut on its placement nearest to the client stands for the others, which are folded below.
        nearest = next(name for name in pair.family.members if split(name)[0] == operator)
        return pair.spoken_of == nearest
    return not passes[reference] and "partition" not in passes[operator]


def pair_finding(pair: StrategyPair, passes: Mapping[str, Sequence[str]]) -> str:
    """Return the sentence of a pair, which does not name identity where both are of it."""
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


def _answers(question: str, basis: _SummaryBasis) -> Iterator[str]:
    for operator, steps in basis.passes.items():
        if _question(steps) == question:
            sentences = _of_partition(operator, basis) if "partition" in steps else _of_whole(operator, basis)
            yield from (text for text in sentences if text is not None)


def _accuracies_and_sizes(question: str, basis: _SummaryBasis) -> Iterator[str]:
    """Yield the study's tests of accuracies, the drops of the other pairs, and how the sizes of models differ."""
    passes, accuracies = basis.passes, basis.accuracies
    if accuracies is not None:
        for pooled, once in accuracies.both():
            if question in pooled.pair.questions:
                yield wilcoxon_sentence(pooled, once, accuracies)
        for comparison in accuracies.untested:
            if _later_question((comparison.pair.left, comparison.pair.right), passes) == question:
                yield untested_sentence(comparison)
    whole = {strategy.operator for result in basis.results for strategy in whole_strategies(result)}
    for pair in combinations([operator for operator in passes if operator in whole], 2):
        if _later_question(pair, passes) == question and (text := size_sentence(*pair, basis.results)):
            yield text


def _reasons(question: str, key: Sequence[StrategyPair], basis: _SummaryBasis) -> Iterator[str]:
    """Yield what explains the findings of a question, as far as it was measured."""
    causes, results, strategies = basis.causes, basis.results, basis.strategies
    operators = [operator for operator, steps in basis.passes.items() if _question(steps) == question]
    if question == "RQ1":
        yield from condition_sentences(results, causes)
    for operator in operators:
        yield from node_sentence(operator, results, causes)
        yield from limit_sentences(operator, results, causes)
        names = dict.fromkeys(name for _, name in strategies if split(name)[0] == operator)
        yield from size_slopes(results, list(names), causes)
    for pair in key:
        yield from pair_reason(pair.spoken_of, pair.reference, pair.members, strategies, causes)


def _of_partition(operator: str, basis: _SummaryBasis) -> Iterator[str | None]:
    yield fastest_sentence(operator, basis.results, f"partitions:{operator}")
    yield extreme_medians(operator, basis.results, f"partitions:{operator}")
    whole, compared = against_whole(operator, basis.results)
    yield tally_sentence(operator, whole, "on its fastest tier", compared)


def _of_whole(operator: str, basis: _SummaryBasis) -> Iterator[str | None]:
    yield outputs_sentence(operator, basis.results)
    identity = next((name for name, steps in basis.passes.items() if not steps), "")
    same = _same_tier(operator, identity, basis.pairs)
    compared = [member for pair in same for member in pair.members]
    # A dictionary as an ordered set: one subject may be missing on several tiers for one reason.
    missing = {entry: None for pair in same for entry in pair.missing}
    yield tally_sentence(operator, identity, "on the same tier", compared, missing=list(missing))
    yield fastest_sentence(operator, basis.results, f"tiers:{operator}")
    yield extreme_medians(operator, basis.results, f"tiers:{operator}")
    yield from accuracy_sentences(operator, basis.results)


def _same_tier(operator: str, identity: str, pairs: Sequence[StrategyPair]) -> list[StrategyPair]:
    return [
        pair
        for pair in pairs
        # Chained: the one spoken of is the operator, the reference is identity, and the two differ.
        if split(pair.spoken_of)[0] == operator != split(pair.reference)[0] == identity
        and split(pair.spoken_of)[1] == split(pair.reference)[1]
    ]
