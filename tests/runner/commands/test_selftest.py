"""`runner selftest --aa`: through real tiers, and what it says of names that do differ."""

import json
import re
from pathlib import Path

import pytest

from catalog.evidence import open_database
from runner.cli import app, run

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: {inputs: 12, rounds: 2, warmup: 1}
"""
UNREACHABLE = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m}, edge: {cpus: 1, memory: 1g}}
links: {mobile-edge: {bandwidth: 200mbit, tolerance: 0.000001}}
strategies: [{operators: [identity], placements: [edge]}]
experiment: {inputs: 2, rounds: 1, warmup: 0}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_WORKDIR", str(tmp_path / "work"))
    (tmp_path / "strategies.yaml").write_text(CATALOG)
    return tmp_path


def test_every_pair_of_names_is_compared(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["selftest", "--aa", "--launcher", "process", "--names", "2", "--percentile", "50", "--json"]
    code = run(lambda: app([*command, "--keep", "aa.db"]))
    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], told["rounds"], told["inputs"], told["nominal"]) == (1, 2, 12, 0.05)
    assert told["holds"] is (code == 0) and told["different"] in (0, 1) and told["different_pooled"] in (0, 1)
    assert set(told["medians_s"]) == {"identity-1", "identity-2"}
    assert verdicts(directory / "aa.db").count("INVALID") == len(verdicts(directory / "aa.db")) - 4


def test_what_is_invalid_is_measured_again_and_not_without_end(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No link is within a millionth of its declared rate."""
    (directory / "strategies.yaml").write_text(UNREACHABLE)
    code = run(lambda: app(["selftest", "--aa", "--launcher", "process", "--names", "2", "--keep", "aa.db"]))
    said = " ".join(capsys.readouterr().err.split())
    assert code == 1 and "2 measurement(s) came to nothing 3 times: fashion-resnet · identity-" in said
    assert "link rate (mobile-edge" in said
    assert verdicts(directory / "aa.db") == ["INVALID"] * 6


def verdicts(path: Path) -> list[str]:
    with open_database(path, readonly=True) as database, database.session() as session:
        return [row[0] for row in session.connection().exec_driver_sql("SELECT verdict FROM measurement")]


def test_a_file_that_exists_is_left_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "aa.db").write_text("mine")
    assert run(lambda: app(["selftest", "--aa", "--launcher", "process", "--keep", "aa.db"])) == 1
    assert re.search(r"aa\.db exists; name a\s+new file", capsys.readouterr().err)
    assert (directory / "aa.db").read_text() == "mine"
