"""Partition: head and tail reproduce the whole bit by bit in the real engine, on float and quantized graphs."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runner.artifacts.model_runs import prove_equal
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.graph.analysis import analyse
from runner.graph.model_file import read_model
from runner.graph.rewriting import split
from runner.graph.structure import read_structure
from runner.graph.writing import data_file, write_part
from runner.operators.base import Context, PassRefusal
from runner.operators.registry import make_pass
from runner.subjects.embedded.datasets import BUILTIN

Pipeline = list[tuple[str, dict[str, Any]]]
Built = Callable[[str, Pipeline], CachedArtifact]
QDQ = ("static_ptq", {"format": "qdq", "calibration_samples": 3})
QOPERATOR = ("static_ptq", {"format": "qoperator", "calibration_samples": 3})
EXIT, CUT, ANY = ("early_exit", {}), ("partition", {}), ("partition", {"cut": "any"})
SHAPES = {"fashion-resnet": (1, 1, 28, 28), "canvas-fcn": (1, 1, 40, 56)}


def images(shape: tuple[int, ...], count: int) -> list[NDArray[np.float32]]:
    return [np.random.default_rng(seed).uniform(size=shape).astype(np.float32) for seed in range(count)]


def artifact_of(model: Path, pipeline: Pipeline, store: Path, shape: tuple[int, ...] | None) -> CachedArtifact:
    return ArtifactStore(store).build(
        "key",
        model=model,
        passes=[make_pass(name, options) for name, options in pipeline],
        calibration=lambda count: images(shape, count) if shape else [],
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the artifact of a built-in subject, once for all that look at the same one."""
    artifacts: dict[str, CachedArtifact] = {}

    def build(subject: str, pipeline: Pipeline) -> CachedArtifact:
        name = f"{subject} {pipeline}"
        if name not in artifacts:
            store = tmp_path_factory.mktemp("artifact")
            # Quantizing takes most of the time and comes first in several pipelines: the rest starts from its file.
            quantized = build(subject, [QDQ]).path(0) if pipeline[0] == QDQ and len(pipeline) > 1 else None
            model, passes = (quantized, pipeline[1:]) if quantized else (BUILTIN / f"{subject}.onnx", pipeline)
            artifacts[name] = artifact_of(model, passes, store, SHAPES[subject])
        return artifacts[name]

    return build


def cut(model: Path, workdir: Path, **options: object) -> tuple[Path, Path, Mapping[str, Any]]:
    workdir.mkdir(exist_ok=True)
    applied = make_pass("partition", options).apply([model], Context(workdir))
    head, tail = applied.parts
    return head, tail, applied.details


@pytest.mark.parametrize(
    "pipeline",
    [[CUT], [ANY], [EXIT, CUT], [QDQ, CUT], [QDQ, ANY], [QDQ, EXIT, CUT], [EXIT, QDQ, CUT], [QOPERATOR, EXIT, ANY]],
    ids=lambda pipeline: "-".join(name for name, _ in pipeline),
)
@pytest.mark.parametrize("subject", list(SHAPES))
def test_head_and_tail_are_the_whole_bit_by_bit(subject: str, pipeline: Pipeline, built: Built) -> None:
    artifact = built(subject, pipeline)
    proof, details = artifact.details["proof"]["composition"], artifact.details["passes"][-1]
    assert proof["bit_identical"] is True
    assert (proof["source"], proof["inputs"]) == ("calibration", 4)
    assert [file.part for file in artifact.files] == ["head", "tail"]
    assert [file.size_bytes for file in artifact.files] == [details["head_bytes"], details["tail_bytes"]]
    assert max(details["head_bytes"], details["tail_bytes"]) < 0.56 * artifact.size_bytes
    quantized = any(name == "static_ptq" for name, _ in pipeline)
    assert {tensor["dtype"] for tensor in details["tensors"]} == {"uint8" if quantized else "float32"}
    if subject == "fashion-resnet":
        assert proof["crossing_bytes"] == details["crossing_bytes"]
    else:
        assert details["crossing_bytes"] is None  # free height and width
        assert [tensor["dtype"] for tensor in details["side"]] == ["int64"]


def test_the_stored_proof_is_found_again(tmp_path: Path) -> None:
    built = artifact_of(BUILTIN / "fashion-resnet.onnx", [CUT], tmp_path, None)
    stored = ArtifactStore(tmp_path).find("key")
    assert stored == built
    assert stored.details["proof"]["composition"]["source"] == "random"


def test_without_the_identity_pooling_the_bits_differ(network: Any, tmp_path: Path, run: Any) -> None:
    """Why it is there: the runtime fuses residual additions of the whole that it leaves alone in a bare tail."""
    build = network(channels=32, size=(1, 32, 12, 12))
    current = build.node("Relu", build.conv("input", "stem"))
    for number in range(6):
        current = build.block(current, f"layer.{number}")
    model = build.save(tmp_path / "m.onnx", build.classifier(current))
    head, tail, details = cut(model, tmp_path / "out")
    (tensor,) = details["tensors"]
    bare = onnx.load(tail)
    (pool,) = [node for node in bare.graph.node if node.op_type == "MaxPool"]
    bare.graph.node.remove(pool)
    for node in bare.graph.node:
        node.input[:] = [tensor["name"] if name == pool.output[0] else name for name in node.input]
    onnx.save(bare, tmp_path / "bare.onnx")
    with_pool = without = 0
    for image in images((1, 32, 12, 12), 5):
        whole = run(model, {"input": image})["scores"]
        handed = run(head, {"input": image})
        with_pool += not np.array_equal(whole, run(tail, handed)["scores"])
        without += not np.array_equal(whole, run(tmp_path / "bare.onnx", handed)["scores"])
    assert with_pool == 0
    assert without > 0


def test_the_runtime_reproduces_every_cut_called_exact(residual: Path, tmp_path: Path) -> None:
    structure, analysis = read_structure(read_model(residual)), analyse(residual)
    parts = (tmp_path / "head.onnx", tmp_path / "tail.onnx")
    verdicts = []
    for cut in analysis.cuts:
        halves = split(structure, tensors=[tensor.name for tensor in cut.tensors], side=[])
        for half, path in zip(halves, parts, strict=True):
            write_part(half, path)
        verdicts.append((cut.exact, prove_equal(residual, parts, [])["bit_identical"]))
    assert (True, False) not in verdicts
    assert verdicts.count((True, True)) > 8
    assert (False, False) in verdicts


def test_a_quantized_cut_has_scale_and_zero_point_on_both_sides(
    built: Built,
) -> None:
    artifact = built("fashion-resnet", [QDQ, CUT])
    head, tail = (onnx.load(artifact.path(index)).graph for index in range(2))
    for tensor in artifact.details["passes"][-1]["tensors"]:
        quantize = next(node for node in head.node if tensor["name"] in node.output)
        dequantize = [node for node in tail.node if tensor["name"] in node.input]
        assert quantize.op_type == "QuantizeLinear"
        assert {node.op_type for node in dequantize} == {"DequantizeLinear"}
        for graph in (head, tail):
            assert set(quantize.input[1:]) <= {weight.name for weight in graph.initializer}
        assert all(node.input[1:] == quantize.input[1:] for node in dequantize)


def test_a_second_partition_or_an_exit_after_it_is_an_error(tmp_path: Path) -> None:
    for following in (CUT, EXIT):
        with pytest.raises(Exception, match="got 2 parts"):
            artifact_of(BUILTIN / "fashion-resnet.onnx", [CUT, following], tmp_path, SHAPES["fashion-resnet"])


def test_an_unbalanced_best_cut_is_refused_with_its_shares_and_the_heaviest_weight(
    network: Any, tmp_path: Path
) -> None:
    build = network()
    current = build.block(build.conv("input", "stem"), "a")
    flat = build.node("Flatten", current)
    model = build.save(
        tmp_path / "m.onnx", build.node("Gemm", flat, build.normal("huge.weight", 2048, 64), name="scores")
    )
    with pytest.raises(
        PassRefusal,
        match=r"leaves \d+\.\d % / \d+\.\d %, .* the initializer 'huge\.weight' alone holds 9\d\.\d % of the bytes",
    ):
        cut(model, tmp_path / "out")


def test_a_model_that_nothing_parts_is_refused_by_what_is_in_the_way(network: Any, tmp_path: Path) -> None:
    build = network()
    build.inputs["mask"] = (1, 8, 16, 16)
    current = "input"
    for number in range(3):
        current = build.node("Mul", build.conv(current, f"conv{number}"), "mask")
    model = build.save(tmp_path / "inputs.onnx", current)
    with pytest.raises(PassRefusal, match=r"2 inputs \(input, mask\), one of which the tail would need too"):
        cut(model, tmp_path / "out")

    build = network()
    early = build.conv("input", "early")
    model = build.save(tmp_path / "outputs.onnx", early, build.conv(early, "late"))
    with pytest.raises(PassRefusal, match=r"2 outputs \(early, late\), one of which the head would give"):
        cut(model, tmp_path / "out")


def test_only_identity_branches_to_cut_are_refused_with_what_allows_them(network: Any, tmp_path: Path) -> None:
    build = network()
    inner = build.conv(build.conv("input", "a"), "b")
    model = build.save(tmp_path / "m.onnx", build.node("Add", inner, "input"))
    with pytest.raises(PassRefusal, match="nothing cuts the model in two"):
        cut(model, tmp_path / "out")


def test_several_inputs_that_the_head_takes_all_are_no_obstacle(network: Any, tmp_path: Path) -> None:
    build = network(channels=16, size=(1, 16, 16, 16))
    build.inputs["other"] = (1, 16, 16, 16)
    current = build.node("Add", build.conv("input", "left"), build.conv("other", "right"))
    for number in range(2):
        current = build.block(current, f"layer.{number}")
    model = build.save(tmp_path / "m.onnx", build.classifier(current))
    assert artifact_of(model, [CUT], tmp_path / "store", None).details["proof"]["composition"]["bit_identical"] is True


def test_external_data_is_parted_and_stored_beside_the_parts(residual: Path, tmp_path: Path) -> None:
    source = tmp_path / "external" / "m.onnx"
    source.parent.mkdir()
    onnx.save(onnx.load(residual), source, save_as_external_data=True, location="m.bin", size_threshold=0)
    cases = {"whole": ([], ["model"]), "exit": ([EXIT], ["model"]), "cut": ([CUT], ["head", "tail"])}
    for name, (pipeline, parts) in cases.items():
        artifact = artifact_of(source, pipeline, tmp_path / name, None)
        assert [file.part for file in artifact.files] == [*parts, *(f"{part} data" for part in parts)]
        for index, part in enumerate(parts):
            onnx.checker.check_model(str(artifact.path(index)), full_check=True)
            assert read_model(artifact.path(index)).size_bytes > 1000
            assert data_file(artifact.path(index)).name == f"{part}.onnx.data"
    assert artifact.details["proof"]["composition"]["bit_identical"] is True


@pytest.fixture
def large_folder(tmp_path: Path) -> Iterator[Path]:
    """Make a folder for gigabytes, in memory where there is enough: disks take several times as much CPU for them."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 8 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.mark.large
def test_a_model_of_more_than_two_gibibytes(large_folder: Path) -> None:
    """Nine matrices of 256 MiB in a sparse file: parted in seconds, without being loaded."""
    side, count = 8192, 9
    nodes, tensors = [], []
    for number in range(count):
        tensor = TensorProto(name=f"w{number}", dims=[side, side], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        size = 4 * side * side
        for key, value in {"location": "m.bin", "offset": str(number * size), "length": str(size)}.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
        nodes.append(
            helper.make_node("MatMul", ["x" if number == 0 else f"y{number - 1}", f"w{number}"], [f"y{number}"])
        )
    graph = helper.make_graph(
        nodes, "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
        [helper.make_tensor_value_info(f"y{count - 1}", TensorProto.FLOAT, [1, side])],
        tensors,
    )  # fmt: skip
    model = large_folder / "m.onnx"
    model.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with (large_folder / "m.bin").open("wb") as stream:
        stream.truncate(count * 4 * side * side)
    assert read_model(model).size_bytes > 2 << 30
    head, tail, details = cut(model, large_folder / "out")
    assert {round(details[part] / (1 << 28)) for part in ("head_bytes", "tail_bytes")} == {4, 5}
    for part in (head, tail):
        onnx.checker.check_model(str(part))


def unbounded(path: Path) -> Path:
    """Logarithms of what may be zero cross in the middle, and the tail tells -inf from the least float."""
    random = np.random.default_rng(0)
    kernels = [
        numpy_helper.from_array(random.normal(size=(16, 16, 3, 3)).astype(np.float32) / 12, name)
        for name in ("first", "second")
    ]
    bias = numpy_helper.from_array(np.full(16, 6, np.float32), "bias")
    nodes = [
        helper.make_node("Conv", ["input", "first", "bias"], ["a"], pads=[1] * 4),
        helper.make_node("Max", ["a", "nothing"], ["b"]),
        helper.make_node("Log", ["b"], ["logits"]),
        helper.make_node("IsInf", ["logits"], ["infinite"]),
        helper.make_node("Cast", ["infinite"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["c", "second"], ["scores"], pads=[1] * 4),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8])] for name in ("input", "scores")
    )
    nothing = numpy_helper.from_array(np.float32(0), "nothing")
    graph = helper.make_graph(nodes, "unbounded", inputs, outputs, [*kernels, bias, nothing])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("tensor", ["b", "logits"])
def test_infinities_cross_as_they_are(tensor: str, tmp_path: Path, run: Any) -> None:
    model = unbounded(tmp_path / "m.onnx")
    parts = (tmp_path / "head.onnx", tmp_path / "tail.onnx")
    for half, path in zip(split(read_structure(read_model(model)), tensors=[tensor], side=[]), parts, strict=True):
        write_part(half, path)
    kinds = [node.op_type for node in onnx.load(parts[1]).graph.node]
    assert ("MaxPool" in kinds) is (tensor == "b")
    for scale in (0, 1, -1, 100, 10_000):
        image = scale * images((1, 16, 8, 8), 1)[0]
        whole = run(model, {"input": image})["scores"]
        assert np.array_equal(whole, run(parts[1], run(parts[0], {"input": image}))["scores"])
    assert prove_equal(model, parts, images((1, 16, 8, 8), 4))["bit_identical"] is True


def test_extremes_show_what_ordinary_inputs_do_not(tmp_path: Path) -> None:
    model = unbounded(tmp_path / "m.onnx")
    head, tail = tmp_path / "head.onnx", tmp_path / "tail.onnx"
    halves = split(read_structure(read_model(model)), tensors=["logits"], side=[])
    for half, path in zip(halves, (head, tail), strict=True):
        write_part(half, path)
    clipping = onnx.load(tail)
    clipping.graph.node[0].input[0] = "bounded"
    clipping.graph.node.insert(0, helper.make_node("Clip", ["logits"], ["bounded"]))
    onnx.save(clipping, tail)
    ordinary = [image / 10 for image in images((1, 16, 8, 8), 4)]
    proof = prove_equal(model, (head, tail), ordinary)
    assert (proof["inputs"], proof["extremes"], proof["bit_identical"]) == (4, 5, False)
