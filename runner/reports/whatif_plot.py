"""Latency against bandwidth as a separate SVG file: both axes logarithmic, changes of choice marked and named."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from catalog.units import counted, duration, rate
from recommender.whatif.curves import Curve, Curves
from runner.reports.html.markup import Axis, Figure, Html, fitted, line, number, padded, seconds_tick, svg, tag, text

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 800.0, 60.0, 500.0, 34.0, 360.0
_LINE = 13.0
_STYLE = """
svg { background: #fff; font-family: system-ui, "DejaVu Sans", sans-serif; }
text { font-size: 11px; fill: #1b1f24; } .small { font-size: 10px; } .title { font-size: 13px; font-weight: 600; }
.grid { stroke: #d0d7de; stroke-width: .7; } .flat { fill: none; stroke: #8c959f; stroke-width: 1; }
.moving { fill: none; stroke: #0b4f8a; stroke-width: 1.2; } .best { fill: none; stroke: #b35900; stroke-width: 3; }
.leader { stroke: #d0d7de; stroke-width: .7; } .crossing { stroke: #b35900; stroke-width: 1; stroke-dasharray: 3 3; }
.chosen { font-weight: 600; fill: #8a4400; }
"""


def whatif_svg(curves: Curves, *, subject: str) -> str:
    """Return the figure as a document."""
    across = Axis(curves.bit_per_s[0], curves.bit_per_s[-1], _LEFT, _RIGHT, logarithmic=True)
    values = [value for curve in curves.curves for value in curve.latency_s]
    up = Axis(*padded(min(values), max(values), logarithmic=True), _BOTTOM, _TOP, logarithmic=True)
    names = list(_names(curves, up))
    fastest = [curve for index in range(len(curves.bit_per_s)) if (curve := curves.fastest(index)) is not None]
    chosen = {curve.name for curve in fastest}
    notes = _notes(curves)
    below = max(_BOTTOM + 50, max((y for _, y in names), default=0.0) + 24)
    shapes: list[Html] = [
        tag("style", Html(_STYLE)),
        text(_LEFT, 18, fitted(f"{subject}: latency against {curves.link}", 600, size=13), class_="title"),
        *_grid(across, up),
        *(_path(curve, curves, across, up, "moving" if curve.crosses else "flat") for curve in curves.curves),
        *([_best(curves, fastest, across, up)] if fastest else []),
        *(
            line(across.at(crossing.bit_per_s), _TOP, across.at(crossing.bit_per_s), _BOTTOM, "crossing")
            for crossing in curves.crossings
        ),
        *(shape for curve, y in names for shape in _name(curve, y, up, curve.name in chosen)),
        text(
            (_LEFT + _RIGHT) / 2,
            _BOTTOM + 30,
            f"bandwidth of {curves.link}, both directions, log scale",
            anchor="middle",
        ),
        *(text(_LEFT, below + 14 * row, note, class_="small") for row, note in enumerate(notes)),
        text(_LEFT, below + 14 * len(notes), _explained(curves), class_="small"),
    ]
    figure = Figure(
        title=f"Predicted latency of {subject} against the bandwidth of {curves.link}",
        description="; ".join(notes),
        height=below + 14 * len(notes) + 14,
        shapes=shapes,
        width=_WIDTH,
    )
    drawn = svg(figure, id_="whatif")
    # A document of its own needs the namespace and a size, which inside an HTML page would only be in the way.
    return drawn.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(_WIDTH)}" ', 1) + "\n"


def write_svg(curves: Curves, path: Path, *, subject: str) -> None:
    """Write the document."""
    path.write_text(whatif_svg(curves, subject=subject), encoding="utf-8")


def _explained(curves: Curves) -> str:
    orange = "; orange: the fastest" if curves.complete else ""
    return f"p{curves.percentile:g}, unloaded, single stream, predicted; grey: not over {curves.link}{orange}"


def _grid(across: Axis, up: Axis) -> Iterator[Html]:
    for value in across.ticks():
        yield line(across.at(value), _TOP, across.at(value), _BOTTOM, "grid")
        yield text(across.at(value), _BOTTOM + 14, rate(value), class_="small", anchor="middle")
    for value in up.ticks():
        yield line(_LEFT, up.at(value), _RIGHT, up.at(value), "grid")
        yield text(_LEFT - 5, up.at(value) + 3.5, seconds_tick(value), class_="small", anchor="end")


def _path(curve: Curve, curves: Curves, across: Axis, up: Axis, class_: str) -> Html:
    return _polyline(curves.bit_per_s, curve.latency_s, across, up, class_)


def _notes(curves: Curves) -> list[str]:
    """Return where the choice changes, or that it does not, or that it is open."""
    fastest = curves.fastest(0)
    if fastest is None:
        without = sum(strategy.measured for strategy in curves.unpredictable)
        return [f"which is the fastest is open: {counted(without, 'measured strategy')} without a prediction"]
    return [
        f"from {rate(crossing.bit_per_s)}: {crossing.above} instead of {crossing.below}, {duration(crossing.latency_s)}"
        for crossing in curves.crossings
    ] or [f"the fastest is {fastest.name} at every rate shown"]


def _best(curves: Curves, fastest: Sequence[Curve], across: Axis, up: Axis) -> Html:
    points = [
        (value, curve.latency_s[index])
        for index, (value, curve) in enumerate(zip(curves.bit_per_s, fastest, strict=True))
    ]
    # Crossings lie between the rates that were computed: with them the line bends where the choice changes.
    points = sorted(points + [(crossing.bit_per_s, crossing.latency_s) for crossing in curves.crossings])
    return _polyline([x for x, _ in points], [y for _, y in points], across, up, "best")


def _polyline(xs: Sequence[float], ys: Sequence[float], across: Axis, up: Axis, class_: str) -> Html:
    places = " ".join(f"{number(across.at(x))},{number(up.at(y))}" for x, y in zip(xs, ys, strict=True))
    return tag("polyline", points=places, class_=class_)


def _names(curves: Curves, up: Axis) -> Iterator[tuple[Curve, float]]:
    """Yield each name beside the right end of its curve; names that would cover each other move down, then up."""
    # The slowest first, which is the highest up: pixels count downwards.
    ordered = sorted(curves.curves, key=lambda curve: -curve.latency_s[-1])
    places: list[float] = []
    for curve in ordered:
        places.append(max(up.at(curve.latency_s[-1]) + 3.5, places[-1] + _LINE if places else 0.0))
    limit = max(_BOTTOM, _TOP + _LINE * len(places))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - _LINE
    yield from zip(ordered, places, strict=True)


def _name(curve: Curve, y: float, up: Axis, chosen: bool) -> Iterator[Html]:
    yield line(_RIGHT, up.at(curve.latency_s[-1]), _RIGHT + 14, y - 3.5, "leader")
    label = fitted(curve.name, _WIDTH - _RIGHT - 22, size=10)
    yield text(_RIGHT + 17, y, label, class_="small chosen" if chosen else "small")
