"""Benchmarks are run by hand and rarely: what they import by name is still there."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.test_names import PRODUCT, ROOT, modules


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))


@cache
def defined_names(path: Path) -> set[str]:
    """Return what a module defines or imports at its top level, the branches of an `if` or `try` included."""
    names: set[str] = set()
    for node in nodes(path):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=alias):
                names.add(alias or name)
    return names


def module_file(name: str) -> Path | None:
    place = ROOT.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def absent_names(benchmark: Path) -> Iterator[str]:
    """Yield what a benchmark imports from this project that is not there."""
    for node in nodes(benchmark):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.split(".")[0] not in (*PRODUCT, "benchmarks", "tests"):
            continue
        path = module_file(node.module)
        for alias in node.names:
            is_module = module_file(f"{node.module}.{alias.name}") is not None
            if not is_module and (path is None or alias.name not in defined_names(path)):
                yield f"{benchmark.relative_to(ROOT)}: {node.module}.{alias.name}"


def test_what_benchmarks_import_is_still_there() -> None:
    assert [name for benchmark in modules(("benchmarks",)) for name in absent_names(benchmark)] == []
