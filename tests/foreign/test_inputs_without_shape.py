"""Inputs for which a file declares no shape: read from what reads them, confirmed by a run, or declared."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from catalog.declaration import SubjectSpec
from runner.artifacts.calibration import Calibration, read_calibration
from runner.cli import app, run
from runner.errors import SubjectError
from runner.graph.model_file import read_model
from runner.graph.runtime import Shape, likely_shapes
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from tests.foreign.networks import Network, applied, chained, outputs, same_bits
from tierserver.encoding import read_tensors, write_tensors
from tierserver.messages import PartSpec, Postprocess, Preprocess
from tierserver.pipeline import ServedPart
from tierserver.protocol import Tensor

RANDOM = np.random.default_rng(5)


def _saved(network: Network, path: Path) -> Path:
    """Save a model whose inputs and outputs have no shape."""
    model = network.model()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def _pictures(folder: Path) -> Path:
    """Write a classifier of pictures with channels last, as converters from TensorFlow do."""
    network = Network()
    scaled = network.add("Sub", network.input("image", []), network.weight(np.float32(0.5)))
    current = network.add("Transpose", scaled, perm=[0, 3, 1, 2])
    current = network.add("Conv", current, network.normal(16, 3, 3, 3), network.normal(16), pads=[1] * 4)
    current = network.residual(current, 16, 3)
    pooled = network.add("Flatten", network.add("GlobalAveragePool", current))
    network.add("Gemm", pooled, network.normal(16, 4), out="scores")
    network.output("scores", [])
    return _saved(network, folder / "pictures.onnx")


def _table(folder: Path, *, sequence: bool = False) -> Path:
    network = Network()
    current = network.perceptrons(network.input("x", []), 16, 4)
    if sequence:
        current = network.add("ReduceMean", current, axes=[1], keepdims=0)
    network.add("Softmax", network.add("MatMul", current, network.normal(16, 4)), out="y")
    network.output("y", [])
    return _saved(network, folder / ("sequence.onnx" if sequence else "table.onnx"))


def _spec(model: Path, **declared: object) -> SubjectSpec:
    dataset = {"tensors": f"{model.stem}.npz"}
    return SubjectSpec.model_validate({"model": f"./{model.name}", "task": "any", "dataset": dataset, **declared})


def _subject(model: Path, **declared: object) -> Subject:
    return resolve_declared("mine", _spec(model, **declared), base=model.parent, built=model.parent / "built")


def _conv(network: Network) -> None:
    network.add("Conv", network.input("x", []), network.normal(4, 2, 5), group=3, out="y")


def _permuted(network: Network) -> None:
    moved = network.add(
        "Transpose", network.add("Cast", network.input("x", [], TensorProto.UINT8), to=1), perm=[2, 0, 1]
    )
    network.nodes.append(helper.make_node("LSTM", [moved, network.normal(1, 16, 7), network.normal(1, 16, 4)], ["y"]))


def _dequantized(network: Network) -> None:
    scale = network.weight(np.float32(0.1))
    weights = network.add("DequantizeLinear", network.weight(np.ones((6, 4), np.int8)), scale)
    network.add("Gemm", network.input("x", []), weights, transB=1, out="y")


def _padded(network: Network) -> None:
    network.add("Pad", network.input("x", []), network.weight(np.array([0, 1, 0, 0, 1, 0])), out="y")


def _sized(network: Network) -> None:
    network.add("Resize", network.input("x", []), "", "", network.weight(np.array([1, 3, 8, 8])), out="y")


def _product(network: Network) -> None:
    network.add("MatMul", network.input("x", []), network.normal(6, 4), out="y")


def _tokens(network: Network) -> None:
    network.add("Gather", network.normal(9, 4), network.input("x", [], TensorProto.INT64), out="y")


@pytest.mark.parametrize(
    ("build", "dims", "certain"),
    [
        (_conv, (None, 6, None), True),
        (_permuted, (None, 7, None), True),
        (_dequantized, (None, 4), True),
        (_padded, (None, None, None), True),
        (_sized, (None, None, None, None), True),
        (_product, (None, 6), False),
        (_tokens, (None, None), False),
    ],
)
def test_what_reads_an_input_says_its_shape(build: Callable[[Network], None], dims: Shape, certain: bool) -> None:
    network = Network()
    build(network)
    graph = network.model().graph
    graph.input[0].type.tensor_type.ClearField("shape")
    likely = likely_shapes(graph, "x")
    assert (likely[0].dims, likely[0].certain, len(likely) > 1) == (dims, certain, not certain)


def test_a_declaration_of_an_inner_tensor_counts() -> None:
    network = Network()
    network.add("Reshape", network.add("Relu", network.input("x", [])), network.weight(np.array([-1])), out="y")
    graph = network.model().graph
    graph.input[0].type.tensor_type.ClearField("shape")
    graph.value_info.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["n", 5, 7]))
    assert [shape.dims for shape in likely_shapes(graph, "x")] == [(None, 5, 7)]


def test_pictures_are_cut_and_shortened_as_if_the_shape_were_declared(tmp_path: Path) -> None:
    model = _pictures(tmp_path)
    assert [dim.dim_value for dim in read_model(model).graph.input[0].type.tensor_type.shape.dim] == [0, 0, 0, 3]
    folder, manifest = applied("partition", model, Calibration())
    assert manifest["proof"]["composition"]["bit_identical"]
    feed = {"image": RANDOM.normal(size=(1, 20, 24, 3)).astype(np.float32)}
    assert same_bits(outputs(model, feed), chained(folder, feed))


def test_a_guess_of_the_number_of_axes_does_not_bind_the_parts(tmp_path: Path) -> None:
    model = _table(tmp_path, sequence=False)
    folder, _ = applied("partition", model, Calibration())
    for shape in ((1, 16), (2, 5, 16), (1, 2, 3, 16)):
        feed = {"x": RANDOM.normal(size=shape).astype(np.float32)}
        assert same_bits(outputs(model, feed), chained(folder, feed))


def test_calibration_arrays_say_which_guess_is_right(tmp_path: Path) -> None:
    model = _table(tmp_path, sequence=True)
    np.savez(tmp_path / "arrays.npz", x=RANDOM.normal(size=(6, 5, 16)).astype(np.float32))
    calibration = read_calibration(tmp_path / "arrays.npz", model)
    assert [array.shape for array in calibration.arrays] == [(1, 5, 16)] * 6
    _, manifest = applied("static_ptq", model, calibration)
    assert manifest["calibration"]["samples"] == 6


def test_init_declares_the_shape_that_the_model_ran_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = _table(tmp_path)
    np.savez("table.npz", x=RANDOM.normal(size=(20, 16)).astype(np.float32))
    assert run(lambda: app(["init", "--model", model.name, "--data", "table.npz"])) == 0
    text = Path("strategies.yaml").read_text()
    (subject,) = yaml.safe_load(text)["subjects"].values()
    assert subject["input"] == {"shape": {"x": ["any", 16]}}
    assert "the file declares no shape: MatMul MatMul_0 takes it" in text
    assert run(lambda: app(["validate"])) == 0


def test_init_reads_the_layout_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["init", "--model", _pictures(tmp_path).name])) == 0
    text = Path("strategies.yaml").read_text()
    assert "image: float32 [?, ?, ?, 3]" in text and "nhwc, rgb, 224 x 224" in text and "input:" not in text


@pytest.mark.parametrize(("shape", "sample"), [(["any", 16], (1, 16)), ([16], (16,))])
def test_a_tier_serves_samples_of_the_declared_shape(tmp_path: Path, shape: object, sample: tuple[int, ...]) -> None:
    model, array = _table(tmp_path), RANDOM.normal(size=(20, 16)).astype(np.float32)
    np.savez(tmp_path / "table.npz", x=array)
    subject = _subject(model, input={"shape": shape})
    subject.dataset.write_inputs(tmp_path, ["000003"])
    (fed,) = read_tensors((tmp_path / "000003").read_bytes())
    assert (fed.shape, fed.tobytes()) == (sample, array[3].tobytes())
    part = ServedPart(PartSpec("m", str(subject.model), preprocess=Preprocess.from_json(subject.preprocess)), "edge")
    served = part.run((Tensor("image", None, (memoryview(write_tensors([fed])),)),)).outputs
    assert same_bits(outputs(model, {"x": fed}), served)


def test_a_tier_gives_the_best_classes_of_an_output_without_a_declared_shape(tmp_path: Path) -> None:
    model, fed = _table(tmp_path), RANDOM.normal(size=(1, 16)).astype(np.float32)
    spec = PartSpec(
        "m", str(model), preprocess=Preprocess.from_json({"kind": "tensors"}), postprocess=Postprocess("top_k", k=2)
    )
    served = ServedPart(spec, "edge").run((Tensor("image", None, (memoryview(write_tensors([fed])),)),)).outputs
    assert served["classes"].tolist() == np.argsort(-outputs(model, {"x": fed})["y"][0])[:2].tolist()


def test_the_declared_shape_belongs_to_the_data(tmp_path: Path) -> None:
    model = _table(tmp_path)
    np.savez(tmp_path / "table.npz", x=RANDOM.normal(size=(20, 16)).astype(np.float32))
    shapes: list[object] = [["any", 16], [16], {"x": [16]}]
    keys = [_subject(model, input={"shape": shape}).dataset.fingerprint() for shape in shapes]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (
            {},
            r"'x' declares no shape, and nothing that reads it fixes one; declare it .* input: \{shape: \[any, 16\]\}",
        ),
        ({"input": {"shape": {"y": [16]}}}, "names 'y'; allowed: the model's inputs x"),
    ],
)
def test_an_open_shape_is_to_be_declared(tmp_path: Path, declared: Mapping[str, Any], says: str) -> None:
    model = _table(tmp_path)
    np.savez(tmp_path / "table.npz", x=RANDOM.normal(size=(20, 16)).astype(np.float32))
    with pytest.raises(SubjectError, match=says):
        _subject(model, **declared)


def test_a_declared_shape_must_agree_with_the_graph(tmp_path: Path) -> None:
    model = _pictures(tmp_path)
    with pytest.raises(
        SubjectError, match=r"is \[1, 8, 8, 1\], and Transpose .* takes it; allowed: what agrees with image"
    ):
        _subject(model, input={"shape": [1, 8, 8, 1]})
    plain = Network()
    plain.add("Relu", plain.input("x", [1, 4]), out="y")
    plain.output("y", [1, 4])
    with pytest.raises(SubjectError, match="declares the shape of 'x' itself; remove it"):
        _subject(plain.save(tmp_path / "plain.onnx"), input={"shape": [1, 4]})
