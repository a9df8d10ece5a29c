"""Catalog files that are none."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.hostile.cases import Case, Make, Section
from tests.hostile.project import CATALOG, edit


def _text(text: str) -> Make:
    return lambda folder: (folder / "strategies.yaml").write_text(text)


def _bytes(content: bytes) -> Make:
    return lambda folder: (folder / "strategies.yaml").write_bytes(content)


def _instead(old: str, new: str) -> Make:
    return partial(edit, old=old, new=new)


def _alias_bomb(folder: Path) -> None:
    """Write a trillion values from a few hundred characters."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (folder / "strategies.yaml").write_text("\n".join([CATALOG, *lines]))


def _directory(folder: Path) -> None:
    (folder / "strategies.yaml").unlink()
    (folder / "strategies.yaml").mkdir()


_remove: Callable[[Path], None] = lambda folder: (folder / "strategies.yaml").unlink()  # noqa: E731

CASES = (
    Case("is not there", _remove, "there is no such file"),
    Case("is a folder", _directory, "cannot be read"),
    Case("is not text", _bytes(b"\xff\xfe\x00version"), "not UTF-8 text"),
    Case("holds a control character", _text("version: \x07\n"), "not allowed in YAML"),
    Case("is empty", _text(""), "the file is empty"),
    Case("is longer than a catalog is", _text("a: " + "x" * 2**20), "longer than"),
    Case("is indented with tabs", _instead("  mine:", "\tmine:"), "replace it with spaces"),
    Case("lacks a bracket", _instead("[mobile]}", "[mobile}"), "malformed YAML"),
    Case("has a key twice", _text(CATALOG + "version: 1\n"), "duplicate key 'version': it is already on line 1"),
    Case("is an alias bomb", _alias_bomb, "aliases expand to more than"),
    Case("holds an anchor in itself", _text(CATALOG + "slos: &s {a: *s}\n"), "an anchor contains itself"),
    Case("nests without end", _text("[" * 5000), "nested too deeply"),
    Case("calls Python", _instead("[identity]", "!!python/object/apply:os.system [ls]"), "is not allowed"),
    Case("misspells a key", _instead("memory: 512m", "memroy: 512m"), "did you mean 'memory'?"),
    Case("has a number as a string", _instead("cpus: 0.5", 'cpus: "0.5"'), "remove the quotes"),
    Case("has its version as a string", _instead("version: 1", 'version: "1"'), "remove the quotes"),
    Case("has a word for a number", _instead("rounds: 1", "rounds: two"), "got 'two'"),
    Case("has a broken number for a whole one", _instead("rounds: 1", "rounds: 1.5"), "got 1.5"),
    Case("has a truth value for a number", _instead("cpus: 0.5", "cpus: yes"), "got True"),
    Case("has no number", _instead("cpus: 0.5", "cpus: .nan"), "got nan"),
    Case("has an absurd number", _instead("rounds: 1", f"rounds: 1{'0' * 30}"), "less than or equal to 1000"),
    Case("has a number of more digits than any", _instead("rounds: 1", f"rounds: 1{'0' * 5000}"), "not a number"),
    Case("has a size without its unit", _instead("memory: 512m", "memory: 512"), "has no unit"),
    Case("has a date for a name", _instead("./my.onnx", "2026-11-24"), "put it in quotes"),
    Case("has a list for a mapping", _instead("{identity: []}", "[identity]"), "expected a mapping"),
    Case("names a tier that is not declared", _instead("[mobile]}", "[mobil]}"), "did you mean 'mobile'?"),
    Case(
        "places two parts on one tier",
        _instead("{identity: []}", "{identity: [partition]}"),
        "operator 'identity' makes 2 parts and placement 'mobile' has 1 tier",
    ),
    Case(
        "wants real links of one engine",
        _text(CATALOG + "testbeds: {lab: {engine: local, links: real}}\n"),
        "links: real needs a place for each tier",
    ),
    Case(
        "names an engine by a wrong scheme",
        _text(CATALOG + "testbeds: {lab: {engine: 'ftp://nuc'}}\n"),
        "ftp:// does not lead to a Docker engine",
    ),
    Case("names an unknown pass", _instead("{identity: []}", "{identity: [prune]}"), "unknown pass"),
    Case("names an unknown model", _instead("./my.onnx", "builtin:nothing"), "unknown model"),
)
SECTION = Section(
    "The catalog file",
    "`runner validate`; every problem of the file is printed on a line of its own.",
    ("strategies.yaml", "what is said"),
    CASES,
)
