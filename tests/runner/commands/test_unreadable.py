"""A picture that cannot be decoded costs its subject alone: one message names the file, and the others are measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from PIL import Image

from runner.artifacts.calibration import subject_calibration
from runner.errors import SubjectError
from runner.subjects.dataset import Subject
from runner.subjects.folders import FolderDataset
from runner.subjects.layouts.own import Images
from tests.catalog_of_one import CATALOG, declare
from tests.runner.commands.conftest import Command

# `aaa` comes first, so that an error that ends everything would end it before the other subject.
PICTURED = {"aaa": {"model": "./mean.onnx", "task": "any", "dataset": {"images": "images"}}}


def declare_two(folder: Path, **changes: Any) -> None:
    """Write a catalog of a model of pictures and of the model of tensors, each on one tier."""
    declare(folder)
    nodes = [helper.make_node("ReduceMean", ["x"], ["scores"], axes=[2, 3], keepdims=0)]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 3))
    graph = helper.make_graph(nodes, "mean", [picture], [scores])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "mean.onnx")
    (folder / "images").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / "images" / f"{index}.png")
    write_catalog(folder, **changes)


def write_catalog(folder: Path, **changes: Any) -> None:
    catalog = CATALOG | {
        "subjects": PICTURED | CATALOG["subjects"],
        "strategies": [{"operators": ["identity"], "placements": ["mobile"]}],
        "slos": {},
        "experiment": {"inputs": 2, "rounds": 1, "warmup": 0},
    }
    (folder / "strategies.yaml").write_text(yaml.safe_dump(catalog | changes, sort_keys=False))


def declared_rounds(command: Command) -> dict[str, int]:
    """Return how many complete rounds the declared strategies of each subject have."""
    query = (
        "SELECT s.subject, COUNT(*) AS rounds FROM strategy s JOIN measurement m ON m.latency_key = s.latency_key "
        "WHERE s.declared AND m.status = 'complete' GROUP BY 1"
    )
    return {row["subject"]: row["rounds"] for row in json.loads(command("sql", query, "--json").out)}


def test_an_unreadable_picture_costs_its_subject_alone_and_loses_nothing(command: Command, tmp_path: Path) -> None:
    declare_two(tmp_path)
    broken = tmp_path / "images" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    first = command("fill-catalog", "--launcher", "process")
    assert first.code == 1 and declared_rounds(command) == {"table": 1}
    assert "3.png: not a decodable image" in first.said and "Repair the file, or take it out" in first.said
    again = command("fill-catalog", "--launcher", "process")
    assert again.code == 1 and "Nothing is missing of the other subjects" in again.said
    # Repaired, measured, and broken once more: what was measured stays, and the other subject grows.
    broken.write_bytes(whole)
    assert command("fill-catalog", "--launcher", "process").code == 0
    assert declared_rounds(command) == {"aaa": 1, "table": 1}
    broken.write_bytes(b"no picture")
    write_catalog(tmp_path, experiment={"inputs": 2, "rounds": 2, "warmup": 0})
    assert command("fill-catalog", "--launcher", "process").code == 1
    assert declared_rounds(command) == {"aaa": 1, "table": 2}


def test_unreadable_pictures_of_all_subjects_end_the_fill(command: Command, tmp_path: Path) -> None:
    declare_two(tmp_path, subjects=PICTURED)
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    ended = command("fill-catalog", "--launcher", "process")
    assert ended.code == 1 and "3.png: not a decodable image" in ended.said


def test_a_calibration_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(b"no picture")
    dataset = FolderDataset(Images(tmp_path), judged=False, few=True)
    settings = {"kind": "image", "height": 8, "width": 8}
    subject = Subject("own", "any", tmp_path / "own.onnx", 0, settings, {}, dataset)
    with pytest.raises(SubjectError, match=r"[01]\.png: not a decodable image.*Repair the file, or take it out"):
        subject_calibration(subject)(1)
