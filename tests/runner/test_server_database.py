"""The whole way on a PostgreSQL server: filled, continued, judged, ranked, asked, exported and imported again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from runner.cli import app, run

CATALOG: dict[str, Any] = {
    "version": 1,
    "subjects": {"table": {"model": "./table.onnx", "task": "any", "dataset": {"tensors": "table.npz"}}},
    "operators": {"identity": []},
    "tiers": {name: {"cpus": 0.5, "memory": "512m"} for name in ("mobile", "edge")},
    "links": {"mobile-edge": {"bandwidth": "200mbit", "tolerance": 0.9}},
    "strategies": [{"operators": ["identity"], "placements": ["mobile", "edge"]}],
    "slos": {"fast": {"latency": {"p50": "10s"}}},
    "experiment": {"inputs": 12, "rounds": 2, "warmup": 1},
}
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


def declare(folder: Path) -> None:
    """A catalog of one small model on two tiers."""
    weights = numpy_helper.from_array(np.ones((8, 4), np.float32), "weights")
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ("batch", 8))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 4))
    nodes = [helper.make_node("MatMul", ["row", "weights"], ["scores"])]
    graph = helper.make_graph(nodes, "table", [row], [scores], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "table.onnx")
    np.savez(folder / "table.npz", row=np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG, sort_keys=False))


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
