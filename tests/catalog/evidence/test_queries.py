"""Queries live in `catalog/evidence`: everything else calls its functions, with the session of its transaction."""

import ast
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, select, text

from catalog.evidence.database import Database
from catalog.evidence.queries import BOOLEAN_COLUMNS, JSON_COLUMNS, fetch, fetch_stored, stream
from catalog.evidence.tables import EvidenceTable

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


def test_plain_sql_knows_every_column_of_json_and_of_truth() -> None:
    for declared, kind in ((JSON_COLUMNS, JSON), (BOOLEAN_COLUMNS, Boolean)):
        of_tables = {
            name: frozenset(column.name for column in table.columns if isinstance(column.type, kind))
            for name, table in EvidenceTable.metadata.tables.items()
        }
        assert dict(declared) == {name: columns for name, columns in of_tables.items() if columns}


@pytest.mark.both_databases
def test_every_row_is_read_without_a_mapper_as_with_one(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    rows = 0
    with ExitStack() as stack:
        session = stack.enter_context(database.session())
        readers = [session, stack.enter_context(database.reading())]
        for name, table in EvidenceTable.metadata.tables.items():
            order = ", ".join(column.name for column in table.primary_key)
            mapped = [dict(row) for row in session.execute(select(table).order_by(text(order))).mappings()]
            rows += len(mapped)
            for reader in readers:
                assert [vars(row) for row in fetch_stored(reader, name, f"ORDER BY {order}")] == mapped
                assert len(list(stream(reader, f"SELECT * FROM {name}"))) == len(mapped)
    assert rows > 100


@pytest.mark.both_databases
def test_what_reads_sees_one_moment(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    with database.reading() as reader:
        before = fetch(reader, "SELECT COUNT(*) AS rounds FROM measurement")[0].rounds
        with database.writing_session() as writing:
            writing.execute(text("DELETE FROM measurement"))
            writing.commit()
        assert fetch(reader, "SELECT COUNT(*) AS rounds FROM measurement")[0].rounds == before > 0
    with database.reading() as reader:
        assert fetch(reader, "SELECT id FROM measurement") == []


def test_malformed_json_ends_no_query(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    with database.writing_session() as writing:
        writing.execute(text("UPDATE environment SET details = '{'"))
        writing.commit()
    with database.reading() as reader:
        assert [row.details for row in fetch_stored(reader, "environment")] == ["{"]
