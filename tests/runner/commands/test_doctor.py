"""`runner doctor --testbed`: every place, every lack with what to do, and whether tiers reach one another."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli import app, run

CATALOG = """\
version: 1
subjects: {s: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}}
operators: {identity: []}
tiers: {mobile: {cpus: 1, memory: 256m}, edge: {cpus: 1000, memory: 256m, provider: [cuda, cpu]}}
links: {mobile-edge: {bandwidth: 10mbit}}
strategies: [{operators: [identity], placements: [mobile]}]
testbeds:
"""


def examined(
    capsys: pytest.CaptureFixture[str], folder: Path, testbed: str, *, code: int
) -> dict[tuple[str, str], Any]:
    (folder / "strategies.yaml").write_text(f"{CATALOG}  lab: {{tiers: {testbed}}}\n")
    command = ["doctor", "--testbed", "lab", "--catalog", str(folder / "strategies.yaml"), "--json"]
    assert run(lambda: app(command)) == code
    return {(row["tier"], row["what"]): row for row in json.loads(capsys.readouterr().out)}


def test_each_place_that_does_not_answer_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = examined(
        capsys, tmp_path, "{mobile: 'http://127.0.0.1:9', edge: {engine: 'unix:///nothing', address: a}}", code=1
    )
    assert {key: row["found"] for key, row in rows.items()} == {
        ("mobile", "place"): "not usable",
        ("edge", "place"): "not usable",
        ("links", "reached"): "not tried",
    }
    assert "python -m tierserver --serve" in rows["mobile", "place"]["advice"]
    assert "unix:///nothing: the Docker engine does not answer" in rows["edge", "place"]["advice"]


@pytest.mark.docker
def test_a_testbed_is_tried_from_tier_to_tier(tmp_path: Path, capsys: pytest.CaptureFixture[str], gateway: str) -> None:
    edge = f"{{engine: 'unix:///var/run/docker.sock', address: {gateway}}}"
    rows = examined(capsys, tmp_path, f"{{mobile: local, edge: {edge}}}", code=1)
    assert rows["mobile", "machine"]["advice"] == "" and rows["mobile", "provider"]["advice"] == ""
    assert "declares 1000 CPUs: declare fewer, or name a larger host" in rows["edge", "machine"]["advice"]
    assert (
        rows["edge", "provider"]["found"].startswith("cpu, ONNX Runtime")
        and "cuda" in rows["edge", "provider"]["advice"]
    )
    assert rows["mobile-edge", "link"]["found"].startswith("round trip ")
    assert rows["edge", "place"]["found"].endswith(f"other tiers reach it at {gateway}")


def test_an_unknown_testbed_is_named_with_those_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strategies.yaml").write_text(CATALOG + "  lab-1: {engine: local}\n")
    assert run(lambda: app(["doctor", "--testbed", "lab1", "--catalog", str(tmp_path / "strategies.yaml")])) == 1
    assert "declares no testbed 'lab1'; allowed: emulated, lab-1; did you mean 'lab-1'?" in capsys.readouterr().err
