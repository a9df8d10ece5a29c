"""HTML and SVG as text: plain strings are data and get escaped, `Html` is markup and does not."""

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "br", "hr", "col"})


class Html(str):
    """Markup that is finished; only functions of this module make it of data."""

    __slots__ = ()


Child = str | Iterable["Child"] | None
Attribute = str | float | bool | None


def tag(name: str, *children: Child, **attributes: Attribute) -> Html:
    """An element; `class_` is class, `stroke_width` is stroke-width, None and False leave an attribute out."""
    opening = "".join(_attributes(name, attributes))
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Children one after the other, without an element around them."""
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
    """A coordinate: a tenth of a pixel is enough, and short."""
    return f"{value:.1f}".removesuffix(".0")


class Ids:
    """Ids of one page: each is given out once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def new(self, *parts: str) -> str:
        """An id made of the parts, with a number where it is taken already."""
        wanted = "-".join("".join(char if char.isalnum() else "-" for char in part.lower()) for part in parts)
        found, count = wanted, 1
        while found in self._given:
            count += 1
            found = f"{wanted}-{count}"
        self._given.add(found)
        return found


def table(
    caption: Child, heads: Iterable[Child], rows: Iterable[Iterable[Child]], *, class_: str = "", left: int = 1
) -> Html:
    """A table in a box that scrolls by itself; the first cell of a row is its heading, `left` columns are text."""
    listed = [list(row) for row in rows]
    head = tag("tr", (tag("th", each, scope="col", class_=_side(i, left)) for i, each in enumerate(heads)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            (tag("td", each, class_=_side(i, left)) for i, each in enumerate(row[1:], 1)),
        )
        for row in listed
    ]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0")


def _side(column: int, left: int) -> str | None:
    return "text" if column < left else None


def details(summary: Child, *children: Child) -> Html:
    """Folded on the screen, unfolded by a click."""
    return tag("details", tag("summary", summary), children)
