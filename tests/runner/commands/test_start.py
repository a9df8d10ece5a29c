"""`runner init`, `runner schema` and `runner doctor`: how one starts."""

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from jsonschema_rs import Draft202012Validator, ValidationError
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from catalog.declaration import load_catalog
from runner.cli import app, run
from runner.commands.schema import EDITOR_LINE, catalog_schema

REPOSITORY = Path(__file__).parents[3]
CATALOGS = [REPOSITORY / "strategies.yaml", *sorted((REPOSITORY / "catalogs").glob("*.yaml"))]
FAMILIES = REPOSITORY / "tests/data/families"
_FEW = "strategies:\n  - {operators: [identity, early_exit], placements: [mobile]}\n"


def test_init_writes_what_validates_and_spares_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["init"])) == 0
    assert "runner fill-catalog" in capsys.readouterr().err
    written = (tmp_path / "strategies.yaml").read_text()
    assert written.splitlines()[0] == EDITOR_LINE
    assert run(lambda: app(["validate"])) == 0
    assert "valid: 1 subject, 18 strategies" in capsys.readouterr().out
    assert run(lambda: app(["init"])) == 1
    assert "exists and is left alone" in capsys.readouterr().err
    assert (tmp_path / "strategies.yaml").read_text() == written
    schema = json.loads((tmp_path / "strategies.schema.json").read_text())
    Draft202012Validator(schema).validate(yaml.safe_load(written))


def test_init_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["init", "-o", str(tmp_path / "nowhere" / "a.yaml")])) == 1
    said = capsys.readouterr().err
    assert "cannot write" in said and "Traceback" not in said


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda path: path.name)
def test_every_catalog_of_ours_follows_the_schema(catalog: Path) -> None:
    Draft202012Validator(catalog_schema()).validate(yaml.safe_load(catalog.read_text()))


@pytest.mark.parametrize("change", [{"version": 2}, {"tiers": {}}, {"strategy": []}, {"experiment": {"inputs": "30"}}])
def test_the_schema_refuses_what_the_parser_refuses(change: dict[str, object]) -> None:
    declared = yaml.safe_load((REPOSITORY / "strategies.yaml").read_text())
    with pytest.raises(ValidationError):
        Draft202012Validator(catalog_schema()).validate(declared | change)


def test_the_limits_of_a_percentile_are_in_the_words_of_json_schema() -> None:
    schema = json.loads((REPOSITORY / "strategies.schema.json").read_text(encoding="utf-8"))
    limits = [
        spec["properties"]["percentile"]
        for spec in schema["$defs"].values()
        if "percentile" in spec.get("properties", {})
    ]
    assert len(limits) == 2
    for limit in limits:
        assert (limit["minimum"], limit["exclusiveMaximum"]) == (1, 100)


def test_the_committed_schema_is_this_one() -> None:
    assert json.loads((REPOSITORY / "strategies.schema.json").read_text()) == catalog_schema(), (
        "renew it with: runner schema -o strategies.schema.json"
    )


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["schema"])) == 0
    assert json.loads(capsys.readouterr().out) == catalog_schema()


def test_doctor_names_each_lack_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert run(lambda: app(["doctor", "--json"])) == 0
    findings = {load["what"]: load for load in json.loads(capsys.readouterr().out)}
    assert set(findings) == {
        "machine of the tiers",
        "CPUs",
        "memory",
        "disk",
        "int8 (VNNI)",
        "GPU (CUDA)",
        "Docker engine",
        "shaping of links",
    }
    assert findings["machine of the tiers"]["found"] == "this machine"
    assert findings["Docker engine"]["found"] == "none" and findings["Docker engine"]["advice"]


@pytest.mark.docker
def test_doctor_looks_into_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["doctor"])) == 0
    said = capsys.readouterr().out
    assert "tbf, in the kernel" in said and "tier image" in said


def photos(folder: Path, count: int = 12) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(random.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / f"{index:02d}.jpg")


def test_init_for_a_model_of_ones_own_is_measured_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Go from a model and a folder of pictures, without labels, to a leaderboard: nothing is edited but the effort."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my net.onnx").write_bytes((FAMILIES / "mobilenet_v2.onnx").read_bytes())
    photos(tmp_path / "photos")
    assert run(lambda: app(["init", "--model", "my net.onnx", "--data", "photos"])) == 0
    assert "runner fill-catalog" in capsys.readouterr().err
    written = (tmp_path / "strategies.yaml").read_text()
    declared = yaml.safe_load(written)
    assert declared["subjects"] == {
        "my-net": {"model": "./my net.onnx", "task": "any", "dataset": {"images": "photos"}}
    }
    assert "# takes input: float32 [1, 3, 32, 32] (nchw, rgb, 32 x 32)" in written
    assert "# gives output: float32 [1, 10]: scores of classes" in written
    assert declared["experiment"]["inputs"] == 12 and declared["experiment"]["race"]
    Draft202012Validator(json.loads((tmp_path / "strategies.schema.json").read_text())).validate(declared)
    less = re.sub(r"(?s)strategies:  .*?experiment: {inputs: 12", _FEW + "experiment: {inputs: 3", written)
    less = less.replace("rounds: 3", "rounds: 1").replace(", race: true", "")
    (tmp_path / "strategies.yaml").write_text(less)
    assert run(lambda: app(["fill-catalog", "--launcher", "process"])) == 0
    capsys.readouterr()
    assert run(lambda: app(["leaderboard", "--json"])) == 0
    rows = {row["operator"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"identity", "early_exit"}
    assert {row["metric"] for row in rows.values()} == {"agreement"}
    assert rows["identity"]["accuracy_pct"] == 100
    assert all(row["drop_pp"] is None and row["median_latency_s"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("model", "says", "task"),
    [
        ("lraspp", "dataset: {images: images, masks: masks}", "segmentation"),
        ("mobilenet_v3", "dataset: {images: images, labels: labels.csv}", "classification"),
    ],
)
def test_what_init_suggests_for_data_with_a_truth_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, says: str, task: str
) -> None:
    """Put the commented lines in place of the others; the file still validates."""
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["init", "--model", str(FAMILIES / f"{model}.onnx"), "-o", "own.yaml"])) == 0
    lines = (tmp_path / "own.yaml").read_text().splitlines()
    assert f"    # {says}" in lines and f"    # task: {task}" in lines
    without = [line for line in lines if not line.startswith(("    task:", "    dataset:"))]
    judged = [
        line.replace("# ", "", 1) if line in (f"    # {says}", f"    # task: {task}") else line for line in without
    ]
    (tmp_path / "own.yaml").write_text("\n".join(judged))
    (declared,) = load_catalog(tmp_path / "own.yaml").subjects.values()
    assert declared.task == task
    assert run(lambda: app(["validate", "-c", "own.yaml"])) == 0
    assert not any("will not apply" in line for line in lines)
    assert any("size: [224, 224]" in line for line in lines) is (model == "mobilenet_v3")


def test_init_declares_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 4)
    (tmp_path / "labels.csv").write_text("".join(f"{index:02d}.jpg,{index}\n" for index in range(4)))
    arguments = ["--model", str(FAMILIES / "mobilenet_v2.onnx"), "--data", "photos", "--labels", "labels.csv"]
    assert run(lambda: app(["init", *arguments])) == 0
    written = (tmp_path / "strategies.yaml").read_text()
    (declared,) = yaml.safe_load(written)["subjects"].values()
    assert declared["task"] == "classification"
    assert declared["dataset"] == {"images": "photos", "labels": "labels.csv"}
    # What was declared need not be suggested.
    assert "make it an accuracy" not in written and "agreement" not in written
    assert run(lambda: app(["validate"])) == 0


def test_init_for_a_model_of_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an example of the onnxruntime package that takes three dimensions, so no picture."""
    monkeypatch.chdir(tmp_path)
    source = Path(onnxruntime.__file__).parent / "datasets/sigmoid.onnx"
    assert run(lambda: app(["init", "--model", str(source)])) == 0
    written = (tmp_path / "strategies.yaml").read_text()
    assert "dataset: {tensors: tensors.npz}" in written and "# takes x: float32 [3, 4, 5]" in written
    assert "preprocess" not in written
    np.savez(tmp_path / "tensors.npz", x=np.zeros((6, 3, 4, 5), np.float32))
    assert run(lambda: app(["validate"])) == 0


def text_line_reader(path: Path) -> None:
    """Write a model whose sides are free in the file, and which runs on pictures 48 pixels high alone."""
    weights = numpy_helper.from_array(np.ones((48, 5), np.float32), "w")
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["turned", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "?", "?"]) for name in "xy"]
    graph = helper.make_graph(nodes, "reader", [ends[0]], [ends[1]], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_init_takes_tensors_for_a_model_that_could_take_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text_line_reader(tmp_path / "reader.onnx")
    np.savez(tmp_path / "lines.npz", x=np.zeros((12, 3, 48, 70), np.float32))
    assert run(lambda: app(["init", "--model", "reader.onnx", "--data", "lines.npz"])) == 0
    written = (tmp_path / "strategies.yaml").read_text()
    assert yaml.safe_load(written)["subjects"]["reader"]["dataset"] == {"tensors": "lines.npz"}
    assert "# gives y: float32 [1, 3, 70, 5]" in written and "preprocess" not in written
    assert run(lambda: app(["validate"])) == 0
    np.savez(tmp_path / "low.npz", x=np.zeros((12, 3, 40, 70), np.float32))
    assert run(lambda: app(["init", "--model", "reader.onnx", "--data", "low.npz", "-o", "low.yaml"])) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "inputs of a size and of values that the model was made for" in said and "opset" not in said


def test_init_declares_a_size_of_pictures_that_the_model_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text_line_reader(tmp_path / "reader.onnx")
    photos(tmp_path / "photos")
    assert run(lambda: app(["init", "--model", "reader.onnx", "--data", "photos"])) == 0
    declared = yaml.safe_load((tmp_path / "strategies.yaml").read_text())
    assert declared["subjects"]["reader"]["preprocess"] == {"size": [48, 320]}


def test_init_refuses_pictures_for_a_model_that_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    source = Path(onnxruntime.__file__).parent / "datasets/sigmoid.onnx"
    assert run(lambda: app(["init", "--model", str(source), "--data", "photos"])) == 1
    assert "Give the inputs as dataset: {tensors: FILE.npz}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("model", "data"), [("no", "on"), ("123", "1e3"), ("true", "2026-11-29")])
def test_init_quotes_names_that_yaml_would_read_as_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{model}.onnx").write_bytes((FAMILIES / "mobilenet_v2.onnx").read_bytes())
    photos(tmp_path / data)
    assert run(lambda: app(["init", "--model", f"{model}.onnx", "--data", data])) == 0
    assert list(load_catalog(tmp_path / "strategies.yaml").subjects) == [model]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--model", "nowhere.onnx"], 1, "there is no model file nowhere.onnx"),
        (["--model", "text.onnx"], 1, "not a readable ONNX model"),
        (["--model", "net.onnx", "--data", "empty"], 1, "empty holds 0 pictures; allowed"),
        (["--model", "net.onnx", "--data", "nowhere"], 1, "there is no folder nowhere; allowed: a folder with"),
        (["--model", "net.onnx", "--data", "pipe"], 1, "pipe is a named pipe, not a folder; allowed: a folder with"),
        (["--model", "pipe"], 1, "pipe is a named pipe, not a model file; allowed: an ONNX file"),
        (["--data", "empty"], 2, "it goes with --model"),
        (["--model", "net.onnx", "--labels", "labels.csv"], 2, "it goes with --data"),
        (
            ["--model", "net.onnx", "--data", "empty", "--labels", "l.csv", "--task", "any"],
            1,
            "--task classification, got",
        ),
        (["--model", "net.onnx", "--data", "empty", "--task", "classification"], 1, "needs --labels FILE"),
    ],
)
def test_init_says_what_it_cannot_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("<html>not found</html>")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "net.onnx").write_bytes((FAMILIES / "regnet.onnx").read_bytes())
    assert run(lambda: app(["init", *arguments])) == code
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert says in said and "Traceback" not in said
    assert not (tmp_path / "strategies.yaml").exists()


def test_init_leaves_out_what_will_not_apply_and_a_plan_does_not_count_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 4)
    # Each of its blocks takes all before it, so no two are alike and none can be left out.
    assert run(lambda: app(["init", "--model", str(FAMILIES / "densenet.onnx"), "--data", "photos"])) == 0
    written = (tmp_path / "strategies.yaml").read_text()
    assert "early_exit will not apply: " in written
    refused = ("early_exit", "quantized_early_exit", "quantized_early_exit_partition")
    declared = {strategy.operator for strategy in load_catalog(tmp_path / "strategies.yaml").strategies()}
    assert declared == {"identity", "quantized", "partition"}
    assert f"# left out, as they will not apply (the reasons are above): {', '.join(refused)}" in written
    assert run(lambda: app(["plan", "--launcher", "process", "--json"])) == 0
    planned = {row["operator"] for row in json.loads(capsys.readouterr().out)["missing_rounds"]}
    assert planned == {"identity", "quantized", "partition"}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (("photos", "elsewhere"), 0, "valid as far as it could be checked: 1 subject, 18 strategies"),
        (("photos", "elsewhere"), 0, "there is no folder"),
        (("net.onnx", "gone.onnx"), 1, "there is no model file"),
        (("labels.csv", "gone.csv"), 1, "the labels"),
        ((",3", ",cat"), 1, "expected a file's name and a class number from 0 to 9"),
    ],
)
def test_validate_says_what_is_missing_or_wrong_of_model_and_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 4)
    (tmp_path / "net.onnx").write_bytes((FAMILIES / "mobilenet_v2.onnx").read_bytes())
    labels = "".join(f"{index:02d}.jpg,{index}\n" for index in range(4))
    (tmp_path / "labels.csv").write_text(labels.replace(*change))
    arguments = ["--model", "net.onnx", "--data", "photos", "--labels", "labels.csv"]
    assert run(lambda: app(["init", *arguments])) == 0
    catalog = (tmp_path / "strategies.yaml").read_text()
    (tmp_path / "strategies.yaml").write_text(catalog.replace(*change))
    capsys.readouterr()
    assert run(lambda: app(["validate"])) == code
    said = capsys.readouterr()
    assert says in " ".join((said.out + said.err).split()) and "0 pictures" not in said.out + said.err
    assert code == 0 or "valid" not in said.out
