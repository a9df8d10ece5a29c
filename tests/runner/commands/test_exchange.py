"""`runner import` of files that claim the same key, what answers say of them, and `runner forget`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runner.commands.conftest import Command, piece

STRATEGIES = ("identity@mobile", "identity@edge", "quantized@edge")


def forged(document: dict[str, Any]) -> dict[str, Any]:
    """Return rounds that look newer, under the key of the slowest strategy, at a tenth of a millisecond."""
    content: dict[str, Any] = json.loads(json.dumps(document))
    (slow,) = (strategy["latency_key"] for strategy in content["strategies"] if strategy["placement"] == "mobile")
    content["measurements"] = [
        measurement for measurement in content["measurements"] if measurement["latency_key"] == slow
    ]
    for entry in content["measurements"]:
        entry["round"] += 10
        entry["samples"]["latency_s"] = [0.000103] * len(entry["samples"]["latency_s"])
        entry["started_at"] = entry["finished_at"] = "2099-01-01T00:00:00.000+00:00"
    return content


@pytest.fixture
def claimed(filled: Callable[..., Command], tmp_path: Path) -> Command:
    """Import two files of one environment key, of which the second is forged."""
    command = filled("fashion-resnet", *STRATEGIES)
    (tmp_path / "forged.json").write_text(json.dumps(forged(piece("fashion-resnet", STRATEGIES))))
    done = command("import", "forged.json")
    assert "does not contain that evidence unchanged; it is kept apart as imported:" in done.said
    return command


def test_a_forged_file_is_not_recommended_under_the_first_ones_key(claimed: Command) -> None:
    answer = json.loads(claimed("recommend", "fashion-resnet", "--json").out)
    assert [file["name"] for file in answer["environment"]["imported_files"]] == ["piece.json"]
    assert answer["recommendation"]["latency"]["percentile_s"] > 0.0002
    assert "imported from piece.json, not measured here" in answer["warnings"]
    rows = json.loads(claimed("leaderboard", "--json").out)
    assert {row["source"] for row in rows} == {"piece.json", "forged.json"}


def test_importing_and_forgetting_answer_the_slos_again(claimed: Command) -> None:
    def answered() -> list[str]:
        rows = json.loads(claimed("sql", "SELECT slo, environment, status FROM slo_status ORDER BY 1", "--json").out)
        assert {row["status"] for row in rows} <= {"proven", "likely", "open", "estimated", "infeasible"}
        return [row["slo"] for row in rows]

    assert answered() == ["batch", "batch", "interactive", "interactive"]
    assert claimed("forget", "forged.json").code == 0
    assert answered() == ["batch", "interactive"]


@pytest.mark.parametrize("reader", ["leaderboard", "sql"])
def test_a_large_import_is_analysed_by_the_first_reader(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """The views of analyses were empty until a leaderboard was printed."""
    monkeypatch.setattr("runner.commands.exchange._MOST_ANALYSED", 10)
    (tmp_path / "piece.json").write_text(json.dumps(piece("fashion-resnet", STRATEGIES[:2])))
    assert "306 samples are not analysed yet" in command("import", "piece.json").said
    assert command("sql", "SELECT COUNT(*) FROM sample").said == ""
    ranks = ("sql", "SELECT rank FROM ranking ORDER BY 1") if reader == "sql" else ("leaderboard",)
    first, second = (command(*ranks, "--json") for _ in range(2))
    assert "analysing what was imported" in first.said and second.said == ""
    assert [row["rank"] for row in json.loads(first.out)] == [row["rank"] for row in json.loads(second.out)] == [1, 2]


def test_an_import_that_adds_rounds_outdates_the_analysis(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The analysis of the earlier export stood beside the rounds of the later one as if it knew them."""
    whole, part = (piece("fashion-resnet", STRATEGIES[:count]) for count in (2, 1))
    for name, document in (("whole.json", whole), ("part.json", part)):
        (tmp_path / name).write_text(json.dumps(document))
    command("import", "part.json")
    monkeypatch.setattr("runner.commands.exchange._MOST_ANALYSED", 10)
    command("import", "whole.json")
    assert json.loads(command("sql", "SELECT COUNT(*) AS n FROM ranking", "--json").out) == [{"n": 2}]


def test_forgetting_says_what_was_removed(claimed: Command) -> None:
    done = claimed("forget", "forged.json")
    assert "is forgotten: removed 1 environment, 3 strategies, 5 measurements" in " ".join(done.out.split())
    assert {row["source"] for row in json.loads(claimed("leaderboard", "--json").out)} == {"piece.json"}
    assert claimed("forget", "forged.json").code == 1


def test_a_file_that_is_not_there_is_named_with_those_that_are(claimed: Command) -> None:
    done = claimed("forget", "other.json")
    assert done.code == 1
    assert "no imported file 'other.json'; there are: id 1: piece.json" in done.said


def test_an_accuracy_of_rows_without_items_is_not_measured_by_a_fill(command: Command, tmp_path: Path) -> None:
    rows = [f"net,{name},edge,{item},{seconds}" for name, seconds in (("Identity", 2), ("QE", 1)) for item in range(9)]
    (tmp_path / "raw.csv").write_text("\n".join(["model,operator,tier,image,latency (s)", *rows]) + "\n")
    (tmp_path / "accuracies.csv").write_text("model,operator,top1\nnet,Identity,90\nnet,QE,89.5\n")
    assert command("import", "raw.csv", "accuracies.csv").code == 0
    answer = command("recommend", "net", "--max-drop", "1")
    said = " ".join(answer.out.replace("│", " ").split())
    assert "Importing the accuracy of quantized_early_exit with the column `items` would say how sure that is" in said
    assert "drop 0.50 pp (of an unknown number of items)" in said
    assert "fill-catalog" not in answer.out


def test_an_accuracy_that_no_row_bounds_advises_no_column_of_items(command: Command, tmp_path: Path) -> None:
    """The column was there already: a number of items bounds a top-1 alone."""
    rows = [f"net,{name},edge,{item},{seconds}" for name, seconds in (("Identity", 2), ("QE", 1)) for item in range(9)]
    (tmp_path / "raw.csv").write_text("\n".join(["model,operator,tier,image,latency (s)", *rows]) + "\n")
    accuracies = "subject,operator,placement,metric,value_pct,items\nnet,identity,edge,miou,66.7,500\n"
    (tmp_path / "accuracies.csv").write_text(f"{accuracies}net,quantized_early_exit,edge,miou,66.4,500\n")
    assert command("import", "raw.csv", "accuracies.csv").code == 0
    said = " ".join(command("recommend", "net", "--max-drop", "1").out.replace("│", " ").split())
    assert "Ask without an accuracy budget: rows bound no miou, an export has its images" in said
    assert "column `items`" not in said


def test_an_option_that_says_nothing_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("model,operator,tier,image,T\nnet,identity,edge,a,5\n")
    assert command("import", "raw.csv", "--set", "unit").code == 2
    refused = command("import", "raw.csv", "--column", "latensy_s=T")
    assert refused.code == 1 and "--column latensy_s=T: no column" in refused.said
    assert command("import", "raw.csv", "--column", "latency_ms=T").code == 0
