"""The study's five questions answered in words, generated from the numbers of all subjects of one environment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from catalog.analysis import DropResult, FamilyResult, PairResult, SubjectResult
from catalog.evidence.strategy_evidence import in_canonical_order
from catalog.output_distance import percentage
from catalog.statistics.families import StrategyFamily, research_questions, strategy_name
from catalog.statistics.outcomes import ComparisonOutcome
from runner.reports.html.figures import families_of_all
from runner.reports.html.sentences import (
    METRIC_NAMES,
    MissingSubject,
    PairOfSubject,
    SubjectOutcome,
    count,
    extent,
    listed,
    pair_sentence,
    scope,
    sentence,
    split,
    spoken,
    without,
)
from runner.reports.html.study_tables import StudyAccuracies, study_accuracies, wilcoxon_sentence


def fastest_sentence(operator: str, results: Sequence[SubjectResult], family: str) -> str | None:
    """Name the placements where an operator is fastest: those that none of the others is shown to beat."""
    fronts: dict[tuple[str, ...], list[str]] = {}
    missing: list[MissingSubject] = []
    decided = True
    everyone = []
    for result in results:
        family_result = next(
            (candidate for candidate in result.families if candidate.paper.family.name == family), None
        )
        members = (
            []
            if family_result is None
            else [name for name in family_result.paper.members if split(name)[0] == operator]
        )
        if family_result is None or len(members) < 2:
            missing.append(MissingSubject(result.subject, "fewer than two placements measured"))
        else:
            front = _unbeaten(family_result, members)
            # One pair without a decision leaves open whether another placement is faster.
            decided &= all(pair.decided.refusal is None for pair in family_result.pairs)
            everyone.append(result.subject)
            # Subjects with the same placements share a clause.
            fronts.setdefault(tuple(split(name)[1] for name in front), []).append(result.subject)
    if not fronts:
        return None
    clauses = [
        f"on {_placed(front)} {scope(subjects, everyone, again=number > 0)}"
        for number, (front, subjects) in enumerate(fronts.items())
    ]
    if not decided:
        return sentence(f"what was measured does not decide where {spoken(operator)} is fastest everywhere")
    return sentence(f"{spoken(operator)} is fastest {listed(clauses)}{without(missing)}")


def _placed(front: Sequence[str]) -> str:
    return front[0] if len(front) == 1 else f"{' or '.join(front)} (not shown to differ)"


def _unbeaten(family: FamilyResult, members: Sequence[str]) -> list[str]:
    """Return the members that no other is shown to be faster than, the smallest median first."""
    beaten = set()
    for pair in family.pairs:
        left, right = pair.paper.left, pair.paper.right
        if pair.decided.verdict is ComparisonOutcome.DIFFERENT and pair.decided.high is not None:
            # A ratio of left by right below 1: the left one is faster.
            loser, winner = (right, left) if pair.decided.high < 1 else (left, right)
            if winner in members:
                beaten.add(loser)
    medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
    return sorted((name for name in members if name not in beaten), key=lambda name: float(medians[name]))


def tally_sentence(
    operator: str,
    reference: str,
    where: str,
    compared: Sequence[PairOfSubject],
    *,
    missing: Sequence[MissingSubject] = (),
) -> str | None:
    """Count how often the operator is faster or slower, over subjects and tiers."""
    if not compared:
        return None
    outcomes = [member.outcome for member in compared]
    words = {
        "faster": outcomes.count(SubjectOutcome.LOWER),
        "slower": outcomes.count(SubjectOutcome.HIGHER),
        "equivalent": outcomes.count(SubjectOutcome.EQUIVALENT),
        "unresolved": outcomes.count(SubjectOutcome.UNRESOLVED),
        "not decided": outcomes.count(SubjectOutcome.UNDECIDED),
    }
    text = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = f"{count(len(outcomes))} comparison{'s' if len(outcomes) > 1 else ''}"
    return sentence(f"{spoken(operator)} against {spoken(reference)} {where}: {text} of {total}{without(missing)}")


def accuracy_sentences(operator: str, results: Sequence[SubjectResult]) -> Iterator[str]:
    """Yield what the operator loses against identity, one sentence per metric."""
    drops_of_operator = [
        (result.subject, drop) for result in results for drop in result.drops if drop.operator == operator
    ]
    for metric in dict.fromkeys(drop.metric for _, drop in drops_of_operator):
        # Reversed twice: of several providers the first one's drop stays, in the order of the subjects.
        drops = {subject: drop for subject, drop in reversed(drops_of_operator) if drop.metric == metric}
        yield _drop_sentence(operator, metric, dict(reversed(drops.items())))


def outputs_sentence(operator: str, results: Sequence[SubjectResult]) -> str | None:
    """Name the subjects where the operator's outputs are far from identity's; None if there are none."""
    far: dict[str, str] = {}
    for result in results:
        for strategy in result.strategies:
            distance = strategy.evidence.output_distance
            if strategy.evidence.operator != operator or distance is None or not distance.is_large:
                continue
            error = distance.relative_error
            far[result.subject] = "in what is finite" if error is None else f"by {percentage(error)}"
    if not far:
        return None
    figures = listed([f"{figure} in {subject}" for subject, figure in far.items()])
    return sentence(f"{spoken(operator)} gives other outputs than identity: they differ {figures}")


def _drop_sentence(operator: str, metric: str, drops: dict[str, DropResult]) -> str:
    lost = extent([drop.drop.drop_pp for drop in drops.values()])
    name = METRIC_NAMES.get(metric, metric)
    # Where the interval leaves zero out; a gain is shown as well as a drop.
    shown = [subject for subject, drop in drops.items() if drop.drop.low_pp > 0 or drop.drop.high_pp < 0]
    if len(drops) == 1:
        finding = "shown" if shown else "not shown to differ from zero"
        return sentence(f"{spoken(operator)} has a {name} drop of {lost} points in {next(iter(drops))}, {finding}")
    finding = (
        f"shown in {count(len(shown))} of {count(len(drops))}" if shown else "not shown to differ from zero in any"
    )
    return sentence(f"{spoken(operator)} has a {name} drop of {lost} points across {listed(list(drops))}; {finding}")


def against_whole(operator: str, results: Sequence[SubjectResult]) -> tuple[str, list[PairOfSubject]]:
    """Compare a cut operator on its fastest placement with the uncut one on its fastest tier; also name that."""
    whole, compared = "", []
    for result in results:
        family = next(
            (family for family in result.families if family.paper.family.name == f"partitions:{operator}"), None
        )
        if family is None:
            continue
        across = [name for name in family.paper.members if split(name)[0] == operator]
        single = [name for name in family.paper.members if split(name)[0] != operator]
        if across and single:
            whole = split(single[0])[0]
            best = _unbeaten(family, single)[0], _unbeaten(family, across)[0]
            # A family lists single tiers before placements across tiers, so that its pairs have them on the left.
            pair = next(pair for pair in family.pairs if (pair.paper.left, pair.paper.right) == best)
            medians = dict(zip(family.paper.members, family.paper.median.tolist(), strict=True))
            compared.append(PairOfSubject(result.subject, medians[best[1]], medians[best[0]], pair, turned=True))
    return whole, compared


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
    pairs: tuple[_Pair, ...]
    accuracies: StudyAccuracies | None


def summarise(results: Sequence[SubjectResult]) -> tuple[QuestionSummary, ...]:
    """Summarise every question that some operator belongs to, in order."""
    passes = _passes(results)
    basis = _SummaryBasis(results, passes, tuple(_pairs(results)), study_accuracies(results))
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
                (*(_sentence(pair, passes) for pair in key), *_tests(question, basis.accuracies)),
                tuple(_sentence(pair, passes) for pair in mine if pair not in key),
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


def _question_of(pair: _Pair, passes: Mapping[str, Sequence[str]]) -> str:
    """Return the later of the two operators' questions; an operator that the study did not have comes last."""
    order = list(QUESTIONS)
    return max((_question(passes[split(name)[0]]) for name in (pair.spoken_of, pair.reference)), key=order.index)


def _pairs(results: Sequence[SubjectResult]) -> Iterator[_Pair]:
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
                yield _Pair(family, left, right, tuple(members), missing)
            else:
                yield _Pair(family, right, left, tuple(map(_turned, members)), missing)


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
    return " and ".join(reasons) or "not compared there"


def _left_is_spoken_of(left: str, right: str, members: Sequence[PairOfSubject]) -> bool:
    """Return whether `left` is the subject of the sentence: the placement that is faster on average."""
    # Of two operators the later one of the family is spoken of, against the earlier.
    if split(left)[0] != split(right)[0]:
        return False
    # In logarithms: a subject that is twice as fast and one that is half as fast cancel out.
    return sum(math.log(member.median_s / member.reference_s) for member in members) <= 0


def _is_key(pair: _Pair, passes: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a pair is a key finding: two placements, identity, or the placement nearest to the client."""
    operator, reference = split(pair.spoken_of)[0], split(pair.reference)[0]
    if operator == reference:
        return True
    if pair.family.kind == "partitions":
        # A cut on its placement nearest to the client stands for the others, which are folded below.
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


def _answers(question: str, basis: _SummaryBasis) -> Iterator[str]:
    for operator, steps in basis.passes.items():
        if _question(steps) == question:
            sentences = _of_partition(operator, basis) if "partition" in steps else _of_whole(operator, basis)
            yield from (text for text in sentences if text is not None)


def _tests(question: str, accuracies: StudyAccuracies | None) -> Iterator[str]:
    """Yield the study's test of accuracies, pair by pair."""
    if accuracies is None:
        return
    for pooled, once in accuracies.both():
        if question in pooled.pair.questions:
            yield wilcoxon_sentence(pooled, once, accuracies)


def _of_partition(operator: str, basis: _SummaryBasis) -> Iterator[str | None]:
    yield fastest_sentence(operator, basis.results, f"partitions:{operator}")
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
    yield from accuracy_sentences(operator, basis.results)


def _same_tier(operator: str, identity: str, pairs: Sequence[_Pair]) -> list[_Pair]:
    return [
        pair
        for pair in pairs
        # Chained: the one spoken of is the operator, the reference is identity, and the two differ.
        if split(pair.spoken_of)[0] == operator != split(pair.reference)[0] == identity
        and split(pair.spoken_of)[1] == split(pair.reference)[1]
    ]
