"""Own models through a whole fill, in processes: text and tabular tensors, pictures of a free size."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from runner.artifacts.store import ArtifactStore
from runner.bundles.bundle import measured_artifact, measured_strategy
from runner.cli import app, run
from runner.subjects.declared import resolve_declared
from runner.workdir import file_sha256

FAMILIES = Path(__file__).parents[1] / "data/families"
RANDOM = np.random.default_rng(0)
CATALOG: dict[str, Any] = {
    "version": 1,
    "subjects": {
        "text": {"model": "./text.onnx", "task": "classification", "dataset": {"tensors": "text.npz"}},
        "table": {"model": "./table.onnx", "task": "any", "dataset": {"tensors": "table.npz"}},
        "photos": {
            "model": "./photos.onnx",
            "task": "any",
            "dataset": {"images": "photos"},
            "preprocess": {"size": [40, 56], "resize": "crop"},
        },
        "scenes": {"model": "./scenes.onnx", "task": "segmentation", "dataset": {"images": "photos"}},
    },
    "operators": {
        "identity": [],
        "quantized": [{"static_ptq": {"calibration_samples": 2}}],
        "shortened": [{"early_exit": {"blocks": 9}}],
    },
    "tiers": {name: {"cpus": 0.5, "memory": "512m"} for name in ("mobile", "edge")},
    "links": {"mobile-edge": {"bandwidth": "200mbit", "tolerance": 0.9}},
    # On two tiers where a test looks at what was sent; a tier more is a process more.
    "strategies": [
        {"operators": ["identity"], "placements": ["edge"]},
        {"operators": ["quantized", "shortened"], "placements": ["mobile"]},
    ],
    "experiment": {"inputs": 3, "rounds": 1, "warmup": 1},
}


def save(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, tuple[int, tuple[Any, ...]]], *weights: Any
) -> None:
    taken = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 4))]
    stored = [numpy_helper.from_array(array, name) for name, array in weights]
    graph = helper.make_graph(nodes, "own", taken, scores, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def text_model(folder: Path) -> None:
    """Save the masked mean of an embedding, over tokens and a mask of free length; half of its labels are right."""
    table = RANDOM.normal(size=(50, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["words"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["words", "weights"], ["kept"]),
        helper.make_node("ReduceMean", ["kept"], ["scores"], axes=[1], keepdims=0),
    ]
    inputs = {"tokens": (TensorProto.INT64, ("batch", "length")), "mask": (TensorProto.FLOAT, ("batch", "length"))}
    save(folder / "text.onnx", nodes, inputs, ("table", table), ("last", np.array([2], np.int64)))
    tokens, mask = RANDOM.integers(0, 50, (20, 7)), (RANDOM.random((20, 7)) < 0.8).astype(np.float32)
    labels = (table[tokens] * mask[:, :, None]).mean(1).argmax(1)
    labels[::2] = (labels[::2] + 1) % 4  # half of the truth is another
    np.savez(folder / "text.npz", tokens=tokens, mask=mask, labels=labels)


def table_model(folder: Path) -> None:
    """Save two layers over rows of numbers, without labels."""
    first, second = (RANDOM.normal(size=size).astype(np.float32) for size in ((64, 96), (96, 4)))
    nodes = [
        helper.make_node("MatMul", ["row", "first"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["scores"]),
    ]
    save(
        folder / "table.onnx", nodes, {"row": (TensorProto.FLOAT, ("batch", 64))}, ("first", first), ("second", second)
    )
    np.savez(folder / "table.npz", row=RANDOM.normal(size=(40, 64)).astype(np.float32))


def scene_model(folder: Path) -> None:
    """Save two convolutions that tell five classes apart in every pixel.

    Weights that sum to zero answer to contrasts; with others one class wins nearly all pixels, whatever is quantized.
    """
    first, second = (RANDOM.normal(size=size).astype(np.float32) for size in ((16, 3, 3, 3), (5, 16, 3, 3)))
    second -= second.mean(axis=(2, 3), keepdims=True)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["wide"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["bent"]),
        helper.make_node("Conv", ["bent", "second"], ["pixels"], pads=[1, 1, 1, 1]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 24, 32))
    scores = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, 5, 24, 32))
    weights = [numpy_helper.from_array(array, name) for name, array in (("first", first), ("second", second))]
    graph = helper.make_graph(nodes, "scenes", [taken], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "scenes.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose catalog of own models was filled."""
    folder = tmp_path_factory.mktemp("own")
    text_model(folder)
    table_model(folder)
    scene_model(folder)
    (folder / "photos.onnx").write_bytes((FAMILIES / "mobilenet_v3.onnx").read_bytes())
    (folder / "photos").mkdir()
    for index in range(12):
        pixels = RANDOM.integers(0, 255, (30 + index, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{index}.jpg")
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(lambda: app(["fill-catalog", "--launcher", "process"])) == 0
    return folder


@pytest.fixture(scope="module")
def filled(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the database says of each subject and operator."""
    with open_database(folder / "tierwise.db", readonly=True) as database, database.engine.connect() as connection:
        columns = "subject, operator, metric, accuracy_pct, drop_pp, samples, median_latency_s, sent_bytes"
        rows = connection.exec_driver_sql(f"SELECT {columns} FROM strategy_summary").mappings()
        summaries = {(row["subject"], row["operator"]): dict(row) for row in rows}
        counted = "SELECT subject, operator, class_counts FROM accuracy WHERE status = 'complete'"
        for subject, operator, class_counts in connection.exec_driver_sql(counted):
            summaries[subject, operator]["class_counts"] = class_counts
        refused = connection.exec_driver_sql("SELECT subject, operator, reason FROM artifact WHERE reason IS NOT NULL")
        return summaries | {(row[0], row[1]): {"refused": row[2]} for row in refused}


def test_text_of_two_inputs_is_judged_by_its_labels(filled: dict[tuple[str, str], dict[str, Any]]) -> None:
    row = filled["text", "identity"]
    assert row["metric"] == "top1" and 20 < row["accuracy_pct"] < 80
    assert row["samples"] == 3 and row["median_latency_s"] > 0 and row["sent_bytes"] > 7 * (8 + 4)


def test_classes_of_what_was_judged_are_counted(filled: dict[tuple[str, str], dict[str, Any]]) -> None:
    rows = {name: json.loads(row["class_counts"]) for name, row in filled.items() if row.get("class_counts")}
    assert sum(rows["text", "identity"].values()) == 18
    assert rows["table", "identity"] == rows["table", "quantized"] and sum(rows["table", "identity"].values()) == 36
    assert sum(rows["scenes", "identity"].values()) % (24 * 32) == 0


def test_rows_without_labels_agree(filled: dict[tuple[str, str], dict[str, Any]]) -> None:
    identity, quantized = filled["table", "identity"], filled["table", "quantized"]
    assert identity["metric"] == quantized["metric"] == "agreement"
    assert identity["accuracy_pct"] == 100 and quantized["accuracy_pct"] > 50 and quantized["drop_pp"] is None


def test_pictures_of_a_declared_size_go_through_a_model_of_free_size(
    filled: dict[tuple[str, str], dict[str, Any]],
) -> None:
    for operator in ("identity", "quantized"):
        row = filled["photos", operator]
        assert row["metric"] == "agreement" and row["samples"] == 3
    assert filled["photos", "identity"]["accuracy_pct"] == 100


def test_maps_of_labels_agree_pixel_by_pixel_where_there_are_no_masks(
    filled: dict[tuple[str, str], dict[str, Any]],
) -> None:
    identity, quantized = filled["scenes", "identity"], filled["scenes", "quantized"]
    assert identity["metric"] == quantized["metric"] == "agreement"
    assert identity["accuracy_pct"] == 100 and 50 < quantized["accuracy_pct"] < 100 and quantized["drop_pp"] is None


def test_a_model_of_several_inputs_is_quantized(filled: dict[tuple[str, str], dict[str, Any]]) -> None:
    identity, quantized = filled["text", "identity"], filled["text", "quantized"]
    assert "refused" not in quantized and quantized["metric"] == "top1" and quantized["median_latency_s"] > 0
    # Half of the labels are wrong on purpose; a few of the 18 items may change sides.
    assert abs(quantized["accuracy_pct"] - identity["accuracy_pct"]) < 20


@pytest.mark.parametrize("subject", ["table", "photos"])
def test_a_calibrated_artifact_that_is_not_cached_is_built_again_for_a_bundle(
    folder: Path, tmp_path: Path, subject: str
) -> None:
    spec = load_catalog(folder / "strategies.yaml").subjects[subject]
    declared = resolve_declared(subject, spec, base=folder, built=tmp_path / "models")
    with open_database(folder / "tierwise.db", readonly=True) as database, database.session() as session:
        environment = strategy_evidence(session, subject=subject)[0].environment.key
        measured = measured_strategy(session, subject, "quantized", "mobile", environment)
    artifact = measured_artifact(measured, declared, ArtifactStore(tmp_path / "artifacts"), "strategies.yaml")
    assert file_sha256(artifact.path(0)) == measured.row.files[0].sha256


def test_a_plan_says_what_is_known_of_the_artifacts(
    folder: Path,
    filled: dict[tuple[str, str], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert run(lambda: app(["plan", "--launcher", "process"])) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"! text/shortened: inapplicable: {filled['text', 'shortened']['refused']}" in shown
    assert run(lambda: app(["plan", "--launcher", "process", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["warnings"].keys() >= {"text/shortened"}


def test_labels_of_one_class_are_remarked_by_validate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "own", ignore=shutil.ignore_patterns(".tierwise", "*.db"))
    monkeypatch.chdir(tmp_path / "own")
    with np.load("text.npz") as arrays:
        np.savez("text.npz", **{name: arrays[name] * (name != "labels") for name in arrays.files})
    assert run(lambda: app(["validate"])) == 0
    said = capsys.readouterr()
    assert said.out.startswith("valid: ")
    assert "warning: text: all 18 items are of class 0: an accuracy on one class says nothing" in said.err
    assert run(lambda: app(["validate", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["warnings"].keys() == {"text"}
