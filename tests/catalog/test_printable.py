"""What reaches a terminal: foreign text as it is, without what a terminal would obey."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from catalog.console import Console, labelled
from catalog.foreign import printable, printable_json

OBEYED = {
    "a colour": "\x1b[31m",
    "a colour of C1": "\x9b31m",
    "parameters": "\x1b[?25;1$p",
    "a title": "\x1b]0;title\x07",
    "a title of C1": "\x9d0;title\x9c",
    "a link": "\x1b]8;;http://elsewhere\x1b\\",
    "a device's string": "\x1bP1$r0m\x1b\\",
    "an application's string": "\x1b_text\x1b\\",
    "a character set": "\x1b(0",
    "a reset": "\x1bc",
    "a line written over": "\r",
    "a bell, a backspace, a null": "\a\b\0",
    "another direction": "\u202e\u2066\u200f",
    "a line's end": "\u2028\x85",
    "a tag": "\U000e0041",
}


@pytest.mark.parametrize("sequence", OBEYED.values(), ids=OBEYED.keys())
def test_what_a_terminal_would_obey_is_left_out(sequence: str) -> None:
    assert printable(f"a{sequence}b") == "ab"
    printed = said(f"a{sequence}b", labelled(f"a{sequence}b", "red", "c"), Text(f"a{sequence}b"))
    assert "\x1b" not in printed and printed.isprintable() is False
    assert printed.replace("0;title", "").splitlines() == ["ab", "ab c", "ab"]
    assert said(labelled("error:", "red", f"a{sequence}b")) == "error: ab\n"


def said(*renderables: object) -> str:
    console = Console(file=io.StringIO(), width=80)
    for renderable in renderables:
        console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


@given(st.text())
def test_no_text_makes_a_terminal_do_anything(text: str) -> None:
    left = printable(text)
    codes = {ord(character) for character in left} - {ord("\n"), ord("\t")}
    assert not any(code < 32 or 127 <= code < 160 for code in codes)
    assert printable(left) == left
    left.encode()
    for line in said(text, Text(text)).splitlines():
        assert "\x1b" not in line and "\x9b" not in line


@pytest.mark.parametrize("text", ["a:fire:b", "[red]x[/red]", "[/]", "[link=http://x]y[/link]", r"\[x]", "é 模型 ±"])
def test_markup_and_emoji_codes_are_printed_as_they_are(text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    printed = said(text, labelled(text, "bold", text), table)
    assert printed.count(text) == 6


def test_columns_stay_straight_beside_what_is_left_out() -> None:
    table = Table("name", "value", box=None)
    table.add_row("\x1b[31mred\x1b[0m", "1")
    table.add_row("red", "2")
    first, second = said(table).splitlines()[1:]
    assert first.replace("1", "2") == second


def test_styles_of_ones_own_stay_where_a_terminal_is() -> None:
    segments = Console(width=80).render(Text.assemble(("a\x1b[31mb", "bold"), "c"))
    bold = [(segment.text, segment.style is not None and segment.style.bold is True) for segment in segments]
    assert bold[:3] == [("a", True), ("b", True), ("c", False)]


@given(st.text())
def test_json_keeps_its_value(text: str) -> None:
    document = printable_json(json.dumps({"text": text}, ensure_ascii=False, indent=2))
    assert json.loads(document) == {"text": text}
    assert printable(document) == document
    document.encode()
