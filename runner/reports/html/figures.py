"""The figures of one subject: box plots of latencies, and latency against accuracy.

Box plots are on a log scale: Figures 4 to 7 of the study in one, grouped by placement. Latency against accuracy has
every strategy, the Pareto front, and the budgets of each SLO.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.reading import Breakdown
from catalog.evidence.strategy_evidence import SloEvidence, in_canonical_order
from catalog.statistics.comparison import rank_range
from catalog.statistics.families import StrategyFamily, strategy_name
from catalog.statistics.samples import log_percentiles
from catalog.units import counted, duration, percent, pvalue
from runner.reports.html.markup import (
    WIDTH,
    Axis,
    Figure,
    Html,
    bottom_axis,
    dots,
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


def by_placement(strategies: Iterable[StrategyResult]) -> list[tuple[str, list[StrategyResult]]]:
    """Group by placement: single tiers first, then those across tiers."""
    groups: dict[str, list[StrategyResult]] = {}
    for strategy in strategies:
        groups.setdefault(strategy.evidence.placement, []).append(strategy)
    # Stable, so that placements of as many tiers stay in the order of the evidence.
    return sorted(groups.items(), key=lambda group: len(group[1][0].evidence.tiers))


def fastest_first(result: SubjectResult) -> list[StrategyResult]:
    """Sort by the estimate of the requested percentile."""
    percentile = result.settings.percentile
    return sorted(result.strategies, key=lambda strategy: strategy.interval(percentile).estimate_s)


def families_of_all(results: Sequence[SubjectResult]) -> list[StrategyFamily]:
    """Return every family once, with the members of all subjects: one without a strategy must not hide it."""
    evidence = {
        strategy_name(row.operator, row.tiers): row
        for result in results
        for row in (*(strategy.evidence for strategy in result.strategies), *result.unmeasured)
    }
    positions = {
        strategy_name(row.operator, row.tiers): number
        for number, row in enumerate(in_canonical_order(evidence.values()))
    }
    families: dict[str, StrategyFamily] = {}
    for result in results:
        for result_family in result.families:
            family = result_family.paper.family
            earlier = families.get(family.name, family)
            members = sorted({*earlier.members, *family.members}, key=positions.__getitem__)
            questions = tuple(sorted({*earlier.questions, *family.questions}))
            families[family.name] = replace(family, members=tuple(members), questions=questions)
    return list(families.values())


_ROW, _HEADING, _BOX = 34.0, 22.0, 11.0


def box_plots(result: SubjectResult) -> Figure:
    """Draw a box per strategy: quartiles, median, whiskers to 1.5 interquartile ranges, outliers as dots."""
    smallest = min(strategy.description.minimum for strategy in result.strategies)
    largest = max(strategy.description.maximum for strategy in result.strategies)
    # Logarithmic, because the latencies of tiers differ by factors.
    axis = Axis(*padded(smallest, largest, logarithmic=True), 4.0, WIDTH - 4.0, logarithmic=True)
    shapes: list[Html] = []
    y = 0.0
    for placement, members in by_placement(result.strategies):
        shapes.append(text(0.0, y + 15, placement, class_="group"))
        y += _HEADING
        for member in members:
            shapes += _row(member, axis, y)
            y += _ROW
    return Figure(
        title=f"Latency of every strategy of {result.subject}",
        description=_description(result),
        height=y + 34,
        shapes=[*bottom_axis(axis, 4.0, y + 4, title="end-to-end latency, log scale"), *shapes],
    )


def _row(strategy: StrategyResult, axis: Axis, y: float) -> list[Html]:
    description = strategy.description
    # The figure that all tables of the page have; the median of the pooled samples, which the box shows, is another.
    label = duration(strategy.interval(50).estimate_s)
    low, high = _whiskers(strategy)
    middle = y + 17 + _BOX / 2
    quartiles = axis.at(description.quartile_1), axis.at(description.quartile_3)
    name = fitted(strategy.evidence.operator, WIDTH - text_width(label, size=11) - 12, size=11)
    # Of the stored samples, so that every dot is a request that was measured.
    outliers = _seconds(strategy)[description.outlier_indices]
    label_text = (
        f"{strategy.name}: p50 {label}; of all samples the median is {duration(description.median)}, the quartiles "
        f"{duration(description.quartile_1)} and {duration(description.quartile_3)}, "
        f"{description.outlier_count} of {description.count} are outliers"
    )
    shapes = [
        text(0.0, y + 11, name),
        text(WIDTH, y + 11, label, class_="value", anchor="end"),
        line(axis.at(low), middle, axis.at(high), middle, "whisker"),
        *(line(axis.at(end), middle - 3, axis.at(end), middle + 3, "whisker") for end in (low, high)),
        rect(quartiles[0], y + 17, quartiles[1] - quartiles[0], _BOX, "box"),
        line(axis.at(description.median), y + 16, axis.at(description.median), y + 18 + _BOX, "median"),
    ]
    if outliers.size:
        shapes.append(dots(((axis.at(float(value)), middle) for value in outliers), "outlier"))
    return [tag("g", tag("title", label_text), shapes)]


def _seconds(strategy: StrategyResult) -> NDArray[np.float64]:
    return strategy.evidence.latency_s


def _whiskers(strategy: StrategyResult) -> tuple[float, float]:
    """Return the farthest samples within the fences."""
    description, seconds = strategy.description, _seconds(strategy)
    # Tukey's rule: a whisker ends at a sample, not at the fence itself.
    within = seconds[(seconds >= description.lower_fence) & (seconds <= description.upper_fence)]
    return float(within.min()), float(within.max())


def _description(result: SubjectResult) -> str:
    ordered = sorted(result.strategies, key=lambda strategy: strategy.description.median)
    first, last = ordered[0], ordered[-1]
    return (
        f"Box plots of {counted(len(ordered), 'strategy')} by placement. Smallest median: {first.name}, "
        f"{duration(first.description.median)}; largest: {last.name}, {duration(last.description.median)}."
    )


_WIDTH, _HEIGHT, _POINTS = 110.0, 92.0, 60


def quantile_plot(strategy: StrategyResult) -> Figure:
    """Draw order statistics over normal quantiles, with the least-squares line through them."""
    quantiles = strategy.description.quantiles
    count = quantiles.ordered.size
    # Sixty points of any number draw the same curve at this size, and a page has one such plot for every strategy.
    shown = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))
    across = Axis(
        *padded(float(quantiles.theoretical[0]), float(quantiles.theoretical[-1]), logarithmic=False), 4, _WIDTH - 4
    )
    up = Axis(*padded(float(quantiles.ordered[0]), float(quantiles.ordered[-1]), logarithmic=False), _HEIGHT - 14, 4)
    points = [(across.at(float(quantiles.theoretical[i])), up.at(float(quantiles.ordered[i]))) for i in shown]
    normality = strategy.description.normality
    note = normality.not_applicable or f"Shapiro-Wilk W {normality.statistic:.3f}, p {pvalue(normality.pvalue)}"
    shapes = [dots(points, "sample")]
    if math.isfinite(quantiles.slope):
        shapes.insert(0, _fit(across, up, quantiles.slope, quantiles.intercept))
    ends = f"{duration(float(quantiles.ordered[0]))} – {duration(float(quantiles.ordered[-1]))}"
    return Figure(
        title=f"Q-Q plot of {strategy.name}",
        description=f"{len(points)} of {count} order statistics, from {ends}. {note}.",
        height=_HEIGHT,
        width=_WIDTH,
        shapes=[*shapes, text(_WIDTH / 2, _HEIGHT - 2, ends, class_="tiny", anchor="middle")],
    )


def _fit(across: Axis, up: Axis, slope: float, intercept: float) -> Html:
    """Return the part of the line that lies within the plot."""
    left, right = across.low, across.high
    if slope > 0:
        left = max(left, (up.low - intercept) / slope)
        right = min(right, (up.high - intercept) / slope)
    places = [(across.at(end), up.at(intercept + slope * end)) for end in (left, right)]
    return line(*places[0], *places[1], "fit")


# However many letters there are, their bars leave most of the width to the latencies.
_RANK_ROW, _BARS_AT_MOST, _RANK_BAR = 32.0, 80.0, 6.0


def rank_diagram(result: SubjectResult) -> Figure:
    """Draw the fastest first; a bar beside the rows has a dot for each strategy that shares its letter."""
    ordered = fastest_first(result)
    letters = _shared_letters(ordered)
    room = min(len(letters) * _RANK_BAR, _BARS_AT_MOST)
    right = WIDTH - room - (6 if letters else 0)
    axis = _axis(ordered, result.settings.percentile, right)
    shapes: list[Html] = []
    for position, strategy in enumerate(ordered):
        ranks = rank_range(strategy.rank.rank, strategy.rank.worst_rank, strategies=len(ordered))
        shapes += _rank_row(strategy, ranks, axis, result.settings.percentile, position * _RANK_ROW, right)
    bottom = len(ordered) * _RANK_ROW + 4
    for index, letter in enumerate(letters):
        x = WIDTH - room + (index + 0.5) * room / len(letters)
        shapes += _bar(letter, [letter in strategy.rank.letters for strategy in ordered], x)
    percentile = f"p{result.settings.percentile:g}"
    return Figure(
        title=f"Ranks of the strategies of {result.subject} by {percentile}",
        description=_rank_description(ordered, percentile),
        height=bottom + 32,
        shapes=[*bottom_axis(axis, 4.0, bottom, title=f"{percentile} latency with its interval, log scale"), *shapes],
    )


def _axis(ordered: Sequence[StrategyResult], percentile: float, right: float) -> Axis:
    intervals = [strategy.interval(percentile) for strategy in ordered]
    # Where an interval was refused, the estimate alone is drawn.
    lowest = min(interval.low_s or interval.estimate_s for interval in intervals)
    highest = max(interval.high_s or interval.estimate_s for interval in intervals)
    return Axis(*padded(lowest, highest, logarithmic=True), 4.0, right - 4, logarithmic=True)


def _rank_row(
    strategy: StrategyResult, ranks: str, axis: Axis, percentile: float, y: float, right: float
) -> list[Html]:
    interval = strategy.interval(percentile)
    x, middle, label = axis.at(interval.estimate_s), y + 21, duration(interval.estimate_s)
    shapes = [
        text(
            0.0,
            y + 11,
            fitted(f"{ranks} {strategy.name}", right, size=10.5),
            class_="row",
        )
    ]
    ends = (x, x)
    if interval.low_s is not None and interval.high_s is not None:
        ends = axis.at(interval.low_s), axis.at(interval.high_s)
        shapes.append(line(ends[0], middle, ends[1], middle, "whisker"))
        shapes += [line(end, middle - 3, end, middle + 3, "whisker") for end in ends]
    shapes.append(dots([(x, middle)], "estimate"))
    # Beside the interval's right end if there is room, else at its left.
    after = ends[1] + 7 + text_width(label, size=11) <= right
    place = (ends[1] + 7, "start") if after else (ends[0] - 7, "end")
    shapes.append(text(place[0], middle + 4, label, class_="value", anchor=place[1]))
    return [
        tag(
            "g",
            tag("title", f"{strategy.name}: rank {ranks}, {label}"),
            shapes,
        )
    ]


def _bar(letter: str, members: Sequence[bool], x: float) -> list[Html]:
    places = [position * _RANK_ROW + 21 for position, member in enumerate(members) if member]
    joined = tag("title", f"letter {letter}: not shown to differ")
    bar = line(x, places[0], x, places[-1], "tie")
    return [tag("g", joined, bar, dots(((x, y) for y in places), "tied"))]


def _shared_letters(ordered: Sequence[StrategyResult]) -> list[str]:
    """Return the letters of more than one strategy, in the order of their first strategy."""
    letters = [letter for strategy in ordered for letter in strategy.rank.letters]
    return [letter for letter in dict.fromkeys(letters) if letters.count(letter) > 1]


def _rank_description(ordered: Sequence[StrategyResult], percentile: str) -> str:
    best = [strategy.name for strategy in ordered if strategy.rank.rank == 1]
    shown = "; ".join(
        f"{strategy.name}, rank {rank_range(strategy.rank.rank, strategy.rank.worst_rank, strategies=len(ordered))}, "
        f"letters {' '.join(strategy.rank.letters)}"
        for strategy in ordered
    )
    return f"By {percentile}. Nothing is shown to be faster than {', '.join(best)}. {shown}."


SEGMENTS = ("preprocess", "compute", "postprocess", "serialise", "transmission")
_BREAKDOWN_ROW, _BREAKDOWN_HEADING, _BREAKDOWN_BAR = 32.0, 22.0, 13.0
# Parts that carry the name of their tier or link, and the class of that name: a hatch needs a halo.
_NAMED = {"compute": "on-part", "transmission": "name"}


def segments(breakdown: Breakdown) -> Iterator[tuple[str, str, float]]:
    """Yield segment, tier or link, and mean seconds; transmission last: by link, then the unexplained rest."""
    for tier in breakdown.tiers:
        yield "preprocess", tier.tier, tier.preprocess_s
        yield "compute", tier.tier, tier.compute_s
        yield "postprocess", tier.tier, tier.postprocess_s
        yield "serialise", tier.tier, tier.serialise_s
    for link in breakdown.links:
        yield "transmission", link.link, link.wire_s
    yield "transmission", "", breakdown.other_transmission_s


def breakdown_bars(result: SubjectResult, breakdowns: Mapping[str, Breakdown]) -> Figure | None:
    """Draw a bar per strategy; None if no breakdown is known, as for imported latencies."""
    groups = [
        (placement, [member for member in members if _has_breakdown(member, breakdowns)])
        for placement, members in by_placement(result.strategies)
    ]
    if not any(members for _, members in groups):
        return None
    shapes: list[Html] = list(_legend())
    y = 40.0
    for placement, members in groups:
        if members:
            shapes.append(text(0.0, y + 15, placement, class_="group"))
            y += _BREAKDOWN_HEADING
        for member in members:
            shapes += _breakdown_row(member, breakdowns[member.evidence.latency_key], y)
            y += _BREAKDOWN_ROW
    return Figure(
        title=f"Where the time of {result.subject} goes",
        description=_breakdown_description([member for _, members in groups for member in members], breakdowns),
        height=y + 2,
        shapes=shapes,
    )


def _has_breakdown(strategy: StrategyResult, breakdowns: Mapping[str, Breakdown]) -> bool:
    breakdown = breakdowns.get(strategy.evidence.latency_key)
    return breakdown is not None and bool(breakdown.tiers)


def _breakdown_row(strategy: StrategyResult, breakdown: Breakdown, y: float) -> Iterator[Html]:
    label = duration(breakdown.latency_s)
    name = fitted(strategy.evidence.operator, WIDTH - text_width(label, size=11) - 12, size=11)
    yield text(0.0, y + 11, name)
    yield text(WIDTH, y + 11, label, class_="value", anchor="end")
    # The rest that nothing explains is a difference of means and may come out just below zero.
    drawn = [(segment, tier, max(seconds, 0.0)) for segment, tier, seconds in segments(breakdown)]
    whole = sum(seconds for _, _, seconds in drawn) or 1.0
    x, before = 0.0, drawn[0][1]
    for segment, tier, seconds in drawn:
        width = WIDTH * seconds / whole
        label_text = (
            f"{strategy.name}: {segment}{f' on {tier}' if tier else ''} {duration(seconds)}, {seconds / whole:.0%}"
        )
        if tier != before:
            yield line(x, y + 13, x, y + 17 + _BREAKDOWN_BAR, "boundary")
            before = tier
        if width > 0:
            yield rect(x, y + 15, width, _BREAKDOWN_BAR, f"part {segment}", tag("title", label_text))
        if segment in _NAMED and text_width(tier, size=10) + 6 < width:
            yield text(x + width / 2, y + 25, tier, class_=f"small {_NAMED[segment]}", anchor="middle")
        x += width


def _legend() -> Iterator[Html]:
    for position, segment in enumerate(SEGMENTS):
        x, y = (position % 3) * 114.0, 4.0 + 17 * (position // 3)
        yield rect(x, y, 14.0, 11.0, f"part {segment}")
        yield text(x + 19, y + 9, segment, class_="small")


def _breakdown_description(strategies: Sequence[StrategyResult], breakdowns: Mapping[str, Breakdown]) -> str:
    return "Shares of the mean latency. " + " ".join(
        f"{strategy.name}: "
        + ", ".join(
            f"{segment}{f' on {tier}' if tier else ''} {duration(seconds)}"
            for segment, tier, seconds in segments(breakdowns[strategy.evidence.latency_key])
        )
        + "."
        for strategy in strategies
    )


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


_LEFT, _RIGHT, _PLANE_HEIGHT, _LABEL = 40.0, WIDTH - 6, 220.0, 13.0
# Shapes and no colours: a printed page shows them as well.
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus")


def tradeoff_plot(tradeoff: Tradeoff) -> Figure:
    """Draw faster to the left, more accurate at the top; targets are named above the right edge of their region."""
    top = 8 + _LABEL * len(tradeoff.regions)
    bottom = top + _PLANE_HEIGHT
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
        *_placement_legend(placements, bottom + 42),
    ]
    return Figure(
        title=f"Latency and accuracy of {tradeoff.subject}",
        description=_plane_description(tradeoff),
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


def _placement_legend(placements: Sequence[str], top: float) -> Iterator[Html]:
    for position, name in enumerate(placements):
        x, y = 6 + (position % 3) * (WIDTH / 3), top + 16 * (position // 3)
        yield _shape(position, x, y, "mark")
        yield text(x + 9, y + 4, fitted(name, WIDTH / 3 - 20, size=10), class_="small")


def _plane_description(tradeoff: Tradeoff) -> str:
    points = "; ".join(
        f"{point.strategy.name}, {duration(point.latency_s)}, {percent(point.accuracy_pct)}" for point in tradeoff.front
    )
    targets = "".join(f" Target {region.name} ends at {duration(region.latency_s)}." for region in tradeoff.regions)
    metric = METRIC_NAMES.get(tradeoff.metric, tradeoff.metric)
    return f"p{tradeoff.percentile:g} latency and {metric}. Pareto front: {points}.{targets}"
