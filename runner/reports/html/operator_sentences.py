"""What operators change, over all subjects, in sentences: where they are fastest, what they cost and what they save.

The costs are in accuracy, by the study's test and drops; the savings in time beside identity and in the file's size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from catalog.analysis import DropResult, FamilyResult, SubjectResult
from catalog.artifact_details import percentage
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.families import OperatorPair, StudiedOperator, accuracy_pairs
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.study_analysis import AccuracyAnalysis, AccuracyComparison, compare_accuracies
from catalog.units import duration, pvalue
from runner.reports.html.sentences import (
    METRIC_NAMES,
    MissingSubject,
    PairOfSubject,
    SubjectOutcome,
    count,
    extent,
    listed,
    scope,
    sentence,
    split,
    spoken,
    without,
)


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
            missing.append(MissingSubject(result.subject, "fewer than two placements measured in all rounds"))
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


def extreme_medians(operator: str, results: Sequence[SubjectResult], family: str) -> str | None:
    """Name the placements of an operator with the lowest and the highest median, with the medians of each subject."""
    places: dict[str, dict[str, dict[str, float]]] = {"lowest": {}, "highest": {}}
    everyone = []
    for result in results:
        medians = _medians(result, operator, family)
        if len(medians) < 2:
            continue
        everyone.append(result.subject)
        for word, place in (
            ("lowest", min(medians, key=medians.__getitem__)),
            ("highest", max(medians, key=medians.__getitem__)),
        ):
            places[word].setdefault(place, {})[result.subject] = medians[place]
    if not everyone:
        return None
    texts = [
        f"{word} on " + listed([f"{place} ({_named_medians(subjects)})" for place, subjects in by_place.items()])
        for word, by_place in places.items()
    ]
    return sentence(f"the median latency of {spoken(operator)} is {' and '.join(texts)}")


def _medians(result: SubjectResult, operator: str, family: str) -> dict[str, float]:
    """Return the medians of the operator's placements in a family, in seconds."""
    for family_result in result.families:
        if family_result.paper.family.name == family:
            paired = zip(family_result.paper.members, family_result.paper.median.tolist(), strict=True)
            return {split(name)[1]: float(median) for name, median in paired if split(name)[0] == operator}
    return {}


def _named_medians(subjects: dict[str, float]) -> str:
    return listed([f"{subject} {duration(median_s)}" for subject, median_s in subjects.items()])


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
    if outcomes.count(SubjectOutcome.UNDECIDED) == len(outcomes):
        return _undecided_tally(operator, reference, where, compared, missing)
    words = {
        "faster": outcomes.count(SubjectOutcome.LOWER),
        "slower": outcomes.count(SubjectOutcome.HIGHER),
        "equivalent": outcomes.count(SubjectOutcome.EQUIVALENT),
        "unresolved": outcomes.count(SubjectOutcome.UNRESOLVED),
        "not decided": outcomes.count(SubjectOutcome.UNDECIDED),
    }
    text = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = _of_comparisons(len(outcomes))
    return sentence(f"{spoken(operator)} against {spoken(reference)} {where}: {text}{total}{without(missing)}")


def _undecided_tally(
    operator: str, reference: str, where: str, compared: Sequence[PairOfSubject], missing: Sequence[MissingSubject]
) -> str:
    """Count directions of medians where the study's test is significant: all that one round supports."""
    shown = [member.direction for member in compared if member.is_shown]
    words = {
        "lower": shown.count("lower"),
        "higher": shown.count("higher"),
        "not significantly different": len(compared) - len(shown),
    }
    text = ", ".join(f"{word} in {count(number)}" for word, number in words.items() if number)
    total = _of_comparisons(len(compared))
    return sentence(
        f"the median latency of {spoken(operator)} against {spoken(reference)} {where} is {text}{total} by the "
        f"study's test; what decides needs more rounds{without(missing)}"
    )


def _of_comparisons(number: int) -> str:
    return " comparison" if number == 1 else f" of {count(number)} comparisons"


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


# Agreement with identity is not accuracy and takes no part.
METRICS = ("top1", "top5", "miou")


@dataclass(frozen=True)
class StudyAccuracies:
    """Both ways of counting, pair by pair in the same order.

    `missing` names subjects that take no part: some operator has no accuracy of theirs. `untested` are the pairs whose
    drops the study states without a test of their own.
    """

    pooled: AccuracyAnalysis
    once: AccuracyAnalysis
    missing: tuple[str, ...] = ()
    untested: tuple[AccuracyComparison, ...] = ()

    def both(self) -> Iterator[tuple[AccuracyComparison, AccuracyComparison]]:
        """Yield each pair of operators, compared both ways."""
        return zip(self.pooled.comparisons, self.once.comparisons, strict=True)


@dataclass(frozen=True)
class _Slot:
    subject: str
    metric: str
    placement: str


def whole_strategies(result: SubjectResult) -> list[StrategyEvidence]:
    """Return uncut operators on single tiers, measured or not: those that have an accuracy."""
    evidence = [*(strategy.evidence for strategy in result.strategies), *result.unmeasured]
    return [strategy for strategy in evidence if len(strategy.tiers) == 1 and "partition" not in _passes(strategy)]


def _passes(strategy: StrategyEvidence) -> tuple[str, ...]:
    return tuple(str(step["name"]) for step in strategy.passes)


def study_accuracies(results: Sequence[SubjectResult]) -> StudyAccuracies | None:
    """Run the signed-rank tests of all pairs of operators; None if there is nothing to compare."""
    evidence = [whole_strategy for result in results for whole_strategy in whole_strategies(result)]
    operators = {strategy.operator: StudiedOperator(strategy.operator, _passes(strategy), ()) for strategy in evidence}
    values = _values(evidence)
    pairs = [pair for pair in accuracy_pairs(list(operators.values())) if pair.left in values and pair.right in values]
    # A signed-rank test is paired: only where every operator has an accuracy can one be compared with another.
    slots = [slot for slot in next(iter(values.values()), {}) if all(slot in by_slot for by_slot in values.values())]
    if not pairs or not slots:
        return None
    return StudyAccuracies(
        compare_accuracies(_columns(values, slots), pairs),
        compare_accuracies(_columns(values, _once(evidence, slots)), pairs),
        tuple(result.subject for result in results if result.subject not in {slot.subject for slot in slots}),
        # Apart from the tested pairs, whose corrected level depends on how many they are.
        compare_accuracies(_columns(values, slots), _untested(list(values), pairs)).comparisons,
    )


def _untested(operators: Sequence[str], tested: Sequence[OperatorPair]) -> list[OperatorPair]:
    names = {(pair.left, pair.right) for pair in tested}
    return [OperatorPair(*pair, ()) for pair in combinations(operators, 2) if pair not in names]


def _values(evidence: Sequence[StrategyEvidence]) -> dict[str, dict[_Slot, float]]:
    """Return percent by operator, then by subject, metric and tier."""
    values: dict[str, dict[_Slot, float]] = {}
    for strategy in evidence:
        if strategy.accuracy is None or strategy.accuracy.metric == "agreement":
            continue
        for metric in METRICS:
            value = getattr(strategy.accuracy, f"{metric}_pct")
            if value is not None:
                values.setdefault(strategy.operator, {})[_Slot(strategy.subject, metric, strategy.placement)] = value
    return values


def _columns(values: Mapping[str, Mapping[_Slot, float]], slots: Sequence[_Slot]) -> dict[str, list[float]]:
    return {operator: [by_slot[slot] for slot in slots] for operator, by_slot in values.items()}


def _once(evidence: Sequence[StrategyEvidence], slots: Sequence[_Slot]) -> list[_Slot]:
    """Return only the first of tiers that share every accuracy, as those with one provider do."""
    keys: dict[tuple[str, str], list[str]] = {}
    for strategy in evidence:
        keys.setdefault((strategy.subject, strategy.placement), []).append(strategy.accuracy_key)
    # Tiers with one provider share an accuracy measurement; counting it three times would make a p-value smaller
    # without another observation.
    first: dict[tuple[str, str, tuple[str, ...]], _Slot] = {}
    for slot in slots:
        first.setdefault((slot.subject, slot.metric, tuple(keys[slot.subject, slot.placement])), slot)
    return list(first.values())


def wilcoxon_sentence(pooled: AccuracyComparison, once: AccuracyComparison, accuracies: StudyAccuracies) -> str:
    """Return both tests of a pair, with what the study concludes and what remains of it."""
    left, right = spoken(pooled.pair.left), spoken(pooled.pair.right)
    text = (
        f"as in the paper, Wilcoxon's test of {left} against {right} over {pooled.test.count} accuracies that differ: "
        f"p {pvalue(pooled.test.pvalue)}, {_significant(pooled)} at {accuracies.pooled.corrected_alpha:.4g}, "
        f"Cliff's delta {pooled.delta:.2f} ({pooled.magnitude}), drops of {_drops(pooled)} points"
    )
    if once.test.count != pooled.test.count:
        text += (
            f"; tiers that share a provider share a measurement, and with each counted once {once.test.count} remain: "
            f"p {pvalue(once.test.pvalue)}, {_significant(once)}"
        )
    if accuracies.missing:
        text += f"; without {listed(accuracies.missing)} (not every operator has an accuracy there)"
    return sentence(text)


def untested_sentence(comparison: AccuracyComparison) -> str:
    """Return the drops of a pair that the study does not test."""
    left, right = spoken(comparison.pair.left), spoken(comparison.pair.right)
    return sentence(
        f"{right} against {left}: drops of {_drops(comparison)} points over {comparison.test.count} accuracies that "
        f"differ, Cliff's delta {comparison.delta:.2f} ({comparison.magnitude}); the study has no test of this pair"
    )


def _drops(comparison: AccuracyComparison) -> str:
    return extent([comparison.smallest_drop, comparison.largest_drop])


def size_sentence(left: str, right: str, results: Sequence[SubjectResult]) -> str | None:
    """Compare the sizes of two operators' model files, each direction apart; None where no size is known."""
    sizes = [(result.subject, _size(result, left), _size(result, right)) for result in results]
    ratios = {subject: first / second for subject, first, second in sizes if first and second}
    if not ratios:
        return None
    groups = {
        "smaller": {subject: ratio for subject, ratio in ratios.items() if ratio > 1},
        "larger": {subject: 1 / ratio for subject, ratio in ratios.items() if ratio < 1},
    }
    clauses: list[str] = []
    for word, factors in groups.items():
        if factors:
            values = list(factors.values())
            average = " on average" if len(values) > 1 else ""
            note = extent(values, "x") if len(values) > 1 else ""
            where = scope(list(factors), list(ratios), note=note, again=bool(clauses))
            clauses.append(f"{sum(values) / len(values):.2f}x {word}{average} {where}")
    files = f"the model files of {spoken(right)}"
    if not clauses:
        return sentence(f"{files} are as large as those of {spoken(left)}")
    same = [subject for subject, ratio in ratios.items() if ratio == 1]
    rest = f", and as large in {listed(same)}" if same else ""
    return sentence(f"{files} are {' and '.join(clauses)} than those of {spoken(left)}{rest}")


def _size(result: SubjectResult, operator: str) -> int | None:
    strategies = [strategy for strategy in whole_strategies(result) if strategy.operator == operator]
    return next((strategy.size_bytes for strategy in strategies if strategy.size_bytes), None)


def _significant(comparison: AccuracyComparison) -> str:
    return "significant" if comparison.significant else "not significant"


def accuracy_sentences(operator: str, results: Sequence[SubjectResult]) -> Iterator[str]:
    """Yield what the operator loses against identity, one sentence per metric."""
    drops_of_operator = [
        (result.subject, drop) for result in results for drop in result.drops if drop.operator == operator
    ]
    for metric in dict.fromkeys(drop.metric for _, drop in drops_of_operator):
        # Reversed twice: of several providers the first one's drop stays, in the order of the subjects.
        drops = {subject: drop for subject, drop in reversed(drops_of_operator) if drop.metric == metric}
        yield _drop_sentence(operator, metric, dict(reversed(drops.items())))


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
