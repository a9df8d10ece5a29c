"""Strategies in the order that figures and tables show them."""

from collections.abc import Iterable

from catalog.analysis import StrategyResult, SubjectResult


def by_placement(strategies: Iterable[StrategyResult]) -> list[tuple[str, list[StrategyResult]]]:
    """Grouped by placement, in declared order: single tiers first, then those across tiers."""
    groups: dict[str, list[StrategyResult]] = {}
    for each in strategies:
        groups.setdefault(each.evidence.placement, []).append(each)
    return sorted(groups.items(), key=lambda group: len(group[1][0].evidence.tiers))


def fastest_first(result: SubjectResult) -> list[StrategyResult]:
    """By the estimate of the asked percentile."""
    asked = result.settings.percentile
    return sorted(result.strategies, key=lambda each: each.interval(asked).estimate_s)
