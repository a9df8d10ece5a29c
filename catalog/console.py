"""The console of every command: it prints foreign text as it is, and nothing that a terminal would obey.

Neither `[red]` nor `:fire:` in a text means anything here, so that no caller has to escape what it prints; words with
a style are `rich.text.Text`. What may not reach a terminal is left out here and nowhere else (`catalog.foreign`).
"""

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.protocol import rich_cast
from rich.segment import Segment
from rich.text import Text

from catalog.foreign import UNPRINTABLE, printable, substitute

if TYPE_CHECKING:
    from rich.table import Table


class Console(rich.console.Console):
    """A console without markup and emoji codes, whose text has no control characters and no escape sequences."""

    def __init__(
        self,
        *,
        file: TextIO | None = None,
        stderr: bool = False,
        width: int | None = None,
        soft_wrap: bool = False,
        highlight: bool = True,
    ) -> None:
        super().__init__(
            file=file, stderr=stderr, width=width, soft_wrap=soft_wrap, highlight=highlight, markup=False, emoji=False
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the printable part of a text: before it is laid out, so that columns stay straight."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Any:
        """Yield the segments of something to print; what escaped the layout is left out of them."""
        renderable = rich_cast(renderable)
        if isinstance(renderable, Text):
            renderable = _printable_text(renderable)
        for segment in super().render(renderable, options):
            # Control segments are the console's own, such as those that redraw a bar.
            if segment.control or not UNPRINTABLE.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def stdout_width(piped: int) -> int | None:
    """Return the width to print with: None for that of the terminal, or of COLUMNS; a pipe has none of its own."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else piped


def _printable_text(text: Text) -> Text:
    """Return the text without what may not be printed, with the styles of the rest."""
    unprintable = list(UNPRINTABLE.finditer(text.plain))
    if not unprintable:
        return text
    kept, end = text.blank_copy(), 0
    for match in unprintable:
        kept.append_text(text[end : match.start()]).append(substitute(match))
        end = match.end()
    return kept.append_text(text[end:])


def labelled(label: str, style: str, text: str) -> Text:
    """Return a text after a label that has a style.

    Examples
    --------
    >>> labelled("error:", "red", "there is no [bold] database").plain
    'error: there is no [bold] database'
    """
    # Before rich takes single control characters out, by which the end of a sequence is known.
    return Text.assemble((label, style), f" {printable(text)}")


def open_table(*headings: str, title: str | None = None, edges: bool = True) -> "Table":
    """Return a table without lines between its columns, as all commands print them.

    Parameters
    ----------
    *headings : str
        Columns on the left; the caller adds the others.
    title : str, optional
    edges : bool
        Whether an empty line stands before and after it.
    """
    # Imported here: a command that prints no table does not pay for it.
    from rich import box
    from rich.table import Table

    return Table(
        *headings,
        title=None if title is None else Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,  # lines would take the width that the longest names need
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=edges,
    )
