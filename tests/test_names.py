"""The lint of names: what ruff has no rule for.

`python -m tests.test_names` lowers the counts of tests/data/filler_names.txt to today's; it raises none.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("catalog", "recommender", "runner", "tierserver")
CHECKED = (*PRODUCT, "benchmarks", "migrations", "tests")
FILLERS = frozenset({"asked", "each", "found", "given", "held", "it", "known", "told", "wanted"})
STORED = ROOT / "tests/data/filler_names.txt"
RENEW = "name what it is; after lowering a count: python -m tests.test_names"

# Class names that two modules define, and why both mean the same.
SAME_MEANING = {
    "GuardedProtocol": "a connection under limits: to a tier, and to the service",
    "LinkProbe": "what a link really carried: the row, and the message of a tier",
    "PoolInput": "an input of a pool with its size: the row, and what a round draws from",
    "Sample": "one timed inference: the row, and the message of a tier",
    "SampleLink": "bytes of one inference on one link: the row, and the message of a tier",
    "SamplePart": "what one tier spent on one inference: the row, and the message of that tier",
    "Strategy": "an operator on a placement for a subject: as declared, and as its row",
}


@dataclass(frozen=True)
class Bindings:
    """What a file binds: how many filler names, and which public classes."""

    fillers: int
    classes: tuple[str, ...]


@cache
def bindings(path: Path) -> Bindings:
    """Read a file once. Its tree is not kept: every later garbage collection would search a million nodes."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))) if type(node) in BINDING]
    names = (name for node in nodes for name in bound_names(node))
    classes = (node.name for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    return Bindings(sum(name.lstrip("_") in FILLERS for name in names), tuple(classes))


def modules(packages: tuple[str, ...]) -> Iterator[Path]:
    return (path for package in packages for path in sorted((ROOT / package).rglob("*.py")))


# Nodes are a million and few of them bind a name.
BINDING = {ast.Name, ast.Attribute, ast.arg, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef}
BINDING |= {ast.MatchAs, ast.MatchStar, ast.ExceptHandler}


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that one node gives to something: variables, parameters, attributes, functions."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
            yield name


def filler_names() -> dict[str, int]:
    """Count by file the bindings of a filler name; files without one are left out."""
    counts = {path.relative_to(ROOT).as_posix(): bindings(path).fillers for path in modules(CHECKED)}
    return {name: count for name, count in sorted(counts.items()) if count}


def stored_counts() -> dict[str, int]:
    rows = (line.rsplit(" ", 1) for line in STORED.read_text(encoding="utf-8").splitlines())
    return {path: int(count) for path, count in rows}


def test_no_file_has_more_filler_names_than_it_had() -> None:
    stored = stored_counts()
    grown = {path: count for path, count in filler_names().items() if count > stored.get(path, 0)}
    assert not grown, RENEW


def test_no_script_of_the_page_binds_a_filler_name() -> None:
    names = "|".join(sorted(FILLERS))
    # A declaration, a parameter of a function or arrow function, or an element of a destructuring.
    binding = re.compile(rf"(?:\b(?:const|let|function)\s+|[(,{{[]\s*)({names})\b(?=\s*(?:[,)}}\]=]|of\b|in\b))")
    scripts = sorted((ROOT / "recommender/page").glob("*.js"))
    assert scripts
    bound = {script.name: binding.findall(script.read_text(encoding="utf-8")) for script in scripts}
    assert not {name: fillers for name, fillers in bound.items() if fillers}, RENEW


def test_no_class_name_has_two_meanings() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules(PRODUCT):
        for name in bindings(path).classes:
            places[name].append(path.relative_to(ROOT).as_posix())
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not {name: paths for name, paths in twice.items() if name not in SAME_MEANING}


if __name__ == "__main__":
    lowered = {path: min(count, stored_counts().get(path, 0)) for path, count in filler_names().items()}
    STORED.write_text("".join(f"{path} {count}\n" for path, count in lowered.items() if count), encoding="utf-8")
