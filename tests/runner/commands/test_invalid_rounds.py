"""Fills and self-tests where no round can be VALID; what they measure does not matter, so others may run beside it."""

from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from runner.cli import app, run
from runner.measuring import experiment
from tests.catalog_of_one import declare

UNREACHABLE = """\
version: 1
subjects:
  table: {model: "./table.onnx", task: any, dataset: {tensors: table.npz}}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}, edge: {cpus: 1, memory: 1g}}
links: {mobile-edge: {bandwidth: 20mbit, tolerance: 0.000001}}
strategies: [{operators: [identity], placements: [edge]}]
experiment: {inputs: 2, rounds: 1, warmup: 0}
"""


@pytest.fixture(autouse=True)
def _unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Require a millionth of the declared rate, which no link meets, however often it is looked at: once here."""
    monkeypatch.setattr(experiment, "_LOOKS", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_WORKDIR", str(tmp_path / "work"))
    declare(tmp_path)
    (tmp_path / "strategies.yaml").write_text(UNREACHABLE)


def test_what_is_invalid_is_measured_again_and_not_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(lambda: app(["selftest", "--aa", "--launcher", "process", "--names", "2", "--keep", "aa.db"]))
    said = " ".join(capsys.readouterr().err.split())
    assert code == 1 and "2 measurements failed 3 times: table · identity-" in said
    assert "link rate (mobile-edge" in said
    with open_database(tmp_path / "aa.db", readonly=True) as database, database.session() as session:
        verdicts = session.connection().exec_driver_sql("SELECT verdict FROM measurement").scalars().all()
    assert verdicts == ["INVALID"] * 6


def test_a_fill_measures_an_invalid_round_once_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(lambda: app(["fill-catalog", "--launcher", "process", "-d", "fill.db"]))
    said = " ".join(capsys.readouterr().err.split())
    assert code == 1 and "measured once more, as INVALID: 1 round" in said
    with open_database(tmp_path / "fill.db", readonly=True) as database, database.session() as session:
        verdicts = session.connection().exec_driver_sql("SELECT verdict FROM measurement").scalars().all()
    assert verdicts == ["INVALID"] * 2
