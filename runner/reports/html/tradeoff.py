"""Latency against accuracy: every strategy, the Pareto front, and what each SLO asks for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.store import SloEvidence
from catalog.statistics.resampling import log_percentiles


@dataclass(frozen=True)
class Point:
    """A strategy in the plane; `on_front`: no other is at least as good in both and better in one."""

    strategy: StrategyResult
    latency_s: float
    accuracy_pct: float
    on_front: bool


@dataclass(frozen=True)
class Region:
    """What a target asks for at the figure's percentile; an open end is infinite."""

    name: str
    latency_s: float
    accuracy_pct: float


@dataclass(frozen=True)
class Tradeoff:
    """One figure: the strategies of one metric at one percentile, and the targets that speak of it."""

    subject: str
    metric: str
    percentile: float
    points: tuple[Point, ...]
    regions: tuple[Region, ...]

    @property
    def front(self) -> list[Point]:
        """Fastest first."""
        return sorted((each for each in self.points if each.on_front), key=lambda each: each.latency_s)


def tradeoffs(result: SubjectResult, slos: Sequence[SloEvidence]) -> Iterator[Tradeoff]:
    """One for each percentile that a target names, the asked one where none does; nothing without accuracies."""
    judged = [each for each in result.strategies if each.evidence.accuracy and math.isfinite(_accuracy(each))]
    if not judged:
        return
    metric = judged[0].evidence.accuracy.metric if judged[0].evidence.accuracy else ""
    same = [each for each in judged if each.evidence.accuracy and each.evidence.accuracy.metric == metric]
    reference = max((e.evidence.reference.accuracy_pct for e in same if e.evidence.reference), default=None)
    for percentile in sorted({each for slo in slos for each in slo.latency_s}) or [result.settings.percentile]:
        regions = [_region(slo, percentile, reference) for slo in slos if percentile in slo.latency_s]
        yield Tradeoff(result.subject, metric, percentile, _points(same, percentile), tuple(regions))


def _accuracy(each: StrategyResult) -> float:
    return each.evidence.accuracy.accuracy_pct if each.evidence.accuracy else math.nan


def _points(strategies: Sequence[StrategyResult], percentile: float) -> tuple[Point, ...]:
    places = [
        (float(np.exp(log_percentiles(each.samples, [percentile]).mean())), _accuracy(each)) for each in strategies
    ]

    def dominated(latency_s: float, accuracy_pct: float) -> bool:
        return any(
            other_s <= latency_s and other_pct >= accuracy_pct and (other_s, other_pct) != (latency_s, accuracy_pct)
            for other_s, other_pct in places
        )

    return tuple(
        Point(each, *place, on_front=not dominated(*place)) for each, place in zip(strategies, places, strict=True)
    )


def _region(slo: SloEvidence, percentile: float, reference_pct: float | None) -> Region:
    floors = [slo.min_pct] if slo.min_pct is not None else []
    if slo.max_drop_pp is not None and reference_pct is not None:
        floors.append(reference_pct - slo.max_drop_pp)
    return Region(slo.name, slo.latency_s[percentile], max(floors, default=-math.inf))
