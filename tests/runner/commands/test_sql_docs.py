"""docs/sql.md: every query runs and prints what the page says."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import inspect

from catalog.analysis import AnalysisSettings, store_missing
from catalog.evidence.database import open_database
from catalog.exchange import import_files
from migrations.views import VIEWS
from runner.cli import app, run
from runner.reports.slo_status import store_results

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "sql.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("docs") / "example.db"
    with open_database(path, create=True) as database:
        import_files(database, [DOCS / "example-evidence.json.gz"])
        store_missing(database, AnalysisSettings())
        store_results(database, AnalysisSettings())
    return str(path)


@pytest.mark.parametrize(("query", "output"), QUERIES, ids=[query.splitlines()[0][:40] for query, _ in QUERIES])
def test_a_query_prints_what_the_page_says(
    example: str, query: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: app(["sql", query, "-d", example])) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    assert printed == output.splitlines()


def test_there_are_ten_and_every_view_is_described() -> None:
    assert len(QUERIES) >= 10
    assert PAGE.count("```sql") == len(QUERIES)
    for name in VIEWS:
        assert f"| `{name}` |" in PAGE
        assert any(name in query for query, _ in QUERIES)


def test_every_table_is_described(example: str) -> None:
    with open_database(example, readonly=True) as database, database.engine.connect() as connection:
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_columns_of_one_name_are_all_in_the_json(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["sql", "SELECT 1 AS id, 2 AS id, 3 AS id_2, 4 AS id", "-d", example, "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == [{"id": 1, "id_3": 2, "id_2": 3, "id_4": 4}]
    assert run(lambda: app(["sql", "SELECT 1 AS id, 2 AS id", "-d", example, "--csv"])) == 0
    assert capsys.readouterr().out == "id,id\n1,2\n"


def test_a_row_of_many_columns_has_a_line_for_each(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["sql", "SELECT * FROM ranking LIMIT 2", "-d", example])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("worst_rank ") for line in lines) == 2
    assert "┃" not in "".join(lines)
