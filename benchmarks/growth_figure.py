"""How something grows, as an SVG of two panels: seconds and MiB over the number of strategies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 340, 240, 56, 34, 200
_DASHES = ("none", "6 4")


@dataclass(frozen=True)
class Growth:
    """One size of a problem, and what it took."""

    strategies: int
    seconds: float
    peak_mib: float


def growth_svg(series: Mapping[str, Sequence[Growth]]) -> str:
    """Draw every series in both panels, told apart by dashes and named in the legend."""
    panels = "".join(
        f'<g transform="translate({_WIDTH * place},0)">{_panel(title, series, field)}</g>'
        for place, (title, field) in enumerate((("seconds", "seconds"), ("MiB at the peak", "peak_mib")))
    )
    legend = "".join(
        f'<path d="M{_LEFT + 300 * place} 252h28" stroke-dasharray="{_DASHES[place]}"/>'
        f'<text x="{_LEFT + 34 + 300 * place}" y="256">{name}</text>'
        for place, name in enumerate(series)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _WIDTH} 270" '
        'font-family="sans-serif" font-size="12">'
        "<title>Time and memory of the statistics over the number of strategies</title>"
        '<rect width="100%" height="100%" fill="#fff"/>'
        "<style>path{fill:none;stroke:#222;stroke-width:1.5} .g{stroke:#ccc;stroke-width:1}</style>"
        f"{panels}{legend}</svg>\n"
    )


def _panel(title: str, series: Mapping[str, Sequence[Growth]], field: str) -> str:
    points = [growth for growths in series.values() for growth in growths]
    most_x = max(point.strategies for point in points) * 1.05
    most_y = max(getattr(point, field) for point in points) * 1.1
    span, height = _WIDTH - _LEFT - 20, _BOTTOM - _TOP

    def place(strategies: float, value: float) -> tuple[float, float]:
        return round(_LEFT + span * strategies / most_x, 1), round(_BOTTOM - height * value / most_y, 1)

    drawn = [f'<text x="{_LEFT}" y="20">{title}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(0, share * most_y)
        drawn.append(f'<path class="g" d="M{_LEFT} {y}h{span}"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share * most_y:.3g}</text>')
    for count in (0, 250, 500, 750, 1000):
        x, _ = place(count, 0)
        drawn.append(f'<text x="{x}" y="{_BOTTOM + 18}" text-anchor="middle">{count}</text>')
    drawn.append(f'<text x="{_LEFT + span / 2}" y="{_BOTTOM + 34}" text-anchor="middle">strategies × 500</text>')
    for dash, growths in zip(_DASHES, series.values(), strict=True):
        path = "L".join("{} {}".format(*place(growth.strategies, getattr(growth, field))) for growth in growths)
        drawn.append(f'<path d="M{path}" stroke-dasharray="{dash}"/>')
    return "".join(drawn)
