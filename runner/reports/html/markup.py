"""HTML and SVG as text: plain strings are data and get escaped, `Html` is markup and does not."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_VOID = frozenset({"meta", "br", "hr", "col"})


class Html(str):
    """Finished markup; only functions of this module make it from data."""

    __slots__ = ()


Child = str | Iterable["Child"] | None
Attribute = str | float | bool | None


def tag(name: str, *children: Child, **attributes: Attribute) -> Html:
    """Return an element; `class_` is class, `stroke_width` is stroke-width, None and False leave an attribute out."""
    opening = "".join(_attributes(name, attributes))
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Return children one after the other, without an element around them."""
    return Html("".join(_texts(children)))


def _attributes(name: str, attributes: dict[str, Attribute]) -> Iterable[str]:
    yield name
    for key, value in attributes.items():
        spelled = key.rstrip("_").replace("_", "-")
        if value is True:
            yield f" {spelled}"
        elif isinstance(value, float):
            yield f' {spelled}="{number(value)}"'
        elif value is not None and value is not False:
            yield f' {spelled}="{escape(str(value))}"'


def _texts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str):
            yield escape(child)
        elif child is not None:
            yield from _texts(child)


def number(value: float) -> str:
    """Return a coordinate: a tenth of a pixel is enough, and short."""
    return f"{value:.1f}".removesuffix(".0")


class Ids:
    """The ids of one page, each used once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, *names: str) -> str:
        """Return an id made of the names, with a number if it is taken already."""
        plain = "-".join("".join(char if char.isalnum() else "-" for char in name.lower()) for name in names)
        unique, count = plain, 1
        while unique in self._taken:
            count += 1
            unique = f"{plain}-{count}"
        self._taken.add(unique)
        return unique


def table(
    caption: Child, heads: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str = "", left: int = 1
) -> Html:
    """Return a table in a scrolling box; the first cell of a row is its heading, `left` columns are text."""
    listed = [list(row) for row in rows]
    head = tag("tr", (tag("th", cell, scope="col", class_=_side(i, left)) for i, cell in enumerate(heads)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            (tag("td", cell, class_=_side(i, left)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in listed
    ]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0")


def _side(column: int, left: int) -> str | None:
    return "text" if column < left else None


def details(summary: Child, *children: Child) -> Html:
    """Fold content on the screen, to be unfolded by a click."""
    return tag("details", tag("summary", summary), children)


WIDTH = 340.0
# Of a letter at size 1, in a wide font such as DejaVu Sans; names are mostly small letters.
_LETTER = 0.53


@dataclass(frozen=True)
class Figure:
    """A drawing with its title and description, for screen readers too."""

    title: str
    description: str
    height: float
    shapes: Sequence[Html]
    width: float = WIDTH


def svg(figure: Figure, *, id_: str) -> Html:
    """Return the figure as an inline image with a title and a description."""
    return tag(
        "svg",
        tag("title", figure.title, id=f"{id_}-title"),
        tag("desc", figure.description, id=f"{id_}-desc"),
        figure.shapes,
        id=id_,
        viewBox=f"0 0 {number(figure.width)} {number(figure.height)}",
        role="img",
        aria_labelledby=f"{id_}-title {id_}-desc",
    )


def text(x: float, y: float, content: str, *, class_: str = "", anchor: str | None = None) -> Html:
    """Draw text from (x, y) on its base line."""
    return tag("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """Draw a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, *children: Child) -> Html:
    """Draw a rectangle, wide enough to be visible."""
    return tag("rect", *children, x=x, y=y, width=max(width, 0.5), height=height, class_=class_)


def dots(points: Iterable[tuple[float, float]], class_: str) -> Html:
    """Draw many dots as one path: lines of no length with round caps; those on the same half pixel only once."""
    places = dict.fromkeys((round(2 * x) / 2, round(2 * y) / 2) for x, y in points)
    return tag("path", d="".join(f"M{number(x)} {number(y)}h0" for x, y in places), class_=class_)


def fitted(content: str, width: float, *, size: float) -> str:
    """Return the text, or its two ends with an ellipsis between them if it would be wider than `width`."""
    room = int(width / (size * _LETTER))
    if len(content) <= room:
        return content
    kept = max(room - 1, 2)
    return f"{content[: kept - kept // 2]}…{content[-(kept // 2) :]}"


def text_width(content: str, *, size: float) -> float:
    """Estimate how wide a text is."""
    return len(content) * size * _LETTER


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on the pixels from `start` to `end`; logarithmic or linear."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value; values outside are put at the edge."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, inside = math.log(low), math.log(high), math.log(inside)
        share = 0.5 if high == low else (inside - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values, two to seven of them."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for factors in ((1, 2, 5), (1,)):
                ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
                ticks = [value for value in ticks if self.low <= value <= self.high]
                if 2 <= len(ticks) <= 7:
                    return ticks
            if len(ticks) > 7:
                return ticks[:: math.ceil(len(ticks) / 7)]
        return _linear_ticks(self.low, self.high)


def _linear_ticks(low: float, high: float) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(low: float, high: float, *, logarithmic: bool, share: float = 0.04) -> tuple[float, float]:
    """Return a range with some room on both sides, never empty."""
    if logarithmic:
        room = max(math.log(high / low) * share, 0.02)
        return low * math.exp(-room), high * math.exp(room)
    room = max((high - low) * share, 1e-9, abs(high) * 1e-6)
    return low - room, high + room


def seconds_tick(seconds: float) -> str:
    """Return `0.5 ms`, `20 ms`, `2 s`: an axis label."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e3:.2g} ms"
    return f"{seconds:.3g} s" if seconds < 9999 else f"{seconds:.0f} s"


def bottom_axis(axis: Axis, top: float, bottom: float, *, title: str) -> list[Html]:
    """Draw grid lines from top to bottom, labels in seconds below them, and the axis title."""
    shapes: list[Html] = []
    free = 0.0
    for value in axis.ticks():
        x, label = axis.at(value), seconds_tick(value)
        half = text_width(label, size=12) / 2  # digits are wider than letters
        shapes.append(line(x, top, x, bottom, "grid"))
        left = min(max(x, half), WIDTH - half)
        if left - half >= free:
            shapes.append(text(left, bottom + 12, label, class_="small", anchor="middle"))
            free = left + half + 5
    shapes.append(text((axis.start + axis.end) / 2, bottom + 26, title, class_="small", anchor="middle"))
    return shapes
