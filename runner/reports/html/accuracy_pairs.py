"""Accuracies compared over subjects as in the study, and with each measurement counted once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.analysis import SubjectResult
from catalog.evidence.store import StrategyEvidence
from catalog.statistics import AccuracyAnalysis, AccuracyComparison, StudiedOperator, accuracy_pairs, compare_accuracies
from runner.reports.html.quantile_plots import pvalue
from runner.reports.html.words import listed, sentence, spoken

# Agreement with identity is not accuracy and takes no part.
METRICS = ("top1", "top5", "miou")


@dataclass(frozen=True)
class StudyAccuracies:
    """Both ways of counting, pair by pair in the same order.

    `missing` names subjects that take no part: some operator has no accuracy of theirs.
    """

    pooled: AccuracyAnalysis
    once: AccuracyAnalysis
    missing: tuple[str, ...] = ()

    def both(self) -> Iterator[tuple[AccuracyComparison, AccuracyComparison]]:
        """Each pair of operators, compared both ways."""
        return zip(self.pooled.comparisons, self.once.comparisons, strict=True)


@dataclass(frozen=True)
class _Slot:
    subject: str
    metric: str
    placement: str


def whole_strategies(result: SubjectResult) -> list[StrategyEvidence]:
    """Uncut operators on single tiers, measured or not: those with an accuracy of their own."""
    evidence = [*(each.evidence for each in result.strategies), *result.unmeasured]
    return [each for each in evidence if len(each.tiers) == 1 and "partition" not in _passes(each)]


def _passes(each: StrategyEvidence) -> tuple[str, ...]:
    return tuple(str(step["name"]) for step in each.passes)


def study_accuracies(results: Sequence[SubjectResult]) -> StudyAccuracies | None:
    """The signed-rank tests of all pairs of operators; None where there is nothing to compare."""
    evidence = [each for result in results for each in whole_strategies(result)]
    operators = {each.operator: StudiedOperator(each.operator, _passes(each), ()) for each in evidence}
    values = _values(evidence)
    pairs = [pair for pair in accuracy_pairs(list(operators.values())) if pair.left in values and pair.right in values]
    slots = [slot for slot in next(iter(values.values()), {}) if all(slot in known for known in values.values())]
    if not pairs or not slots:
        return None
    return StudyAccuracies(
        compare_accuracies(_columns(values, slots), pairs),
        compare_accuracies(_columns(values, _once(evidence, slots)), pairs),
        tuple(result.subject for result in results if result.subject not in {slot.subject for slot in slots}),
    )


def _values(evidence: Sequence[StrategyEvidence]) -> dict[str, dict[_Slot, float]]:
    """Percent by operator, then by subject, metric and tier."""
    found: dict[str, dict[_Slot, float]] = {}
    for each in evidence:
        if each.accuracy is None or each.accuracy.metric == "agreement":
            continue
        for metric in METRICS:
            value = getattr(each.accuracy, f"{metric}_pct")
            if value is not None:
                found.setdefault(each.operator, {})[_Slot(each.subject, metric, each.placement)] = value
    return found


def _columns(values: Mapping[str, Mapping[_Slot, float]], slots: Sequence[_Slot]) -> dict[str, list[float]]:
    return {operator: [known[slot] for slot in slots] for operator, known in values.items()}


def _once(evidence: Sequence[StrategyEvidence], slots: Sequence[_Slot]) -> list[_Slot]:
    """Of tiers that share every accuracy, as those with one provider do, only the first."""
    keys: dict[tuple[str, str], list[str]] = {}
    for each in evidence:
        keys.setdefault((each.subject, each.placement), []).append(each.accuracy_key)
    first: dict[tuple[str, str, tuple[str, ...]], _Slot] = {}
    for slot in slots:
        first.setdefault((slot.subject, slot.metric, tuple(keys[slot.subject, slot.placement])), slot)
    return list(first.values())


def wilcoxon_sentence(pooled: AccuracyComparison, once: AccuracyComparison, accuracies: StudyAccuracies) -> str:
    """Both tests of a pair, with what the study concludes and what remains of it."""
    left, right = spoken(pooled.pair.left), spoken(pooled.pair.right)
    told = (
        f"as in the paper, Wilcoxon's test of {left} against {right} over {pooled.test.count} accuracies that differ: "
        f"p {pvalue(pooled.test.pvalue)}, {_significant(pooled)} at {accuracies.pooled.corrected_alpha:.4g}, "
        f"Cliff's delta {pooled.delta:.2f} ({pooled.magnitude})"
    )
    if once.test.count != pooled.test.count:
        told += (
            f"; tiers that share a provider share a measurement, and with each counted once {once.test.count} remain: "
            f"p {pvalue(once.test.pvalue)}, {_significant(once)}"
        )
    if accuracies.missing:
        told += f"; without {listed(accuracies.missing)} (not every operator has an accuracy there)"
    return sentence(told)


def _significant(each: AccuracyComparison) -> str:
    return "significant" if each.significant else "not significant"
