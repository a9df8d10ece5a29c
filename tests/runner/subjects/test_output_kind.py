"""An output [1, N] is taken for scores of classes where the model's end says so, and the catalog can declare it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from catalog.declaration import load_catalog
from catalog.errors import CatalogFileError
from runner.cli import app, run
from runner.errors import SubjectError
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from runner.subjects.model_interface import guess_output
from tests.catalog_of_one import CATALOG
from tests.foreign.networks import Network

# What computes the output `NAME` from the linear layer's `x`, by kind of model.
ENDS: dict[str, list[tuple[str, list[str], list[str], dict[str, Any]]]] = {
    "linear": [("Identity", ["x"], ["NAME"], {})],
    "softmax": [("Softmax", ["x"], ["NAME"], {"axis": 1})],
    "softmax, reshaped": [("Softmax", ["x"], ["p"], {"axis": 1}), ("Flatten", ["p"], ["NAME"], {})],
    "softmax in parts": [
        ("Exp", ["x"], ["e"], {}),
        ("ReduceSum", ["e", "axes"], ["s"], {}),
        ("Div", ["e", "s"], ["NAME"], {}),
    ],
    "of length one": [
        ("ReduceL2", ["x"], ["n"], {"axes": [1], "keepdims": 1}),
        ("Clip", ["n", "least"], ["c"], {}),
        ("Div", ["x", "c"], ["NAME"], {}),
    ],
    "sigmoid": [("Sigmoid", ["x"], ["NAME"], {})],
    "tanh": [("Tanh", ["x"], ["NAME"], {})],
}


def write_model(folder: Path, end: str, name: str, width: int) -> Path:
    """Write a model of one linear layer with an end."""
    weights = np.random.default_rng(0).normal(size=(8, width)).astype(np.float32)
    stored = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1], np.int64), "axes")]
    stored.append(numpy_helper.from_array(np.float32(1e-9), "least"))
    nodes = [helper.make_node("MatMul", ["row", "w"], ["x"])]
    for kind, inputs, outputs, attributes in ENDS[end]:
        named = [text.replace("NAME", name) for text in outputs]
        nodes.append(helper.make_node(kind, inputs, named, **attributes))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, width))],
        stored,
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("end", "name", "width", "meaning"),
    [
        ("softmax", "output", 512, "scores"),
        ("softmax, reshaped", "495", 128, "scores"),
        ("softmax in parts", "output", 256, "scores"),
        ("linear", "logits", 512, "scores"),
        ("linear", "output", 1000, "scores"),
        ("sigmoid", "class_probs", 20, "scores"),
        ("linear", "output", 512, "values"),
        ("linear", "sentence_embedding", 10, "values"),
        ("linear", "bbox_regression", 4, "values"),
        ("linear", "last_hidden_state", 10, "values"),
        ("of length one", "output", 10, "values"),
        ("sigmoid", "output", 20, "values"),
        ("tanh", "495", 6, "values"),
        # `age` is no part of `image`, nor is `state` of `estate`.
        ("linear", "image_out", 10, "scores"),
    ],
)
def test_the_end_of_a_model_says_what_its_output_is(
    tmp_path: Path, end: str, name: str, width: int, meaning: str
) -> None:
    guess = guess_output(write_model(tmp_path, end, name, width), name, width)
    assert guess.meaning == meaning and guess.reason


def test_one_number_for_each_token_is_no_score_of_a_class(tmp_path: Path) -> None:
    network = Network()
    row = network.input("tokens", ["batch", "length"])
    network.output(network.add("Neg", row, out="presence"), ["batch", "length"])
    network.output(network.add("Mul", row, network.weight(np.ones((1, 1))), out="copied"), ["batch", "other"])
    path = network.save(tmp_path / "tokens.onnx")
    guess = guess_output(path, "presence", 30)
    assert (guess.meaning, guess.reason) == ("values", "it has one number for each length of an input")
    assert guess_output(path, "copied", 30).meaning == "scores"


def test_boxes_beside_the_scores_of_a_detector_are_no_scores(tmp_path: Path) -> None:
    network = Network()
    row = network.input("row", [1, 8])
    network.output(network.add("MatMul", row, network.normal(8, 4), out="dense_5"), [1, 4])
    network.output(network.add("Softmax", network.add("MatMul", row, network.normal(8, 2)), out="dense_6"), [1, 2])
    path = network.save(tmp_path / "boxes.onnx")
    guess = guess_output(path, "dense_5", 4)
    assert (guess.meaning, guess.reason) == ("values", "the output dense_6 ends in a Softmax, and it does not")
    assert guess_output(path, "dense_6", 2).meaning == "scores"


def subject(folder: Path, **declared: str) -> Subject:
    catalog = CATALOG | {"subjects": {"net": {"model": "./net.onnx", "dataset": {"tensors": "rows.npz"}, **declared}}}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    np.savez(folder / "rows.npz", row=np.ones((6, 8), np.float32), labels=np.arange(6) % 2)
    spec = load_catalog(folder / "strategies.yaml").subjects["net"]
    return resolve_declared("net", spec, base=folder, built=folder / "models")


def test_what_was_assumed_is_said_and_can_be_declared(tmp_path: Path) -> None:
    write_model(tmp_path, "tanh", "output", 6)
    assumed = subject(tmp_path, task="any")
    assert (assumed.metric, assumed.classes, assumed.postprocess) == (None, 0, {"kind": "tensors"})
    assert "taken for values, which nothing judges: it ends in Tanh" in assumed.assumption
    declared = subject(tmp_path, task="any", output="scores")
    assert (declared.metric, declared.classes, declared.assumption) == ("agreement", 6, "")
    write_model(tmp_path, "softmax", "output", 6)
    assert "taken for scores of classes: it ends in a Softmax" in subject(tmp_path, task="any").assumption
    timed = subject(tmp_path, task="any", output="values")
    assert (timed.metric, timed.assumption) == (None, "")
    # Labels declare what the output is.
    assert subject(tmp_path, task="classification").assumption == ""


def test_an_output_is_declared_where_it_says_something(tmp_path: Path) -> None:
    write_model(tmp_path, "linear", "output", 6)
    with pytest.raises(CatalogFileError, match="output goes with `task: any`"):
        subject(tmp_path, task="classification", output="scores")
    with pytest.raises(SubjectError, match="that of builtin:fashion-resnet is known"):
        subject(tmp_path, task="any", output="values", model="builtin:fashion-resnet", dataset="builtin:fashion")


def test_init_and_validate_say_what_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "of length one", "output", 10)
    np.savez("rows.npz", row=np.ones((6, 8), np.float32))
    assert run(lambda: app(["init", "--model", "net.onnx", "--data", "rows.npz"])) == 0
    written = Path("strategies.yaml").read_text()
    assert (
        "# gives output: float32 [1, 10]: values, no scores of classes (it ends in a division by its length)" in written
    )
    assert "    # output: scores " in written
    capsys.readouterr()
    assert run(lambda: app(["validate"])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "net: the output output [1, 10] is taken for values" in said and "declare `output: scores`" in said
