"""Queries live in `catalog/evidence`: everything else calls its functions, with the session of its transaction."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("catalog", "recommender", "runner", "tierserver")
HOME = ROOT / "catalog" / "evidence"
LIBRARIES = {"sqlalchemy", "sqlmodel"}
# The session is handed over, and what a database refuses is translated, wherever a transaction begins.
ALLOWED = {"Session", "SQLAlchemyError"}
# Of a session, a connection or a cursor.
RUNS_A_QUERY = {"exec", "execute", "exec_driver_sql", "scalars", "get_one"}


def faults(source: str) -> Iterator[str]:
    """Yield what a module uses of the database's libraries beside the session."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            yield from (alias.name for alias in node.names if alias.name not in ALLOWED)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in LIBRARIES)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUNS_A_QUERY:
            yield ast.unparse(node.func)


def test_no_query_is_outside_the_room_of_the_evidence() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if HOME not in path.parents]
    assert len(modules) > 100
    outside = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in modules}
    assert {path: names for path, names in outside.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from sqlalchemy import select",
        "from sqlmodel import Session, col",
        "import sqlalchemy.engine",
        "session.execute(query)",
        "self._session.get_one(Table, 1)",
    ],
)
def test_a_query_elsewhere_would_be_noticed(source: str) -> None:
    assert list(faults(source))


def test_the_session_may_be_handed_over() -> None:
    assert not list(faults("from sqlmodel import Session\ndef read(session: Session): return rows(session)"))
