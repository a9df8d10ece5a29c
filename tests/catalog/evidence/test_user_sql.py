"""SQL that people type: it reads, or one clear error says why not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import QueryError
from catalog.evidence.database import Database, open_database
from catalog.evidence.user_sql import read_query


@pytest.fixture
def reading(database: Database, database_url: str, fill: Callable[[], Any]) -> Iterator[Database]:
    fill()
    with open_database(database_url, readonly=True) as opened:
        yield opened


@pytest.mark.both_databases
def test_rows_with_their_names(reading: Database) -> None:
    statement = "SELECT operator, COUNT(*) AS n, 100 % 7 AS rest, ':a' AS colon FROM leaderboard GROUP BY 1 ORDER BY 1"
    result = read_query(reading, statement)
    assert result.columns == ("operator", "n", "rest", "colon")
    assert result.rows == (("identity", 3, 2, ":a"), ("quantized", 3, 2, ":a"))
    assert read_query(reading, "WITH x AS (SELECT 1 AS one) SELECT * FROM x WHERE one > 1").rows == ()
    plan = "EXPLAIN QUERY PLAN" if reading.engine.dialect.name == "sqlite" else "EXPLAIN"
    assert read_query(reading, f"{plan} SELECT * FROM sample").rows


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM sample",
        "UPDATE sample SET latency_s = 0",
        "INSERT INTO slo VALUES ('a', '{}', '{}')",
        "DROP VIEW leaderboard",
        "CREATE TABLE t (x)",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "VACUUM INTO 'copy.db'",
        "BEGIN IMMEDIATE",
        "ROLLBACK",
        "WITH x AS (SELECT 1) DELETE FROM sample",
    ],
)
def test_what_does_more_than_read_is_refused(
    reading: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(QueryError, match="only reading is allowed: one statement that reads, such as: SELECT"):
        read_query(reading, statement)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert read_query(reading, "SELECT COUNT(*) FROM sample").rows == ((306,),)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", 'near "SELEC": syntax error; docs/sql.md describes'),
        ("SELECT nope FROM sample", "no such column: nope"),
        ("SELECT * FROM leaderbord", "no such table: leaderbord; there are .*leaderboard, link_check"),
        ("SELECT 1; SELECT 2", "these are several statements"),
        ("", "gives no rows; allowed: one statement that reads"),
        ("-- nothing", "gives no rows"),
        ("SELECT load_extension('x')", "not authorized|only reading|no such function"),
        ("SELECT ?", "docs/sql.md describes"),
    ],
)
def test_what_does_not_run_says_why(reading: Database, statement: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        read_query(reading, statement)


def test_a_database_that_may_be_written_is_not_asked(database: Database) -> None:
    with pytest.raises(ValueError, match="read-only"):
        read_query(database, "SELECT 1")


_SERVER_REFUSES = {
    "DELETE FROM sample": "only reading",
    "CREATE TABLE t (x int)": "only reading",
    "SELECT 1; DELETE FROM sample": "several statements",
    "SELEC 1": 'syntax error at or near "SELEC"',
    "SELECT * FROM leaderbord": 'relation "leaderbord" does not exist.*; there are .*leaderboard, link_check',
    "": "gives no rows",
}


@pytest.mark.both_databases
def test_a_server_refuses_the_same(reading: Database) -> None:
    if reading.engine.dialect.name == "sqlite":
        return  # above, one by one
    for statement, message in _SERVER_REFUSES.items():
        with pytest.raises(QueryError, match=f"(?s){message}"):
            read_query(reading, statement)
    assert read_query(reading, "SELECT COUNT(*) FROM sample").rows == ((306,),)
