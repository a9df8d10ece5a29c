"""HTML and SVG as text: plain strings are data and get escaped, `Html` is markup and does not."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

# The elements that have no content and take no closing tag.
_VOID = frozenset({"meta", "br", "hr", "col", "img"})


class Html(str):
    """Finished markup; only functions of this module make it from data."""

    # Not markupsafe: it would replace these lines and one branch of `_texts`, and a page took as long with it.

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
        # An attribute without a value, as HTML writes booleans.
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
    caption: Child,
    heads: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    class_: str = "",
    texts: Collection[int] = (0,),
) -> Html:
    """Return a table in a scrolling box; the first cell of a row is its heading, the columns `texts` may wrap."""
    listed = [list(row) for row in rows]
    head = tag("tr", (tag("th", cell, scope="col", class_=_side(i, texts)) for i, cell in enumerate(heads)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            (tag("td", cell, class_=_side(i, texts)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in listed
    ]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_ or None)
    # Focusable, so that the keyboard scrolls it too (WCAG 2.1, success criterion 2.1.1).
    return tag("div", inner, class_="scroll", tabindex="0")


def _side(column: int, texts: Collection[int]) -> str | None:
    return "text" if column in texts else None


def details(summary: Child, *children: Child) -> Html:
    """Fold content on the screen, to be unfolded by a click."""
    return tag("details", tag("summary", summary), children)


# A phone's screen less its margins: no figure needs zooming there.
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


# Not matplotlib, although scikit-posthocs brings it: the four figures of one subject took it 3.5 s and 146 KiB, these
# 0.03 s and 22 KiB; and these have values beside their rows, tooltips, hatches for print and the reader's dark scheme.
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
    # A subject may have thousands of outliers, most of them on the same few pixels.
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
            # 1, 2, 5 of every power of ten where that gives few enough labels; over many decades the powers alone.
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
    # Heckbert's nice numbers: the smallest round step of at least a quarter of the range.
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    # A tick on the edge itself must not be lost to rounding.
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
    # From here on three digits of milliseconds would print as 1e+03.
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
        # A label at an edge moves inwards, and one that would cover its neighbour is left out.
        left = min(max(x, half), WIDTH - half)
        if left - half >= free:
            shapes.append(text(left, bottom + 12, label, class_="small", anchor="middle"))
            free = left + half + 5
    shapes.append(text((axis.start + axis.end) / 2, bottom + 26, title, class_="small", anchor="middle"))
    return shapes


# Printed, a patterned area becomes a picture of a hundred megabytes a page: there, segments are grays instead.
CSS = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --muted: #57606a; --rule: #d0d7de; --soft: #f3f5f7;
  --strong: #0b4f8a; --fill: #b9d6ee; --warm: #f2d6a2; --on-strong: #fff; --link: #0b4f8a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181d; --text: #e6e9ec; --muted: #a3acb5; --rule: #3b434c;
  --soft: #1d2329; --strong: #8cc4f2; --fill: #2c4a63; --warm: #6b5426; --on-strong: #0d1117; --link: #8cc4f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 10px 40px; max-width: 1180px; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1.2rem 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 2px solid var(--rule); }
h3 { font-size: 1.15rem; margin: 1.8rem 0 .4rem; }
h4 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li, dd { max-width: 75ch; }
a { color: var(--link); }
nav ul { columns: 2 260px; padding-left: 1.2rem; margin: .4rem 0; }
nav li { break-inside: avoid; }
ul { padding-left: 1.2rem; }
.muted, figcaption { color: var(--muted); }
.answer p { margin: .2rem 0; } .answer p:first-child { font-weight: 600; }
.findings { columns: 2 400px; column-gap: 2.2rem; } .findings li { break-inside: avoid; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .9rem; }
dt { color: var(--muted); } dd { margin: 0; min-width: 0; }
details { margin: .2rem 0; } summary { cursor: pointer; padding: .25rem 0; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0; color: var(--muted); max-width: min(75ch, 92vw); }
th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
tbody th, th:first-child, .text { text-align: left; } tbody th { font-weight: 400; }
tbody td { white-space: nowrap; } tbody td.text, tbody th { white-space: normal; min-width: 8rem; }
thead th { font-weight: 600; border-bottom: 2px solid var(--rule); vertical-align: bottom; }
.answers { font-size: .95rem; width: 100%; } .answers tr > :last-child { width: 38%; }
.answers td, .answers th { text-align: left; padding: .35rem .6rem .35rem 0; }
.hint { font-weight: 400; font-size: .9rem; color: var(--muted); }
.answers caption { font-size: 1rem; color: var(--text); padding-top: .6rem; }
.answers tbody td { white-space: normal; min-width: 0; } .answers td b, .answers thead th { white-space: nowrap; }
.answers td:nth-child(3) div, .answers td:nth-child(5) div, .answers td:nth-child(6) div { white-space: nowrap; }
code { font-size: .9em; background: var(--soft); padding: 0 .2em; overflow-wrap: anywhere; }
.behind > details { border-top: 1px solid var(--rule); margin: 0; } .behind > details > summary h3 { display: inline;
  font-size: 1.05rem; } .behind > details > summary { padding: .5rem 0; }
.behind > details > div { scroll-margin-top: 3rem; }
@media (max-width: 640px) { .answers thead { position: absolute; left: -99rem; }
  .answers, .answers tbody, .answers tr, .answers tbody th, .answers caption { display: block; }
  .answers tr { border-top: 1px solid var(--rule); padding: .4rem 0; } .answers tbody th { font-weight: 600; }
  .answers tbody td { display: grid; grid-template-columns: 7rem 1fr; } .answers tbody td::before {
  content: attr(data-label); color: var(--muted); } .answers td, .answers th { border: 0; padding: .1rem 0; }
  .answers tbody td.absent { display: none; } .answers tr > :last-child { width: auto; } }
@media (max-width: 1250px) { .interval { display: block; } }
@media (max-width: 640px) { .scroll tbody th { position: sticky; left: 0; background: var(--ground); } }
.matrices { display: flex; flex-wrap: wrap; gap: .4rem 2rem; align-items: flex-start; }
.matrix td, .matrix th { text-align: center; min-width: 2.2rem; border: 1px solid var(--rule); }
.matrix caption { max-width: 20rem; }
.figures { columns: 3 330px; column-gap: 2.2rem; margin-top: .8rem; }
figure { margin: 0 0 1.8rem; min-width: 0; max-width: 440px; break-inside: avoid; }
figcaption { font-size: .85rem; margin-bottom: .4rem; } figcaption b { color: var(--text); }
.quantiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .8rem; }
figure.skeleton { max-width: 880px; } img.skeleton { max-width: 100%; height: auto; }
.quantiles figure { max-width: 150px; margin: 0; }
.quantiles figcaption { font-size: .7rem; line-height: 1.25; margin: .1rem 0 0;
  overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg.defs { position: absolute; width: 0; height: 0; }
text { font-size: 11px; fill: var(--text); } .row { font-size: 10.5px; } .small { font-size: 10px; }
.tiny { font-size: 9px; fill: var(--muted); }
.group { font-weight: 700; font-size: 12px; } .value { font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: .7; }
.whisker, .boundary { stroke: var(--text); stroke-width: 1; } .boundary { stroke-width: 1.6; }
.box { fill: var(--fill); stroke: var(--strong); stroke-width: 1; } .median { stroke: var(--text); stroke-width: 2.4; }
.outlier, .sample, .estimate, .tied { fill: none; stroke-linecap: round; stroke: var(--strong); stroke-width: 2.6; }
.estimate { stroke: var(--text); stroke-width: 7; } .tied { stroke: var(--text); stroke-width: 5; }
.tie { stroke: var(--muted); stroke-width: 2; } .fit { stroke: var(--text); stroke-width: 1; stroke-dasharray: 4 2; }
.mark { fill: var(--ground); fill-opacity: .6; stroke: var(--muted); stroke-width: 1.5; }
.mark.best { fill: var(--strong); fill-opacity: 1; stroke: var(--strong); }
.front { fill: none; stroke: var(--strong); stroke-width: 1.4; stroke-dasharray: 6 3; }
.name { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.target { fill: var(--fill); fill-opacity: .25; stroke: var(--text); stroke-width: 1; stroke-dasharray: 1.5 2.5; }
.leader { stroke: var(--text); stroke-width: 1; stroke-dasharray: 1.5 2.5; }
.part { stroke: var(--text); stroke-width: .6; } .on-part { fill: var(--on-strong); }
.compute { fill: var(--strong); } .transmission { fill: url(#hatch-transmission); }
.preprocess { fill: url(#dots-preprocess); } .postprocess { fill: url(#lines-postprocess); }
.serialise { fill: url(#lines-serialise); }
.ink { stroke: var(--text); fill: none; stroke-width: 1; }
.spot { fill: var(--text); } .paper { fill: var(--ground); } .warm { fill: var(--warm); }
@media print { body { font-size: 10pt; max-width: none; } nav { display: none; } .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; height: auto; } tr, figure { break-inside: avoid; }
  tbody td { white-space: normal; } h2, h3, h4 { break-after: avoid; }
  .preprocess { fill: #eee; } .transmission { fill: #c4c4c4; } .postprocess { fill: #fff; }
  .serialise { fill: #8c8c8c; } }
"""


def patterns() -> Html:
    """Return fills that differ without colour; the figures refer to them by id."""
    return tag(
        "svg",
        tag(
            "defs",
            _pattern("hatch-transmission", "warm", "M-1 1l2 -2M0 6l6 -6M5 7l2 -2", "ink"),
            _pattern("lines-postprocess", "paper", "M1.5 0v6M4.5 0v6", "ink"),
            _pattern("lines-serialise", "paper", "M0 1.5h6M0 4.5h6", "ink"),
            _pattern("dots-preprocess", "paper", "M1 1h1.4v1.4h-1.4zM4 4h1.4v1.4h-1.4z", "spot"),
        ),
        class_="defs",
        aria_hidden="true",
    )


def _pattern(name: str, ground: str, path: str, ink: str) -> Html:
    return tag(
        "pattern",
        joined(tag("rect", width="6", height="6", class_=ground), tag("path", d=path, class_=ink)),
        id=name,
        width="6",
        height="6",
        patternUnits="userSpaceOnUse",
    )
