"""Accuracies as the study's Table 6, with drops, intervals and McNemar's p."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog.analysis import DropResult, SubjectResult
from catalog.evidence import StrategyEvidence
from catalog.statistics import AccuracyAnalysis, AccuracyComparison, StudiedOperator, accuracy_pairs, compare_accuracies
from catalog.units import points, size
from runner.reports.html.markup import Html, table
from runner.reports.html.sentences import METRIC_NAMES, listed, sentence, spoken
from runner.reports.ranking import pvalue

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
    )


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
        f"Cliff's delta {pooled.delta:.2f} ({pooled.magnitude})"
    )
    if once.test.count != pooled.test.count:
        text += (
            f"; tiers that share a provider share a measurement, and with each counted once {once.test.count} remain: "
            f"p {pvalue(once.test.pvalue)}, {_significant(once)}"
        )
    if accuracies.missing:
        text += f"; without {listed(accuracies.missing)} (not every operator has an accuracy there)"
    return sentence(text)


def _significant(comparison: AccuracyComparison) -> str:
    return "significant" if comparison.significant else "not significant"


def accuracy_table(results: Sequence[SubjectResult]) -> Html | None:
    """Return a row per subject and uncut operator; None without accuracies."""
    evidence = [whole_strategy for result in results for whole_strategy in whole_strategies(result)]
    judged = [strategy for strategy in evidence if strategy.accuracy is not None]
    if not judged:
        return None
    placements = list(dict.fromkeys(strategy.placement for strategy in evidence))
    metrics = [
        name for name in (*METRICS, "agreement") if any(_value(strategy, name) is not None for strategy in judged)
    ]
    heads = ["subject, operator", "size", *(f"{METRIC_NAMES[m]} {p}, %" for m in metrics for p in placements)]
    rows = (
        [*_row(members, metrics, placements), *_drop_cells(members, result)]
        for result in results
        for members in _by_operator(result)
    )
    caption = (
        "Accuracy over the whole validation set (as Table 6). Drops are against identity, in percentage points, with "
        "intervals that hold together, paired by item"
    )
    return table(caption, [*heads, "drop [interval]", "McNemar p", "lost, gained"], rows)


def _by_operator(result: SubjectResult) -> list[list[StrategyEvidence]]:
    groups: dict[str, list[StrategyEvidence]] = {}
    for whole_strategy in whole_strategies(result):
        groups.setdefault(whole_strategy.operator, []).append(whole_strategy)
    return list(groups.values())


def _value(strategy: StrategyEvidence, metric: str) -> float | None:
    if strategy.accuracy is None:
        return None
    if strategy.accuracy.metric == "agreement":
        return strategy.accuracy.accuracy_pct if metric == "agreement" else None
    value: float | None = getattr(strategy.accuracy, f"{metric}_pct", None)
    return value


def _row(members: Sequence[StrategyEvidence], metrics: Sequence[str], placements: Sequence[str]) -> Iterator[str]:
    by_placement = {member.placement: member for member in members}
    yield f"{members[0].subject} {members[0].operator}"
    yield size(members[0].size_bytes)
    for metric in metrics:
        for placement in placements:
            value = _value(by_placement[placement], metric) if placement in by_placement else None
            yield "–" if value is None else f"{value:.2f}"


def _drop_cells(members: Sequence[StrategyEvidence], result: SubjectResult) -> Iterator[str]:
    """Yield the drop of each provider once; without items a drop has no interval."""
    drops = [drop for drop in result.drops if drop.operator == members[0].operator]
    # One drop for each provider: only then does its name say anything.
    several = len(drops) > 1
    if not drops:
        drop_texts = {points(member.drop_pp) for member in members if member.drop_pp is not None and member.passes}
        yield from (", ".join(sorted(drop_texts)) + " (no items)" if drop_texts else "–", "–", "–")
        return
    yield "; ".join(_interval(drop) + (f" {drop.accuracy.provider}" if several else "") for drop in drops)
    yield "; ".join("–" if drop.drop.pvalue is None else pvalue(drop.drop.pvalue) for drop in drops)
    yield "; ".join("–" if drop.drop.lost is None else f"{drop.drop.lost}, {drop.drop.gained}" for drop in drops)


def _interval(result: DropResult) -> str:
    return f"{result.drop.drop_pp:.2f} [{result.drop.low_pp:.2f}, {result.drop.high_pp:.2f}]"


def wilcoxon_table(accuracies: StudyAccuracies) -> Html:
    """Return the study's test of accuracies, over all measurements and with each shared one counted once."""
    heads = (
        "pair",
        "drops, points",
        "pairs",
        "p",
        "significant",
        "Cliff's delta",
        "pairs, once",
        "p, once",
        "significant, once",
    )
    rows = (
        [
            f"{pooled.pair.left} : {pooled.pair.right}",
            f"{pooled.smallest_drop:.2f} to {pooled.largest_drop:.2f}",
            str(pooled.test.count),
            pvalue(pooled.test.pvalue),
            "yes" if pooled.significant else "no",
            f"{pooled.delta:.2f} {pooled.magnitude}",
            str(once.test.count),
            pvalue(once.test.pvalue),
            "yes" if once.significant else "no",
        ]
        for pooled, once in accuracies.both()
    )
    caption = (
        f"Wilcoxon's signed-rank test, exact, Bonferroni level {accuracies.pooled.corrected_alpha:.4g}: as in the "
        "paper over subjects, metrics and tiers, and with tiers that share a measurement counted once"
    )
    return table(caption, heads, rows)
