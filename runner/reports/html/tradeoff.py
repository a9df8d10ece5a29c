"""Latency against accuracy: every strategy, the Pareto front, and the budgets of each SLO."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.strategy_evidence import SloEvidence
from catalog.statistics.samples import log_percentiles
from catalog.units import duration, percent
from runner.reports.html.markup import (
    WIDTH,
    Axis,
    Figure,
    Html,
    bottom_axis,
    fitted,
    line,
    number,
    padded,
    rect,
    tag,
    text,
    text_width,
)
from runner.reports.html.sentences import METRIC_NAMES


@dataclass(frozen=True)
class Point:
    """A strategy in the plane; `on_front`: no other is at least as good in both and better in one."""

    strategy: StrategyResult
    latency_s: float
    accuracy_pct: float
    on_front: bool


@dataclass(frozen=True)
class TargetRegion:
    """The budgets of a target at the figure's percentile; an open end is infinite."""

    name: str
    latency_s: float
    accuracy_pct: float


@dataclass(frozen=True)
class Tradeoff:
    """One figure: the strategies of one metric at one percentile, and the targets at that percentile."""

    subject: str
    metric: str
    percentile: float
    points: tuple[Point, ...]
    regions: tuple[TargetRegion, ...]

    @property
    def front(self) -> list[Point]:
        """Return the points on the front, fastest first."""
        return sorted((point for point in self.points if point.on_front), key=lambda point: point.latency_s)


def tradeoffs(result: SubjectResult, slos: Sequence[SloEvidence]) -> Iterator[Tradeoff]:
    """Yield one for each percentile of the targets, else for the requested one; nothing without accuracies."""
    judged = [
        strategy for strategy in result.strategies if strategy.evidence.accuracy and math.isfinite(_accuracy(strategy))
    ]
    if not judged:
        return
    metric = judged[0].evidence.accuracy.metric if judged[0].evidence.accuracy else ""
    same = [
        strategy for strategy in judged if strategy.evidence.accuracy and strategy.evidence.accuracy.metric == metric
    ]
    # Several providers may have several accuracies of identity; the strictest floor follows from the best.
    reference = max((e.evidence.reference.accuracy_pct for e in same if e.evidence.reference), default=None)
    for percentile in sorted({strategy for slo in slos for strategy in slo.latency_s}) or [result.settings.percentile]:
        regions = [_region(slo, percentile, reference) for slo in slos if percentile in slo.latency_s]
        yield Tradeoff(result.subject, metric, percentile, _points(same, percentile), tuple(regions))


def _accuracy(strategy: StrategyResult) -> float:
    return strategy.evidence.accuracy.accuracy_pct if strategy.evidence.accuracy else math.nan


def _points(strategies: Sequence[StrategyResult], percentile: float) -> tuple[Point, ...]:
    places = [
        # As the analysis estimates it: percentiles within rounds, then their geometric mean.
        (float(np.exp(log_percentiles(strategy.samples, [percentile]).mean())), _accuracy(strategy))
        for strategy in strategies
    ]

    def dominated(latency_s: float, accuracy_pct: float) -> bool:
        return any(
            other_s <= latency_s and other_pct >= accuracy_pct and (other_s, other_pct) != (latency_s, accuracy_pct)
            for other_s, other_pct in places
        )

    return tuple(
        Point(strategy, *place, on_front=not dominated(*place))
        for strategy, place in zip(strategies, places, strict=True)
    )


def _region(slo: SloEvidence, percentile: float, reference_pct: float | None) -> TargetRegion:
    floors = [slo.min_pct] if slo.min_pct is not None else []
    if slo.max_drop_pp is not None and reference_pct is not None:
        # A drop is counted from identity, so its floor is another one for every subject.
        floors.append(reference_pct - slo.max_drop_pp)
    return TargetRegion(slo.name, slo.latency_s[percentile], max(floors, default=-math.inf))


_LEFT, _RIGHT, _HEIGHT, _LABEL = 40.0, WIDTH - 6, 220.0, 13.0
# Shapes and no colours: a printed page shows them as well.
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus")


def tradeoff_plot(tradeoff: Tradeoff) -> Figure:
    """Draw faster to the left, more accurate at the top; targets are named above the right edge of their region."""
    top = 8 + _LABEL * len(tradeoff.regions)
    bottom = top + _HEIGHT
    across, up = _axes(tradeoff, top, bottom)
    placements = list(dict.fromkeys(point.strategy.evidence.placement for point in tradeoff.points))
    shapes: list[Html] = [
        *(
            shape
            for i, region in enumerate(tradeoff.regions)
            for shape in _target(region, across, up, _LABEL * (i + 1))
        ),
        *_left_axis(up),
        *bottom_axis(across, top, bottom, title=f"p{tradeoff.percentile:g} latency, log scale"),
        _front(tradeoff.front, across, up),
        *(_mark(point, placements.index(point.strategy.evidence.placement), across, up) for point in tradeoff.points),
        *_labels(tradeoff, across, up),
        *_legend(placements, bottom + 42),
    ]
    return Figure(
        title=f"Latency and accuracy of {tradeoff.subject}",
        description=_description(tradeoff),
        height=bottom + 36 + 16 * math.ceil(len(placements) / 3),
        shapes=shapes,
    )


def _axes(tradeoff: Tradeoff, top: float, bottom: float) -> tuple[Axis, Axis]:
    latencies = [point.latency_s for point in tradeoff.points] + [region.latency_s for region in tradeoff.regions]
    accuracies = [point.accuracy_pct for point in tradeoff.points]
    floors = [region.accuracy_pct for region in tradeoff.regions if math.isfinite(region.accuracy_pct)]
    # Budgets as well, so that the region that a target asks for is seen whole.
    across = padded(min(latencies), max(latencies), logarithmic=True, share=0.08)
    up = padded(min([*accuracies, *floors]), max(accuracies), logarithmic=False, share=0.12)
    return Axis(*across, _LEFT, _RIGHT, logarithmic=True), Axis(*up, bottom, top)


def _left_axis(up: Axis) -> Iterator[Html]:
    for value in up.ticks():
        yield line(_LEFT, up.at(value), _RIGHT, up.at(value), "grid")
        yield text(_LEFT - 4, up.at(value) + 3.5, f"{value:.4g} %", class_="small", anchor="end")


def _target(region: TargetRegion, across: Axis, up: Axis, label: float) -> Iterator[Html]:
    right, bottom, top = across.at(region.latency_s), up.at(max(region.accuracy_pct, up.low)), up.end
    label_text = f"{region.name}: at most {duration(region.latency_s)}" + (
        f", at least {percent(region.accuracy_pct)}" if math.isfinite(region.accuracy_pct) else ""
    )
    yield rect(_LEFT, top, right - _LEFT, bottom - top, "target", tag("title", label_text))
    yield line(right, label - 8, right, top, "leader")
    yield text(right - 4, label, fitted(region.name, right - 4, size=10), class_="small", anchor="end")


def _front(front: Sequence[Point], across: Axis, up: Axis) -> Html:
    places = [(across.at(point.latency_s), up.at(point.accuracy_pct)) for point in front]
    path = f"M{number(places[0][0])} {number(places[0][1])}"
    # Steps instead of slopes: there is no strategy to choose between two.
    for x, y in places[1:]:
        path += f"H{number(x)}V{number(y)}"
    return tag("path", d=path, class_="front")


def _mark(point: Point, shape: int, across: Axis, up: Axis) -> Html:
    x, y = across.at(point.latency_s), up.at(point.accuracy_pct)
    label_text = f"{point.strategy.name}: {duration(point.latency_s)}, {percent(point.accuracy_pct)}"
    return _shape(shape, x, y, "mark best" if point.on_front else "mark", tag("title", label_text))


def _shape(index: int, x: float, y: float, class_: str, *children: Html) -> Html:
    name = _SHAPES[index % len(_SHAPES)]
    if name == "circle":
        return tag("circle", *children, cx=x, cy=y, r=4.0, class_=class_)
    drawn = {
        "square": "m-3.5 -3.5h7v7h-7z",
        "triangle": "m0 -4.5l4.5 8h-9z",
        "diamond": "m0 -5l5 5l-5 5l-5 -5z",
        "cross": "m-3.5 -3.5l7 7m0 -7l-7 7",
        "plus": "m-4.5 0h9m-4.5 -4.5v9",
    }[name]
    return tag("path", *children, d=f"M{number(x)} {number(y)}{drawn}", class_=class_)


def _labels(tradeoff: Tradeoff, across: Axis, up: Axis) -> Iterator[Html]:
    """Yield the names of the front's points where they cover nothing; the caption has all of them."""
    taken = [
        (across.at(point.latency_s) - 5, across.at(point.latency_s) + 5, up.at(point.accuracy_pct) + 4)
        for point in tradeoff.points
    ]
    for point in tradeoff.front:
        x, y = across.at(point.latency_s), up.at(point.accuracy_pct)
        name = fitted(point.strategy.name, 200, size=10)
        width = text_width(name, size=10)
        # Right, left, above right, above left, below: the first that covers no mark and no other name.
        for left, base in ((x + 8, y + 3), (x - 8 - width, y + 3), (x + 3, y - 8), (x - width, y - 8), (x + 3, y + 15)):
            inside = left >= _LEFT and left + width <= WIDTH and base - 8 >= up.end and base <= up.start
            free = all(abs(base - other) >= 10 or left >= end or left + width <= start for start, end, other in taken)
            if inside and free:
                taken.append((left, left + width, base))
                yield text(left, base, name, class_="small name")
                break


def _legend(placements: Sequence[str], top: float) -> Iterator[Html]:
    for position, name in enumerate(placements):
        x, y = 6 + (position % 3) * (WIDTH / 3), top + 16 * (position // 3)
        yield _shape(position, x, y, "mark")
        yield text(x + 9, y + 4, fitted(name, WIDTH / 3 - 20, size=10), class_="small")


def _description(tradeoff: Tradeoff) -> str:
    points = "; ".join(
        f"{point.strategy.name}, {duration(point.latency_s)}, {percent(point.accuracy_pct)}" for point in tradeoff.front
    )
    targets = "".join(f" Target {region.name} ends at {duration(region.latency_s)}." for region in tradeoff.regions)
    metric = METRIC_NAMES.get(tradeoff.metric, tradeoff.metric)
    return f"p{tradeoff.percentile:g} latency and {metric}. Pareto front: {points}.{targets}"
