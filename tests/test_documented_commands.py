"""Every command that README and docs show exists, with its options: a page that names one that does not is stale."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from runner.cli import COMMANDS, load_command

REPOSITORY = Path(__file__).parents[1]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
_LINE = re.compile(r"^(?:    |\$ )((?:runner|python -m|make) [^\n]*)$", re.MULTILINE)
_INLINE = re.compile(r"`((?:runner|python -m|make) [^`\n]*)`")
_ENDS = ("|", "&&", ">", ";", "\\", "…", "...")
_ENTRIES = {entry.name: entry for entry in COMMANDS}


def _shown() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for shown in dict.fromkeys((*_LINE.findall(text), *_INLINE.findall(text))):
            yield page.name, shown


SHOWN = list(_shown())


def _words(shown: str) -> list[str]:
    """Return a command without comments, what follows it in a pipe, and dots that stand for the rest of it."""
    words = shlex.split(shown, comments=True)
    end = next((index for index, word in enumerate(words) if word in _ENDS), len(words))
    return words[:end]


def _check_runner(arguments: list[str]) -> None:
    """Parse the arguments as the command line does; raise what it would refuse."""
    if arguments[:1] == ["--settings"]:
        arguments = arguments[2:]
    if not arguments or arguments[0].startswith("--"):
        return
    name, *rest = arguments
    assert name in _ENTRIES, f"there is no command runner {name}"
    command = load_command(_ENTRIES[name])
    try:
        command.make_context(name, rest)
    except typer.BadParameter:
        # A page may name a command alone, without what it is about.
        if rest:
            raise
    except typer.Exit:  # after --help
        pass


@pytest.mark.parametrize(("page", "shown"), SHOWN, ids=[f"{page}: {shown[:60]}" for page, shown in SHOWN])
def test_a_documented_command_exists_with_its_options(page: str, shown: str) -> None:
    words = _words(shown)
    if words[0] == "runner":
        _check_runner(words[1:])
    elif words[0] == "make":
        targets = set(re.findall(r"(?m)^([a-z]+):", (REPOSITORY / "Makefile").read_text()))
        assert set(words[1:]) <= targets
    else:
        assert find_spec(words[2]) is not None


def test_commands_are_found_on_the_pages() -> None:
    assert len(SHOWN) > 80
