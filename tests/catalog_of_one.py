"""A catalog of one small model on two tiers, measured within seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

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


def declare(folder: Path, *, width: int = 8, labels: bool = False) -> None:
    """Write a catalog of one small model on two tiers, with the model and its inputs of so many numbers."""
    weights = numpy_helper.from_array(np.ones((width, 4), np.float32), "weights")
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ("batch", width))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 4))
    nodes = [helper.make_node("MatMul", ["row", "weights"], ["scores"])]
    graph = helper.make_graph(nodes, "table", [row], [scores], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "table.onnx")
    inputs = {"row": np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)}
    np.savez(folder / "table.npz", **(inputs | {"labels": np.arange(40) % 4} if labels else inputs))
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG, sort_keys=False))
