"""SQL that people type: it reads, or one clear error says why not."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import QueryError
from catalog.evidence.database import Database, open_database
from catalog.evidence.user_sql import QueryLimits, printable, read_query


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
    "WITH x AS (SELECT 1) DELETE FROM sample": "only reading",
    "WITH x AS (DELETE FROM sample RETURNING *) SELECT * FROM x": "only reading",
    "EXPLAIN ANALYZE DELETE FROM sample": "only reading",
    "SELECT pg_read_file('/etc/passwd')": "permission denied for function pg_read_file; only reading",
    "SELECT lo_export(1, '/tmp/x')": "permission denied for function lo_export",
    "SELECT pg_ls_dir('/')": "permission denied",
    "SELECT * FROM pg_authid": "permission denied",
    "COPY (SELECT 1) TO PROGRAM 'true'": "only reading",
    "COPY sample TO '/tmp/sample'": "only reading",
    "RESET ROLE": "only reading",
    "DO $$ BEGIN EXECUTE 'RESET ROLE'; END $$": "only reading",
    "SELECT set_config('role', 'none', true)": "permission denied for function set_config",
    "SELECT query_to_xml('RESET ROLE', true, true, '')": "not allowed",
    "SELECT query_to_xml('SELECT pg_read_file(''/etc/passwd'')', true, true, '')": "permission denied",
    "EXPLAIN ANALYZE SELECT pg_read_file('/etc/passwd')": "permission denied",
    "SELECT nextval(seqrelid::regclass) FROM pg_sequence LIMIT 1": "only reading|permission denied",
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
        try:
            read_query(reading, statement)
        except QueryError as refused:
            assert re.search(message, str(refused), re.DOTALL), statement
        else:
            pytest.fail(statement)
    assert read_query(reading, "SELECT COUNT(*) FROM sample").rows == ((306,),)


@pytest.mark.both_databases
def test_nothing_of_a_refused_or_answered_statement_stays(reading: Database) -> None:
    if reading.engine.dialect.name == "sqlite":
        return  # there are no roles
    roles = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^tierwise'"
    with pytest.raises(QueryError):
        read_query(reading, "SELECT pg_read_file('/etc/passwd')")
    assert read_query(reading, "SELECT current_user = session_user AS same").rows == ((False,),)
    with reading.session() as session:
        assert session.connection().exec_driver_sql(roles).scalar() == 0
        allowed = "SELECT has_function_privilege('public', 'set_config(text,text,boolean)', 'execute')"
        assert session.connection().exec_driver_sql(allowed).scalar()


_COUNT = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {}) SELECT {} FROM n"


@pytest.mark.both_databases
def test_a_result_beyond_a_limit_is_refused_as_a_whole(reading: Database) -> None:
    few = QueryLimits(rows=1500, size_bytes=100_000, seconds=0.5)
    assert len(read_query(reading, _COUNT.format(1500, "x"), few).rows) == 1500
    with pytest.raises(QueryError, match="more than 1500 rows; add a LIMIT or a WHERE, or allow more with --max-rows"):
        read_query(reading, _COUNT.format(1501, "x"), few)
    wide = "replace(hex(zeroblob(400)), '0', 'x')" if reading.engine.dialect.name == "sqlite" else "repeat('x', 800)"
    for statement in (_COUNT.format(200, wide), f"SELECT {wide.replace('400', '400000').replace('800', '800000')}"):
        with pytest.raises(QueryError, match=r"larger than 97\.7 KiB; select fewer columns"):
            read_query(reading, statement, few)
    started = time.monotonic()
    for column in ("count(*)", "x"):
        with pytest.raises(QueryError, match="longer than 500 ms; add a WHERE, or allow more with --max-time"):
            read_query(reading, _COUNT.format(10**12, column), replace(few, rows=10**9, size_bytes=10**9))
    assert time.monotonic() - started < 60
    assert read_query(reading, "SELECT COUNT(*) FROM sample", few).rows == ((306,),)


def test_bytes_that_are_no_text_are_shown(reading: Database) -> None:
    assert read_query(reading, "SELECT CAST(x'41ff42' AS TEXT) AS odd").rows == (("A\\xffB",),)


@pytest.mark.both_databases
def test_every_value_is_valid_json(reading: Database) -> None:
    if reading.engine.dialect.name == "sqlite":
        statement = "SELECT 9e999 AS high, -9e999 AS low, x'00ff' AS blob, 1.5 AS half, NULL AS none"
        expected: list[object] = ["Infinity", "-Infinity", "\\x00ff", 1.5, None]
    else:
        statement = (
            "SELECT 'Infinity'::float8, 'NaN'::float8, '\\x00ff'::bytea, 1.5, NULL, now()::date, ARRAY['nan'::float8], "
            "'{\"a\": [1]}'::jsonb, 'Infinity'::numeric, true, gen_random_uuid(), '1 day'::interval"
        )
        expected = ["Infinity", "NaN", "\\x00ff", 1.5, None]
    (row,) = read_query(reading, statement).rows
    shown = [printable(value) for value in row]
    assert shown[: len(expected)] == expected
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
