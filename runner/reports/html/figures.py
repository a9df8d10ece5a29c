"""Box plots of one subject's latencies on a log scale: Figures 4 to 7 of the study in one, grouped by placement."""

import numpy as np
from numpy.typing import NDArray

from catalog.analysis import StrategyResult, SubjectResult
from runner.reports.html.drawing import (
    WIDTH,
    Axis,
    Figure,
    bottom_axis,
    dots,
    fitted,
    line,
    padded,
    rect,
    text,
    text_width,
)
from runner.reports.html.grouping import by_placement
from runner.reports.html.markup import Html, tag
from runner.reports.units import duration

_ROW, _HEADING, _BOX = 34.0, 22.0, 11.0


def box_plots(result: SubjectResult) -> Figure:
    """One box per strategy: quartiles, median, whiskers to 1.5 interquartile ranges, outliers as dots."""
    smallest = min(each.description.minimum for each in result.strategies)
    largest = max(each.description.maximum for each in result.strategies)
    axis = Axis(*padded(smallest, largest, logarithmic=True), 4.0, WIDTH - 4.0, logarithmic=True)
    shapes: list[Html] = []
    y = 0.0
    for placement, members in by_placement(result.strategies):
        shapes.append(text(0.0, y + 15, placement, class_="group"))
        y += _HEADING
        for each in members:
            shapes += _row(each, axis, y)
            y += _ROW
    return Figure(
        title=f"Latency of every strategy of {result.subject}",
        description=_description(result),
        height=y + 34,
        shapes=[*bottom_axis(axis, 4.0, y + 4, title="end-to-end latency, log scale"), *shapes],
    )


def _row(each: StrategyResult, axis: Axis, y: float) -> list[Html]:
    found = each.description
    label = duration(found.median)
    low, high = _whiskers(each)
    middle = y + 17 + _BOX / 2
    quartiles = axis.at(found.quartile_1), axis.at(found.quartile_3)
    name = fitted(each.evidence.operator, WIDTH - text_width(label, size=11) - 12, size=11)
    outliers = _seconds(each)[found.outlier_indices]
    said = (
        f"{each.name}: median {label}, quartiles {duration(found.quartile_1)} and {duration(found.quartile_3)}, "
        f"{found.outlier_count} outliers of {found.count}"
    )
    shapes = [
        text(0.0, y + 11, name),
        text(WIDTH, y + 11, label, class_="value", anchor="end"),
        line(axis.at(low), middle, axis.at(high), middle, "whisker"),
        *(line(axis.at(end), middle - 3, axis.at(end), middle + 3, "whisker") for end in (low, high)),
        rect(quartiles[0], y + 17, quartiles[1] - quartiles[0], _BOX, "box"),
        line(axis.at(found.median), y + 16, axis.at(found.median), y + 18 + _BOX, "median"),
    ]
    if outliers.size:
        shapes.append(dots(((axis.at(float(value)), middle) for value in outliers), "outlier"))
    return [tag("g", tag("title", said), shapes)]


def _seconds(each: StrategyResult) -> NDArray[np.float64]:
    return each.evidence.latency_s


def _whiskers(each: StrategyResult) -> tuple[float, float]:
    """The farthest samples within the fences."""
    found, seconds = each.description, _seconds(each)
    within = seconds[(seconds >= found.lower_fence) & (seconds <= found.upper_fence)]
    return float(within.min()), float(within.max())


def _description(result: SubjectResult) -> str:
    ordered = sorted(result.strategies, key=lambda each: each.description.median)
    first, last = ordered[0], ordered[-1]
    return (
        f"Box plots of {len(ordered)} strategies by placement. Smallest median: {first.name}, "
        f"{duration(first.description.median)}; largest: {last.name}, {duration(last.description.median)}."
    )
