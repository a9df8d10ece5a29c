"""Strategies in the order that figures and tables show them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.strategy_evidence import in_canonical_order
from catalog.statistics import Family, strategy_name


def by_placement(strategies: Iterable[StrategyResult]) -> list[tuple[str, list[StrategyResult]]]:
    """Grouped by placement: single tiers first, then those across tiers."""
    groups: dict[str, list[StrategyResult]] = {}
    for each in strategies:
        groups.setdefault(each.evidence.placement, []).append(each)
    return sorted(groups.items(), key=lambda group: len(group[1][0].evidence.tiers))


def fastest_first(result: SubjectResult) -> list[StrategyResult]:
    """By the estimate of the asked percentile."""
    asked = result.settings.percentile
    return sorted(result.strategies, key=lambda each: each.interval(asked).estimate_s)


def families_of_all(results: Sequence[SubjectResult]) -> list[Family]:
    """Every family once, with the members of all subjects: one that lacks a strategy must not hide it in the others."""
    evidence = {
        strategy_name(row.operator, row.tiers): row
        for result in results
        for row in (*(strategy.evidence for strategy in result.strategies), *result.unmeasured)
    }
    positions = {
        strategy_name(row.operator, row.tiers): number
        for number, row in enumerate(in_canonical_order(evidence.values()))
    }
    families: dict[str, Family] = {}
    for result in results:
        for found in result.families:
            family = found.paper.family
            known = families.get(family.name, family)
            members = sorted({*known.members, *family.members}, key=positions.__getitem__)
            questions = tuple(sorted({*known.questions, *family.questions}))
            families[family.name] = replace(family, members=tuple(members), questions=questions)
    return list(families.values())
