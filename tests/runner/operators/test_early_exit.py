"""Early exit: structure and outputs in the real engine, and refusals that name what was found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runner.artifacts.store import ArtifactStore
from runner.errors import OperatorError
from runner.graph.analysis import analyse
from runner.operators.base import AppliedPass, Context, PassRefusal
from runner.operators.registry import make_pass
from runner.subjects.embedded.datasets import BUILTIN

IMAGES = [np.random.default_rng(seed).normal(size=(1, 16, 16, 16)).astype(np.float32) for seed in range(3)]


def shorten(model: Path, workdir: Path, **options: object) -> tuple[Path, Mapping[str, Any]]:
    workdir.mkdir(exist_ok=True)
    applied = make_pass("early_exit", options).apply([model], Context(workdir))
    (path,) = applied.parts
    return path, applied.details


def with_identities(model: Path, details: Mapping[str, Any], target: Path) -> Path:
    """The same model with one Identity in the place of the skipped blocks."""
    loaded = onnx.load(model)
    entry, result = details["entry"], details["result"]
    for node in loaded.graph.node:
        if result in node.output:
            node.output[list(node.output).index(result)] = f"{result}.skipped"
    place = next(i for i, node in enumerate(loaded.graph.node) if entry in node.output)
    loaded.graph.node.insert(place + 1, helper.make_node("Identity", [entry], [result]))
    onnx.save(loaded, target)
    return target


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_equals_the_model_whose_blocks_are_identities(residual: Path, tmp_path: Path, run: Any, blocks: int) -> None:
    path, details = shorten(residual, tmp_path / "out", blocks=blocks)
    reference = with_identities(residual, details, tmp_path / "reference.onnx")
    assert [block["name"] for block in details["skipped"]] == ["layer2.0", "layer2.1", "layer2.2"][-blocks:]
    for image in IMAGES:
        got, expected, original = (run(model, {"input": image})["scores"] for model in (path, reference, residual))
        assert np.array_equal(got, expected)
        assert not np.allclose(got, original)


def test_dead_nodes_and_weights_are_gone(residual: Path, tmp_path: Path) -> None:
    path, details = shorten(residual, tmp_path / "out")
    graph = onnx.load(path).graph
    onnx.checker.check_model(str(path), full_check=True)
    left = {name.split("/")[0] for node in graph.node for name in node.output if name.startswith("layer")}
    assert left == {"layer1.0", "layer2.0"}
    assert not [tensor.name for tensor in graph.initializer if tensor.name.startswith(("layer2.1", "layer2.2"))]
    assert details["after_bytes"] == path.stat().st_size
    assert details["saved_bytes"] == residual.stat().st_size - path.stat().st_size
    assert details["removed_nodes"] == len(onnx.load(residual).graph.node) - len(graph.node) == 10


def test_blocks_at_the_very_end_leave_an_output_of_the_same_name(network: Any, tmp_path: Path, run: Any) -> None:
    build = network(channels=16, size=(1, 16, 16, 16))
    current = build.conv("input", "stem")
    for number in range(2):
        current = build.block(current, f"layer.{number}")
    model = build.save(tmp_path / "m.onnx", current)
    path, details = shorten(model, tmp_path / "out")
    assert details["result"] == current
    stem = build.save(tmp_path / "stem.onnx", "stem")
    assert np.array_equal(run(path, {"input": IMAGES[0]})[current], run(stem, {"input": IMAGES[0]})["stem"])


@pytest.mark.parametrize("subject", ["fashion-resnet", "canvas-fcn"])
@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_on_quantized_graphs_the_numbers_keep_their_meaning(
    subject: str, format: str, tmp_path: Path, run: Any
) -> None:
    """Against the quantized graph whose blocks are identities: in QOperator form the consumers' scale must follow."""
    shape = (1, 1, 28, 28) if subject == "fashion-resnet" else (1, 1, 32, 48)
    images = [np.random.default_rng(seed).uniform(size=shape).astype(np.float32) for seed in range(8)]
    workdir = tmp_path / "quantized"
    workdir.mkdir()
    ptq = make_pass("static_ptq", {"format": format, "calibration_samples": 8})
    (quantized,) = ptq.apply([BUILTIN / f"{subject}.onnx"], Context(workdir, images)).parts
    path, details = shorten(quantized, tmp_path / "out")
    floating, _ = shorten(BUILTIN / f"{subject}.onnx", tmp_path / "float")
    naive = with_identities(quantized, details, tmp_path / "naive.onnx")
    (output,) = run(path, {"input": images[0]})
    errors = {"ours": 0.0, "naive": 0.0}
    for image in images[:4]:
        expected = run(floating, {"input": image})[output]
        for name, model in (("ours", path), ("naive", naive)):
            errors[name] += float(
                np.abs(run(model, {"input": image})[output] - expected).max() / np.abs(expected).max()
            )
    assert errors["ours"] / 4 < 0.25
    if format == "qdq":
        assert errors["ours"] == errors["naive"]  # floats between the blocks need no rewriting
    else:
        assert errors["ours"] < errors["naive"]


def test_a_run_early_in_the_model_is_a_warning_with_the_figure(network: Any, tmp_path: Path) -> None:
    build = network()
    current = build.conv("input", "stem")
    for number in range(2):
        current = build.block(current, f"early.{number}")
    wide = build.conv(build.node("Relu", build.conv(current, "wide1", wide=200)), "wide2", wide=8, narrow=200)
    model = build.save(tmp_path / "m.onnx", build.classifier(build.conv(wide, "wide3", wide=8, kernel=21)))
    _, details = shorten(model, tmp_path / "out", blocks=1)
    (warning,) = details["warnings"]
    assert warning.startswith(f"skipping early.1 saves {100 * details['saved_share']:.1f} % of the model's bytes")
    assert 0 < details["saved_share"] < 0.05


def test_refusals_name_what_was_found(network: Any, residual: Path, tmp_path: Path) -> None:
    chain = network()
    model = chain.save(tmp_path / "chain.onnx", chain.classifier(chain.conv(chain.conv("input", "a"), "b")))
    with pytest.raises(
        PassRefusal, match="no two consecutive identical branching sub-graphs: the model is a chain of 5 nodes"
    ):
        shorten(model, tmp_path / "out")

    unlike = network()
    model = unlike.save(tmp_path / "unlike.onnx", unlike.classifier(unlike.projected(unlike.block("input", "a"), "b")))
    with pytest.raises(
        PassRefusal, match=r"found 2 branching sub-graphs \(the last: a, b\), each unlike the one before it"
    ):
        shorten(model, tmp_path / "out")

    with pytest.raises(
        PassRefusal, match=r"4 blocks were requested .* has 3: layer2\.0, layer2\.1, layer2\.2; set `blocks` to 3"
    ):
        shorten(residual, tmp_path / "out", blocks=4)


def test_shared_weights_save_nothing_and_are_refused(network: Any, tmp_path: Path) -> None:
    build = network()
    current = build.conv("input", "stem")
    weights = [build.normal("shared.weight", 8, 8, 3, 3), build.normal("shared.bias", 8)]
    for number in range(3):
        inner = build.node("Conv", current, *weights, name=f"layer.{number}/conv", kernel_shape=[3, 3], pads=[1] * 4)
        current = build.node("Add", inner, current, name=f"layer.{number}/add")
    model = build.save(tmp_path / "m.onnx", build.classifier(current))
    assert len(analyse(model).runs[0].blocks) == 3
    with pytest.raises(PassRefusal, match="would save nothing: the rest of the model uses the same weights"):
        shorten(model, tmp_path / "out")


def test_several_parts_and_wrong_options_are_errors(residual: Path, tmp_path: Path) -> None:
    for name in ("early_exit", "partition"):
        with pytest.raises(OperatorError, match="2 parts"):
            make_pass(name, {}).apply([residual, residual], Context(tmp_path))
    with pytest.raises(OperatorError, match="blocks"):
        make_pass("early_exit", {"blocks": 0})
    with pytest.raises(OperatorError, match="cut"):
        make_pass("partition", {"cut": "best"})


def halving_blocks(path: Path, sides: list[str], inner: list[str]) -> Path:
    """Four blocks that each halve the sides, whatever the file says of the tensors between them."""
    random = np.random.default_rng(0)
    nodes, weights, declared, current = [], [], [], "input"
    for number in range(4):
        name = f"block{number}"
        weights.append(numpy_helper.from_array(random.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6, f"{name}/w"))
        nodes += [
            helper.make_node("Conv", [current, f"{name}/w"], [f"{name}/a"], strides=[2, 2], pads=[1] * 4),
            helper.make_node("MaxPool", [current], [f"{name}/b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
            helper.make_node("Add", [f"{name}/a", f"{name}/b"], [name]),
        ]
        declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, *inner]))
        current = name
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["scores"]))
    images = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4, *sides])]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4, 1, 1])]
    graph = helper.make_graph(nodes, "halving", images, scores, weights, value_info=declared)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("sides", "inner"), [(["?", "?"], ["?", "?"]), (["h", "w"], ["h", "w"]), (["h", "w"], ["?", "?"])]
)
def test_free_dimensions_of_one_name_are_not_of_one_size(sides: list[str], inner: list[str], tmp_path: Path) -> None:
    with pytest.raises(PassRefusal, match="each unlike the one before it"):
        shorten(halving_blocks(tmp_path / "m.onnx", sides, inner), tmp_path / "out")


def test_shapes_that_only_numbers_tell_are_compared_by_numbers(tmp_path: Path, run: Any) -> None:
    """A Reshape to computed sizes: no expression says that a block keeps the shape, two choices of sizes do."""
    random = np.random.default_rng(0)
    nodes, weights, current = [], [numpy_helper.from_array(np.array([-1]), "rest")], "input"
    for number in range(3):
        name = f"block{number}"
        weights.append(numpy_helper.from_array(random.normal(size=(8, 8)).astype(np.float32) / 3, f"{name}/w"))
        nodes += [
            helper.make_node("Shape", [current], [f"{name}/shape"]),
            helper.make_node("Reshape", [current, "rest"], [f"{name}/flat"]),
            helper.make_node("Reshape", [f"{name}/flat", f"{name}/shape"], [f"{name}/again"]),
            helper.make_node("MatMul", [f"{name}/again", f"{name}/w"], [f"{name}/product"]),
            helper.make_node("Add", [f"{name}/product", current], [name]),
        ]
        current = name
    nodes.append(helper.make_node("Softmax", [current], ["scores"]))
    dims = ["batch", "length", 8]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)] for name in ("input", "scores"))
    graph = helper.make_graph(nodes, "computed", inputs, outputs, weights)
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    path, details = shorten(model, tmp_path / "out", blocks=1)
    assert len(details["skipped"]) == 1
    image = random.normal(size=(2, 5, 8)).astype(np.float32)
    assert run(path, {"input": image})["scores"].shape == (2, 5, 8)


def test_the_artifact_is_compared_with_the_model_whose_blocks_are_identities(residual: Path, tmp_path: Path) -> None:
    artifact = ArtifactStore(tmp_path / "store").build(
        "key", model=residual, passes=[make_pass("early_exit", {})], calibration=lambda count: IMAGES[:count]
    )
    proof = artifact.details["proof"]["early_exit"]
    assert proof["inputs"] == 3
    assert proof["max_relative_difference"] < 1e-5


def test_an_exit_that_computes_something_else_is_inapplicable(residual: Path, tmp_path: Path) -> None:
    class Wrong:
        name, version, calibration_samples = "early_exit", 1, 0

        def options(self) -> dict[str, object]:
            return {}

        def apply(self, parts: Any, context: Context) -> AppliedPass:
            right = make_pass("early_exit", {}).apply(parts, context)
            return AppliedPass(tuple(parts), right.details, right.reference)

    artifact = ArtifactStore(tmp_path / "store").build(
        "key", model=residual, passes=[Wrong()], calibration=lambda count: IMAGES[:count]
    )
    assert artifact.reason is not None
    assert "it differs by up to" in artifact.reason
