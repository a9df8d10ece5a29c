"""Latency against accuracy: every strategy, the Pareto front, and what each SLO asks for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence import SloEvidence
from catalog.statistics.resampling import log_percentiles
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
from runner.reports.units import duration, percent


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
        return sorted((point for point in self.points if point.on_front), key=lambda point: point.latency_s)


def tradeoffs(result: SubjectResult, slos: Sequence[SloEvidence]) -> Iterator[Tradeoff]:
    """One for each percentile that a target names, the asked one where none does; nothing without accuracies."""
    judged = [
        strategy for strategy in result.strategies if strategy.evidence.accuracy and math.isfinite(_accuracy(strategy))
    ]
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
        (float(np.exp(log_percentiles(strategy.samples, [percentile]).mean())), _accuracy(strategy))
        for strategy in strategies
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


_LEFT, _RIGHT, _HEIGHT, _LABEL = 40.0, WIDTH - 6, 220.0, 13.0
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus")


def tradeoff_plot(found: Tradeoff) -> Figure:
    """Further left is faster, further up is more accurate; targets are named above the right edge of their region."""
    top = 8 + _LABEL * len(found.regions)
    bottom = top + _HEIGHT
    across, up = _axes(found, top, bottom)
    placements = list(dict.fromkeys(point.strategy.evidence.placement for point in found.points))
    shapes: list[Html] = [
        *(shape for i, each in enumerate(found.regions) for shape in _target(each, across, up, _LABEL * (i + 1))),
        *_left_axis(up),
        *bottom_axis(across, top, bottom, title=f"p{found.percentile:g} latency, log scale"),
        _front(found.front, across, up),
        *(_mark(point, placements.index(point.strategy.evidence.placement), across, up) for point in found.points),
        *_labels(found, across, up),
        *_legend(placements, bottom + 42),
    ]
    return Figure(
        title=f"Latency and accuracy of {found.subject}",
        description=_description(found),
        height=bottom + 36 + 16 * math.ceil(len(placements) / 3),
        shapes=shapes,
    )


def _axes(found: Tradeoff, top: float, bottom: float) -> tuple[Axis, Axis]:
    latencies = [point.latency_s for point in found.points] + [region.latency_s for region in found.regions]
    accuracies = [point.accuracy_pct for point in found.points]
    floors = [region.accuracy_pct for region in found.regions if math.isfinite(region.accuracy_pct)]
    across = padded(min(latencies), max(latencies), logarithmic=True, share=0.08)
    up = padded(min([*accuracies, *floors]), max(accuracies), logarithmic=False, share=0.12)
    return Axis(*across, _LEFT, _RIGHT, logarithmic=True), Axis(*up, bottom, top)


def _left_axis(up: Axis) -> Iterator[Html]:
    for value in up.ticks():
        yield line(_LEFT, up.at(value), _RIGHT, up.at(value), "grid")
        yield text(_LEFT - 4, up.at(value) + 3.5, f"{value:.4g} %", class_="small", anchor="end")


def _target(region: Region, across: Axis, up: Axis, label: float) -> Iterator[Html]:
    right, bottom, top = across.at(region.latency_s), up.at(max(region.accuracy_pct, up.low)), up.end
    said = f"{region.name}: at most {duration(region.latency_s)}" + (
        f", at least {percent(region.accuracy_pct)}" if math.isfinite(region.accuracy_pct) else ""
    )
    yield rect(_LEFT, top, right - _LEFT, bottom - top, "target", tag("title", said))
    yield line(right, label - 8, right, top, "leader")
    yield text(right - 4, label, fitted(region.name, right - 4, size=10), class_="small", anchor="end")


def _front(front: Sequence[Point], across: Axis, up: Axis) -> Html:
    places = [(across.at(each.latency_s), up.at(each.accuracy_pct)) for each in front]
    path = f"M{number(places[0][0])} {number(places[0][1])}"
    for x, y in places[1:]:
        path += f"H{number(x)}V{number(y)}"
    return tag("path", d=path, class_="front")


def _mark(point: Point, shape: int, across: Axis, up: Axis) -> Html:
    x, y = across.at(point.latency_s), up.at(point.accuracy_pct)
    said = f"{point.strategy.name}: {duration(point.latency_s)}, {percent(point.accuracy_pct)}"
    return _shape(shape, x, y, "mark best" if point.on_front else "mark", tag("title", said))


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


def _labels(found: Tradeoff, across: Axis, up: Axis) -> Iterator[Html]:
    """Names of the front's points where they cover nothing; the caption has all of them."""
    taken = [
        (across.at(point.latency_s) - 5, across.at(point.latency_s) + 5, up.at(point.accuracy_pct) + 4)
        for point in found.points
    ]
    for each in found.front:
        x, y = across.at(each.latency_s), up.at(each.accuracy_pct)
        name = fitted(each.strategy.name, 200, size=10)
        width = text_width(name, size=10)
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


def _description(found: Tradeoff) -> str:
    points = "; ".join(
        f"{each.strategy.name}, {duration(each.latency_s)}, {percent(each.accuracy_pct)}" for each in found.front
    )
    targets = "".join(f" Region {region.name} ends at {duration(region.latency_s)}." for region in found.regions)
    metric = METRIC_NAMES.get(found.metric, found.metric)
    return f"p{found.percentile:g} latency and {metric}. Pareto front: {points}.{targets}"
