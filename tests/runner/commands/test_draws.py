"""What the rounds draw is said before it is measured and afterwards."""

import json
from pathlib import Path

import pytest
import yaml

from runner.cli import app, run
from tests.catalog_of_one import CATALOG, declare

WORDS = "4 of 40 inputs per round, spread by size; the largest in round 1"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    drawing = CATALOG | {"experiment": {"inputs": 4, "select": "systematic", "rounds": 1}}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(drawing, sort_keys=False))
    return tmp_path


def test_the_draw_is_said_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["validate"])) == 0
    assert f"table: {WORDS}" in capsys.readouterr().out
    assert run(lambda: app(["plan", "--launcher", "process"])) == 0
    assert f"table: {WORDS}" in capsys.readouterr().err
    assert run(lambda: app(["fill-catalog", "--launcher", "process"])) == 0
    capsys.readouterr()
    for command in ("status", "validate"):
        assert run(lambda command=command: app([command])) == 0  # type: ignore[misc]
        assert f"table: {WORDS}" in capsys.readouterr().out
        assert run(lambda command=command: app([command, "--json"])) == 0  # type: ignore[misc]
        assert json.loads(capsys.readouterr().out)["draws"] == {"table": WORDS}
    # A fill ends with the answers to the SLOs: of one round there is an estimate alone.
    assert run(lambda: app(["sql", "SELECT slo, status, standing FROM slo_status", "--json"])) == 0
    assert json.loads(capsys.readouterr().out) == [{"slo": "fast", "status": "estimated", "standing": "current"}]


def test_more_inputs_than_there_are_is_a_note(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "strategies.yaml").read_text().replace("inputs: 4", "inputs: 50")
    (folder / "strategies.yaml").write_text(text)
    assert run(lambda: app(["validate"])) == 0
    assert "all 40 inputs in every round (there are no more, and 50 are declared)" in capsys.readouterr().out


def test_what_cannot_be_proven_is_a_warning_and_no_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "strategies.yaml").read_text().replace("p50: 10s", "p99: 10s")
    (folder / "strategies.yaml").write_text(text)
    assert run(lambda: app(["validate"])) == 0
    assert "warning: SLO fast, table: p99 cannot be proven with 4 inputs x 1 round" in capsys.readouterr().err
    assert run(lambda: app(["validate", "--json"])) == 0
    (target,) = json.loads(capsys.readouterr().out)["unprovable"]
    assert (target["slo"], target["subject"]) == ("fast", "table")
