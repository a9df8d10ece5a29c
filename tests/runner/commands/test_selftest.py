"""`runner selftest --aa`: through real tiers, and what it says of names that do differ."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from catalog.evidence.database import Database, open_database
from runner.cli import app, run
from runner.measuring.selftest import compare_aliases
from tests.catalog_of_one import declare

CATALOG = """\
version: 1
subjects:
  table: {model: "./table.onnx", task: any, dataset: {tensors: table.npz}}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: {inputs: 12, rounds: 2, warmup: 1}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_WORKDIR", str(tmp_path / "work"))
    declare(tmp_path)
    (tmp_path / "strategies.yaml").write_text(CATALOG)
    return tmp_path


def plant(database: Database, *, factor: float) -> None:
    """Give every name the same latencies but for a little, and the last two `factor` times as long ones."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE sample SET latency_s = (SELECT 0.01 * (1 + 0.001 * ((7 * seq + 3 * round + measurement.id) % 5))"
            f" * (CASE WHEN operator IN ('identity-3', 'identity-4') THEN {factor} ELSE 1 END)"
            " FROM measurement WHERE measurement.id = measurement_id)"
        )


def test_names_that_differ_fail_it_and_equal_ones_pass(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measure the names in real tiers, then plant latencies, so that the judgement is certain."""
    equal = []

    def compare_planted(database: Database, *arguments: Any, **options: Any) -> Any:
        plant(database, factor=1.0)
        equal.append(compare_aliases(database, *arguments, **options))
        plant(database, factor=1.5)
        return compare_aliases(database, *arguments, **options)

    monkeypatch.setattr("runner.commands.selftest.compare_aliases", compare_planted)
    command = ["selftest", "--aa", "--launcher", "process", "--names", "4", "--percentile", "50", "--json"]
    code = run(lambda: app([*command, "--keep", "aa.db"]))
    result = json.loads(capsys.readouterr().out)
    assert code == 1 and result["holds"] is False
    assert (result["pairs"], result["rounds"], result["inputs"], result["nominal"]) == (6, 2, 12, 0.05)
    assert (result["different"], result["different_pooled"], result["allowed"]) == (4, 4, 2)
    assert result["medians_s"] == {
        f"identity-{number}": pytest.approx(0.01 if number < 3 else 0.015, rel=0.01) for number in (1, 2, 3, 4)
    }
    (judged,) = equal
    assert (judged.pairs, judged.different, judged.different_pooled, judged.holds) == (6, 0, 0, True)
    assert verdicts(directory / "aa.db").count("INVALID") == len(verdicts(directory / "aa.db")) - 8


def verdicts(path: Path) -> list[str]:
    with open_database(path, readonly=True) as database, database.session() as session:
        return [row[0] for row in session.connection().exec_driver_sql("SELECT verdict FROM measurement")]


def test_a_file_that_exists_is_left_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "aa.db").write_text("mine")
    assert run(lambda: app(["selftest", "--aa", "--launcher", "process", "--keep", "aa.db"])) == 1
    assert re.search(r"aa\.db exists; name a\s+new file", capsys.readouterr().err)
    assert (directory / "aa.db").read_text() == "mine"
