"""What operators cost in accuracy and save in size, over all subjects: the study's test, drops and ratios of sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from catalog.analysis import DropResult, SubjectResult
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.statistics.accuracy_comparison import AccuracyAnalysis, AccuracyComparison, compare_accuracies
from catalog.statistics.families import OperatorPair, StudiedOperator, accuracy_pairs
from catalog.units import pvalue
from runner.reports.html.sentences import METRIC_NAMES, count, extent, listed, scope, sentence, spoken

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
