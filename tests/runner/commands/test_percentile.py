"""`--percentile` means one thing in all commands, and the same strategy has one p90 in all of them."""

import json
from pathlib import Path

import pytest

from catalog.analysis import AnalysisSettings, store_missing
from catalog.evidence.database import open_database
from catalog.exchange import import_files
from runner.cli import app, run

EXAMPLE = Path(__file__).parents[3] / "docs" / "example-evidence.json.gz"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("percentile") / "example.db"
    with open_database(path, create=True) as opened:
        import_files(opened, [EXAMPLE])
        store_missing(opened, AnalysisSettings())
    return str(path)


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert run(lambda: app([*arguments, "--json"])) == 0
    return json.loads(capsys.readouterr().out)


def test_three_spellings_of_p90_rank_alike(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    rankings = [output(capsys, "rank", "-d", database, "--percentile", text) for text in ("90", "p90", "0.9")]
    assert rankings[0] == rankings[1] == rankings[2]
    assert {row["percentile"] for row in rankings[0]} == {90.0}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["rank", "report", "whatif", "recommend"])
def test_every_command_refuses_what_is_no_percentile_alike(
    database: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"whatif": ["fashion-resnet", "--link", "edge-cloud=10mbit"], "recommend": ["fashion-resnet"]}
    assert run(lambda: app([command, *more.get(command, []), "-d", database, "--percentile", "100"])) == 2
    assert "write a percentile such as 90, p90 or 0.9" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_one_strategy_has_one_p90_in_every_command(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    def by_name(rows: object, field: str) -> dict[tuple[str, str], float]:
        return {(row["operator"], row["placement"]): row[field] for row in rows}  # type: ignore[attr-defined]

    ranked = by_name(output(capsys, "rank", "-d", database, "--percentile", "p90"), "latency_s")
    board = by_name(output(capsys, "leaderboard", "-d", database), "p90_latency_s")
    query = "SELECT operator, placement, p90_latency_s FROM strategy_summary"
    view = by_name(output(capsys, "sql", query, "-d", database), "p90_latency_s")
    answer = output(capsys, "recommend", "fashion-resnet", "-d", database)
    recommendation = answer["recommendation"]  # type: ignore[index]
    name = recommendation["operator"], recommendation["placement"]
    assert ranked == pytest.approx(board)
    assert ranked == pytest.approx(view)
    assert recommendation["latency"]["percentile_s"] == pytest.approx(ranked[name])
