"""Operators applied to files: what is written, and that a refusal writes nothing."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from catalog.declaration import parse_catalog
from runner.artifacts.apply_operator import apply_operator, parse_pipeline
from runner.artifacts.calibration import Calibration
from runner.artifacts.store import ArtifactStore
from runner.errors import OperatorError
from runner.operators.base import PassRefusal
from runner.subjects.embedded.datasets import BUILTIN
from runner.workdir import file_sha256

_MODEL = BUILTIN / "fashion-resnet.onnx"
_REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def images(count: int) -> Calibration:
    random = np.random.default_rng(0)
    return Calibration([random.normal(size=(1, 1, 28, 28)).astype(np.float32) for _ in range(count)], "random")


def test_a_declared_name_comes_before_a_pass_of_the_same_name() -> None:
    text = (_REPOSITORY / "strategies.yaml").read_text().replace("quantized: [static_ptq]", "static_ptq: []", 1)
    catalog = parse_catalog(text.replace("quantized", "static_ptq"))
    assert parse_pipeline("static_ptq", catalog).specs == ()
    assert [spec.name for spec in parse_pipeline("static_ptq", None).specs] == ["static_ptq"]


def test_passes_are_spelled_as_in_the_catalog() -> None:
    pipeline = parse_pipeline("static_ptq, early_exit: {blocks: 3}, partition", None)
    assert [(spec.name, dict(spec.options)) for spec in pipeline.specs] == [
        ("static_ptq", {}),
        ("early_exit", {"blocks": 3}),
        ("partition", {}),
    ]


@pytest.mark.parametrize("text", ["", "quantised", "early_exit: 3", "[", "static_ptq, nothing", "{a: 1, b: 2}", "- x"])
def test_what_is_no_pipeline_is_told_what_there_is(text: str) -> None:
    with pytest.raises(OperatorError, match=r"passes: static_ptq, early_exit, partition"):
        parse_pipeline(text, None)


def test_files_and_manifest_say_what_was_done(tmp_path: Path, store: ArtifactStore) -> None:
    target = tmp_path / "out" / "parts"
    manifest = apply_operator(
        parse_pipeline("early_exit, partition", None), _MODEL, target, calibration=images(2), store=store
    )
    assert sorted(file.name for file in target.iterdir()) == ["head.onnx", "manifest.json", "tail.onnx"]
    assert json.loads((target / "manifest.json").read_text()) == manifest
    for file in manifest["files"]:
        assert file_sha256(target / file["file"]) == file["sha256"]
        assert (target / file["file"]).stat().st_size == file["size_bytes"]
    assert [did["pass"] for did in manifest["did"]] == ["early_exit", "partition"]
    assert [block["name"] for block in manifest["did"][0]["skipped"]] == ["backbone.3.3", "backbone.3.4"]
    assert manifest["proof"]["composition"]["bit_identical"] is True
    assert manifest["model"]["sha256"] == file_sha256(_MODEL)
    assert manifest["size_bytes"] < _MODEL.stat().st_size


def test_quantized_files_run(tmp_path: Path, store: ArtifactStore) -> None:
    manifest = apply_operator(
        parse_pipeline("static_ptq, early_exit", None), _MODEL, tmp_path / "out", calibration=images(4), store=store
    )
    assert manifest["calibration"] == {"source": "random", "samples": 4}
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": images(1).arrays[0]})[0].shape == (1, 10)


def test_a_refusal_writes_nothing(tmp_path: Path, store: ArtifactStore) -> None:
    with pytest.raises(PassRefusal, match="9 blocks were requested"):
        apply_operator(
            parse_pipeline("early_exit: {blocks: 9}", None),
            _MODEL,
            tmp_path / "out",
            calibration=images(0),
            store=store,
        )
    assert not (tmp_path / "out").exists()


def test_a_directory_with_files_is_left_alone(tmp_path: Path, store: ArtifactStore) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(OperatorError, match="not an empty directory"):
        apply_operator(parse_pipeline("partition", None), _MODEL, target, calibration=images(0), store=store)
    assert [file.name for file in target.iterdir()] == ["mine.txt"]


def test_without_calibration_inputs_the_option_is_named(tmp_path: Path, store: ArtifactStore) -> None:
    with pytest.raises(OperatorError, match="--calibration"):
        apply_operator(
            parse_pipeline("static_ptq", None), _MODEL, tmp_path / "out", calibration=Calibration(), store=store
        )


def test_weights_outside_the_file_belong_to_the_model(tmp_path: Path, store: ArtifactStore) -> None:
    source = tmp_path / "source" / "m.onnx"
    source.parent.mkdir()
    onnx.save(onnx.load(_MODEL), source, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = source.with_name("w.bin")
    pipeline = parse_pipeline("early_exit", None)
    first = apply_operator(pipeline, source, tmp_path / "first", calibration=images(2), store=store)
    assert first["model"]["size_bytes"] == source.stat().st_size + weights.stat().st_size
    changed = np.frombuffer(weights.read_bytes(), np.float32) * np.float32(1.5)
    weights.write_bytes(changed.tobytes())
    second = apply_operator(pipeline, source, tmp_path / "second", calibration=images(2), store=store)
    assert first["model"]["sha256"] != second["model"]["sha256"]
    assert first["files"] != second["files"]
