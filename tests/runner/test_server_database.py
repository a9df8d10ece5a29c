"""The whole way on a PostgreSQL server: filled, continued, judged, ranked, asked, exported and imported again."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli import app, run
from tests.catalog_of_one import declare

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
