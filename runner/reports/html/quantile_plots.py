"""Q-Q plots against the normal distribution, one small one per strategy."""

import math

import numpy as np

from catalog.analysis import StrategyResult
from runner.reports.html.drawing import Axis, Figure, dots, line, padded, text
from runner.reports.html.markup import Html
from runner.reports.units import duration

_WIDTH, _HEIGHT, _POINTS = 110.0, 92.0, 60


def quantile_plot(each: StrategyResult) -> Figure:
    """Order statistics over normal quantiles, with the line of least squares through them."""
    found = each.description.quantiles
    count = found.ordered.size
    shown = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))
    across = Axis(*padded(float(found.theoretical[0]), float(found.theoretical[-1]), logarithmic=False), 4, _WIDTH - 4)
    up = Axis(*padded(float(found.ordered[0]), float(found.ordered[-1]), logarithmic=False), _HEIGHT - 14, 4)
    points = [(across.at(float(found.theoretical[i])), up.at(float(found.ordered[i]))) for i in shown]
    normality = each.description.normality
    said = normality.not_applicable or f"Shapiro-Wilk W {normality.statistic:.3f}, p {pvalue(normality.pvalue)}"
    shapes = [dots(points, "sample")]
    if math.isfinite(found.slope):
        shapes.insert(0, _fit(across, up, found.slope, found.intercept))
    ends = f"{duration(float(found.ordered[0]))} – {duration(float(found.ordered[-1]))}"
    return Figure(
        title=f"Q-Q plot of {each.name}",
        description=f"{len(points)} of {count} order statistics, from {ends}. {said}.",
        height=_HEIGHT,
        width=_WIDTH,
        shapes=[*shapes, text(_WIDTH / 2, _HEIGHT - 2, ends, class_="tiny", anchor="middle")],
    )


def _fit(across: Axis, up: Axis, slope: float, intercept: float) -> Html:
    """The part of the line that lies within the plot."""
    left, right = across.low, across.high
    if slope > 0:
        left = max(left, (up.low - intercept) / slope)
        right = min(right, (up.high - intercept) / slope)
    places = [(across.at(end), up.at(intercept + slope * end)) for end in (left, right)]
    return line(*places[0], *places[1], "fit")


def pvalue(value: float) -> str:
    """`0.031`, `2.0e-16`; never zero."""
    if value < 1e-300:
        return "< 1e-300"
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}"
