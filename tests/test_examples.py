"""Every example in a docstring prints what it says."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog", "runner", "recommender", "tierserver", "migrations")
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)


def modules_with_examples() -> list[str]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    dotted = (path.relative_to(ROOT).with_suffix("").parts for path, text in texts.items() if EXAMPLE.search(text))
    return [".".join(parts).removesuffix(".__init__") for parts in dotted]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_print_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_looked_for_in_every_package_that_has_some() -> None:
    assert {"catalog", "runner", "recommender"} <= {name.partition(".")[0] for name in modules_with_examples()}
