"""Early exit: structure and outputs in the real engine, and refusals that name what was found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from runner.errors import OperatorError
from runner.graph import analyse
from runner.operators import Context, Refusal, make_pass
from runner.subjects.registry import BUILTIN

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
    assert [each["name"] for each in details["skipped"]] == ["layer2.0", "layer2.1", "layer2.2"][-blocks:]
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
        Refusal, match="no two consecutive identical branching sub-graphs: the model is a chain of 5 nodes"
    ):
        shorten(model, tmp_path / "out")

    unlike = network()
    model = unlike.save(tmp_path / "unlike.onnx", unlike.classifier(unlike.projected(unlike.block("input", "a"), "b")))
    with pytest.raises(
        Refusal, match=r"found 2 branching sub-graphs \(the last: a, b\), each unlike the one before it"
    ):
        shorten(model, tmp_path / "out")

    with pytest.raises(
        Refusal, match=r"4 blocks were asked .* has 3: layer2\.0, layer2\.1, layer2\.2; set `blocks` to 3"
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
    with pytest.raises(Refusal, match="would save nothing: the rest of the model uses the same weights"):
        shorten(model, tmp_path / "out")


def test_control_flow_is_refused_by_name(tmp_path: Path, residual: Path) -> None:
    from onnx import TensorProto

    model = onnx.load(residual)
    branch = [
        helper.make_graph(
            [helper.make_node(op_type, ["scores"], [f"{op_type}.out"])], op_type, [],
            [helper.make_tensor_value_info(f"{op_type}.out", TensorProto.FLOAT, [1, 4])],
        )
        for op_type in ("Abs", "Neg")
    ]  # fmt: skip
    model.graph.initializer.append(helper.make_tensor("flag", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], then_branch=branch[0], else_branch=branch[1]))
    model.graph.output[0].name = "chosen"
    onnx.save(model, tmp_path / "if.onnx")
    for name in ("early_exit", "partition"):
        with pytest.raises(Refusal, match=r"control flow, and found If × 1"):
            make_pass(name, {}).apply([tmp_path / "if.onnx"], Context(tmp_path))


def test_several_parts_and_wrong_options_are_errors(residual: Path, tmp_path: Path) -> None:
    for name in ("early_exit", "partition"):
        with pytest.raises(OperatorError, match="2 parts"):
            make_pass(name, {}).apply([residual, residual], Context(tmp_path))
    with pytest.raises(OperatorError, match="blocks"):
        make_pass("early_exit", {"blocks": 0})
    with pytest.raises(OperatorError, match="cut"):
        make_pass("partition", {"cut": "best"})
