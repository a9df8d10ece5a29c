"""Accuracies as the study's Table 6, with drops, intervals and McNemar's p."""

from collections.abc import Iterator, Sequence

from catalog.analysis import DropResult, SubjectResult
from catalog.evidence.store import StrategyEvidence
from runner.reports.html.accuracy_pairs import METRICS, StudyAccuracies, whole_strategies
from runner.reports.html.markup import Html, table
from runner.reports.html.quantile_plots import pvalue
from runner.reports.html.words import METRIC_NAMES
from runner.reports.units import points, size


def accuracy_table(results: Sequence[SubjectResult]) -> Html | None:
    """A row per subject and uncut operator; None without accuracies."""
    evidence = [each for result in results for each in whole_strategies(result)]
    judged = [each for each in evidence if each.accuracy is not None]
    if not judged:
        return None
    placements = list(dict.fromkeys(each.placement for each in evidence))
    metrics = [name for name in (*METRICS, "agreement") if any(_value(each, name) is not None for each in judged)]
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
    for each in whole_strategies(result):
        groups.setdefault(each.operator, []).append(each)
    return list(groups.values())


def _value(each: StrategyEvidence, metric: str) -> float | None:
    if each.accuracy is None:
        return None
    if each.accuracy.metric == "agreement":
        return each.accuracy.accuracy_pct if metric == "agreement" else None
    value: float | None = getattr(each.accuracy, f"{metric}_pct", None)
    return value


def _row(members: Sequence[StrategyEvidence], metrics: Sequence[str], placements: Sequence[str]) -> Iterator[str]:
    by_placement = {each.placement: each for each in members}
    yield f"{members[0].subject} {members[0].operator}"
    yield size(members[0].size_bytes)
    for metric in metrics:
        for placement in placements:
            value = _value(by_placement[placement], metric) if placement in by_placement else None
            yield "–" if value is None else f"{value:.2f}"


def _drop_cells(members: Sequence[StrategyEvidence], result: SubjectResult) -> Iterator[str]:
    """Of each provider once; without items a drop has no interval."""
    drops = [each for each in result.drops if each.operator == members[0].operator]
    several = len(drops) > 1
    if not drops:
        known = {points(each.drop_pp) for each in members if each.drop_pp is not None and each.passes}
        yield from (", ".join(sorted(known)) + " (no items)" if known else "–", "–", "–")
        return
    yield "; ".join(_interval(each) + (f" {each.accuracy.provider}" if several else "") for each in drops)
    yield "; ".join("–" if each.drop.pvalue is None else pvalue(each.drop.pvalue) for each in drops)
    yield "; ".join("–" if each.drop.lost is None else f"{each.drop.lost}, {each.drop.gained}" for each in drops)


def _interval(each: DropResult) -> str:
    return f"{each.drop.drop_pp:.2f} [{each.drop.low_pp:.2f}, {each.drop.high_pp:.2f}]"


def wilcoxon_table(accuracies: StudyAccuracies) -> Html:
    """The study's test of accuracies over subjects, metrics and tiers, and with each measurement counted once."""
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
