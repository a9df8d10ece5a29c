"""Box plots of one subject's latencies on a log scale: Figures 4 to 7 of the study in one, grouped by placement."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from catalog.analysis import StrategyResult, SubjectResult
from catalog.evidence.reading import Breakdown
from catalog.evidence.strategy_evidence import in_canonical_order
from catalog.statistics.comparison import rank_range
from catalog.statistics.families import StrategyFamily, strategy_name
from catalog.units import counted, duration, pvalue
from runner.reports.html.markup import (
    WIDTH,
    Axis,
    Figure,
    Html,
    bottom_axis,
    dots,
    fitted,
    line,
    padded,
    rect,
    tag,
    text,
    text_width,
)


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
        shapes += _rank_row(strategy, axis, result.settings.percentile, position * _RANK_ROW, right)
    bottom = len(ordered) * _RANK_ROW + 4
    for number, letter in enumerate(letters):
        x = WIDTH - room + (number + 0.5) * room / len(letters)
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


def _rank_row(strategy: StrategyResult, axis: Axis, percentile: float, y: float, right: float) -> list[Html]:
    interval = strategy.interval(percentile)
    x, middle, label = axis.at(interval.estimate_s), y + 21, duration(interval.estimate_s)
    ranks = rank_range(strategy.rank.rank, strategy.rank.worst_rank)
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
        f"{strategy.name}, rank {rank_range(strategy.rank.rank, strategy.rank.worst_rank)}, "
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
