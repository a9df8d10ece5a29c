"""The whole way on a PostgreSQL server: filled, continued, judged, ranked, asked, exported and imported again."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psycopg
import pytest
from sqlalchemy.engine import make_url

from runner.cli import app, run
from tests.catalog_of_one import declare
from tests.conftest import PostgresServer

COMMANDS = [
    ["status"],
    ["verify"],
    ["leaderboard", "--columns", "all"],
    ["rank"],
    ["recommend", "table", "--max-latency", "10s", "--percentile", "50"],
    ["slo"],
    ["whatif", "table", "--link", "mobile-edge=10mbit"],
    ["sql", "SELECT * FROM leaderboard"],
    ["plan", "--launcher", "process"],
]


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_every_command_does_on_a_server_what_it_does_on_a_file(
    new_database: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    declare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_DATABASE", new_database("first.db"))

    def give(*arguments: str) -> str:
        code = run(lambda: app([*arguments]))
        said = capsys.readouterr()
        assert code == 0, f"{arguments}: {said.out}{said.err}"
        return said.out

    give("fill-catalog", "--launcher", "process")
    assert json.loads(give("fill-catalog", "--launcher", "process", "--json"))["measured"] == 0
    for command in COMMANDS:
        assert give(*command), command
    page = "report.html"
    give("report", "--output", page)
    assert "table" in (tmp_path / page).read_text()
    give("export", "--output", "all.json")
    other = new_database("other.db")
    give("import", "all.json", "--database", other)
    assert "same" in give("compare", os.environ["TIERWISE_DATABASE"], other)


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_server_that_goes_in_the_middle_of_a_fill_is_one_clear_error_and_nothing_is_lost(
    new_database: Callable[[str], str],
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    declare(tmp_path)
    monkeypatch.chdir(tmp_path)
    url = new_database("cut.db")
    name = str(make_url(url).database)
    monkeypatch.setenv("TIERWISE_DATABASE", url)
    cutting = Thread(target=close_after_a_round, args=(url, postgres))
    cutting.start()
    code = run(lambda: app(["fill-catalog", "--launcher", "process"]))
    cutting.join()
    postgres.execute("ALTER DATABASE {} ALLOW_CONNECTIONS true", name)
    said = " ".join(capsys.readouterr().err.split())
    assert code == 1
    assert said.count("error:") == 1 and "Traceback" not in said
    assert "not currently accepting connections" in said or "the connection to the server was cut" in said
    assert str(make_url(url).password) not in said
    with psycopg.connect(url) as connection:
        before = connection.execute(ROUNDS).fetchall()
        assert before
        assert run(lambda: app(["fill-catalog", "--launcher", "process"])) == 0, capsys.readouterr().err
        after = connection.execute(ROUNDS).fetchall()
    # Nothing was measured twice, and nothing is missing.
    assert after[: len(before)] == before
    assert len(after) == len({row[:2] for row in after}) == 4


ROUNDS = "SELECT latency_key, round, finished_at FROM measurement ORDER BY id"


def close_after_a_round(url: str, postgres: PostgresServer) -> None:
    """End all connections to a database, and let none in, as soon as a round is stored there."""
    with psycopg.connect(url, autocommit=True) as connection:
        deadline = time.monotonic() + 60
        while connection.execute("SELECT COUNT(*) FROM measurement").fetchone() == (0,) and time.monotonic() < deadline:
            time.sleep(0.005)
    name = str(make_url(url).database)
    postgres.execute("ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
