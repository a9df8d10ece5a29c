"""The artifact cache: built once, verified, damaged ones rebuilt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from catalog.artifact_details import output_distance
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.errors import OperatorError
from runner.operators.base import AppliedPass, Context, Pass, PassRefusal
from runner.operators.registry import make_pass
from runner.subjects.embedded.datasets import BUILTIN
from runner.workdir import file_sha256, seal


def small_model(path: Path, *, channels: int = 8) -> Path:
    """Save conv → relu → global mean: enough for the quantizer to have something to do."""
    random = np.random.default_rng(0)
    weights = numpy_helper.from_array(random.normal(size=(channels, 1, 3, 3)).astype(np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weights"], ["features"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["features"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["scores"]),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 12, 12])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, channels, 1, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def build(store: ArtifactStore, model: Path, *passes: Pass) -> CachedArtifact:
    random = np.random.default_rng(1)
    return store.build(
        "key",
        model=model,
        passes=passes,
        calibration=lambda count: [random.normal(size=(1, 1, 12, 12)).astype(np.float32) for _ in range(count)],
    )


def test_identity_is_the_model_byte_for_byte(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m.onnx")
    artifact = build(ArtifactStore(tmp_path / "store"), model)
    assert [file.part for file in artifact.files] == ["model"]
    assert file_sha256(artifact.path(0)) == file_sha256(model) == artifact.files[0].sha256


def test_quantized_keeps_the_signature_and_the_meaning(tmp_path: Path) -> None:
    import onnxruntime

    model = small_model(tmp_path / "m.onnx")
    artifact = build(ArtifactStore(tmp_path / "store"), model, make_pass("static_ptq", {"calibration_samples": 16}))
    op_types = {node.op_type for node in onnx.load(artifact.path(0)).graph.node}
    assert "QuantizeLinear" in op_types
    image = np.random.default_rng(2).normal(size=(1, 1, 12, 12)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": image})[0]
        for path in (model, artifact.path(0))
    ]
    assert np.abs(results[0] - results[1]).max() < 0.1 * np.abs(results[0]).max()


def test_found_again_without_building(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    built = build(store, small_model(tmp_path / "m.onnx"))
    assert store.find("key") == built
    assert store.find("another") is None


def test_a_damaged_artifact_counts_as_absent(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    artifact = build(store, small_model(tmp_path / "m.onnx"))
    artifact.path(0).write_bytes(b"cut short")
    assert store.find("key") is None
    assert not artifact.directory.exists()


def test_a_file_that_is_not_onnx_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(OperatorError, match=r"broken\.onnx is not a valid ONNX model") as caught:
        build(ArtifactStore(tmp_path / "store"), broken)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "store").iterdir())


def test_a_refusal_is_stored_with_its_reason_for_the_code_that_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        name, version, calibration_samples = "refusing", 1, 0

        def options(self) -> dict[str, object]:
            return {}

        def apply(self, parts: object, context: object) -> AppliedPass:
            raise PassRefusal("no repeated blocks")

    store = ArtifactStore(tmp_path / "store")
    artifact = build(store, small_model(tmp_path / "m.onnx"), Refusing())
    assert artifact.inapplicable
    cached = store.find("key")
    assert cached is not None
    assert cached.reason == "no repeated blocks"
    # Code of the passes that may do more tries again; the versions of the passes are the same.
    monkeypatch.setattr("runner.artifacts.store.passes_code", lambda: "later")
    assert store.find("key") is None


def test_unknown_pass_and_option_say_what_is_allowed() -> None:
    with pytest.raises(OperatorError, match="Did you mean 'static_ptq'"):
        make_pass("static_pqt", {})
    with pytest.raises(OperatorError, match="calibration_samples"):
        make_pass("static_ptq", {"calibration_samples": 0})


def test_the_distance_to_the_model_is_measured_on_its_inputs(tmp_path: Path) -> None:
    store, model = ArtifactStore(tmp_path / "store"), small_model(tmp_path / "m.onnx")
    identity = output_distance(build(store, model).details)
    store.discard("key")
    quantized = output_distance(build(store, model, make_pass("static_ptq", {"calibration_samples": 16})).details)
    assert identity is not None and quantized is not None
    assert (identity.relative_error, identity.inputs, identity.source) == (0.0, 32, "calibration")
    assert quantized.relative_error is not None
    assert 0 < quantized.relative_error < 0.1


def test_inputs_are_made_up_where_there_are_none(tmp_path: Path) -> None:
    artifact = ArtifactStore(tmp_path / "store").build(
        "key", model=small_model(tmp_path / "m.onnx"), passes=(), calibration=lambda count: ()
    )
    distance = output_distance(artifact.details)
    assert distance is not None
    assert (distance.inputs, distance.source) == (4, "random")


def matching_model(path: Path, *, side: int | str, accepted: int) -> Path:
    """Save flatten → matrix, which runs for one size of the side only, whatever the model declares."""
    weights = numpy_helper.from_array(np.ones((accepted * accepted, 3), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "weights"], ["scores"])],
        "matching",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_free_side_takes_the_size_that_the_model_runs_on(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    model = matching_model(tmp_path / "m.onnx", side="side", accepted=28)
    made = store.build("key", model=model, passes=(), calibration=lambda count: ())
    assert output_distance(made.details) is not None


def test_a_model_that_runs_on_nothing_made_up_is_not_verified(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    model = matching_model(tmp_path / "m.onnx", side="side", accepted=27)
    made = store.build("key", model=model, passes=(), calibration=lambda count: ())
    assert not made.inapplicable
    assert "runs on no input that could be made up" in made.details["not_verified"]
    assert output_distance(made.details) is None


def test_a_model_that_fails_on_its_own_inputs_is_inapplicable(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    model = matching_model(tmp_path / "m.onnx", side="side", accepted=28)
    made = store.build(
        "key", model=model, passes=(), calibration=lambda count: [np.ones((1, 1, 9, 9), np.float32)] * count
    )
    assert made.reason is not None
    assert "does not run on the inputs it is to be measured with" in made.reason


def test_what_fails_to_run_is_inapplicable(tmp_path: Path) -> None:
    class Breaking:
        name, version, calibration_samples = "breaking", 1, 0

        def options(self) -> dict[str, object]:
            return {}

        def apply(self, parts: Sequence[Path], context: Context) -> AppliedPass:
            return AppliedPass((matching_model(context.workdir / "m.onnx", side="side", accepted=9),))

    model = matching_model(tmp_path / "m.onnx", side="side", accepted=28)
    made = ArtifactStore(tmp_path / "store").build(
        "key", model=model, passes=(Breaking(),), calibration=lambda count: ()
    )
    assert made.reason is not None
    assert "fails where the model runs" in made.reason


def test_a_model_with_sparse_weights_is_judged_by_the_engine(tmp_path: Path) -> None:
    """ONNX's shape inference does not know sparse initializers, and ONNX Runtime runs them."""
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "sparse")
    places = numpy_helper.from_array(np.array([0, 5, 9], np.int64), "places")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "sparse"], ["scores"])],
        "sparse",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])],
        sparse_initializer=[helper.make_sparse_tensor(values, places, [4, 4])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    artifact = ArtifactStore(tmp_path / "store").build("key", model=path, passes=(), calibration=lambda count: ())
    distance = output_distance(artifact.details)
    assert artifact.reason is None and distance is not None and distance.relative_error == 0


FORGERIES: dict[str, Any] = {
    "a list": [],
    "no version": {"reason": None, "parts": ["model"], "details": {}},
    "fewer parts than files": {"version": 3, "reason": None, "parts": [], "details": {}},
    "more parts than files": {"version": 3, "reason": None, "parts": ["head", "tail"], "details": {}},
    "parts that are no names": {"version": 3, "reason": None, "parts": [7], "details": {}},
    "details that are none": {"version": 3, "reason": None, "parts": ["model"], "details": []},
    "a reason beside files": {"version": 3, "reason": "it cannot be", "parts": ["model"], "details": {}},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_sealed_manifest_that_describes_no_artifact_counts_as_absent(tmp_path: Path, forgery: str) -> None:
    store = ArtifactStore(tmp_path / "store")
    artifact = build(store, small_model(tmp_path / "m.onnx"))
    seal(artifact.directory, "key", ["model.onnx"], FORGERIES[forgery])
    assert store.find("key") is None
    assert not artifact.directory.exists()


def test_an_artifact_of_no_files_needs_a_reason(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    artifact = build(store, small_model(tmp_path / "m.onnx"))
    seal(artifact.directory, "key", [], {"version": 3, "reason": None, "parts": [], "details": {}})
    assert store.find("key") is None


@pytest.mark.parametrize("op_type", ["SplitToSequence", "ZipMap"])
def test_sequences_and_maps_are_compared_element_by_element(tmp_path: Path, op_type: str) -> None:
    weights = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["scores"])]
    if op_type == "ZipMap":
        labels = list(range(8))
        nodes.append(helper.make_node("ZipMap", ["scores"], ["last"], domain="ai.onnx.ml", classlabels_int64s=labels))
        element = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    else:
        nodes.append(helper.make_node("SplitToSequence", ["scores", "halves"], ["last"], axis=1))
        element = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    last = helper.make_value_info("last", helper.make_sequence_type_proto(element))
    initializers = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([4, 4]), "halves")]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 32])
    graph = helper.make_graph(nodes, "g", [source], [last], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    inputs = list(np.random.default_rng(1).normal(size=(8, 1, 32)).astype(np.float32))
    passes = [make_pass("static_ptq", {"calibration_samples": 8})]
    store = ArtifactStore(tmp_path / "store")
    artifact = store.build("key", model=tmp_path / "m.onnx", passes=passes, calibration=lambda count: inputs[:count])
    distance = output_distance(artifact.details)
    assert artifact.reason is None and distance is not None and distance.relative_error is not None
    assert 0 < distance.relative_error < 0.1


@pytest.mark.parametrize("error", [KeyError("t4_0"), MemoryError(), RecursionError("too deep"), StopIteration()])
def test_any_error_of_a_pass_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    model, step = small_model(tmp_path / "m.onnx"), make_pass("partition", {})

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(type(step), "apply", fail)
    with pytest.raises(OperatorError, match=r"unexpectedly \((KeyError|RecursionError|StopIter)|too little memory"):
        build(ArtifactStore(tmp_path), model, step)
    assert ArtifactStore(tmp_path).find("key") is None


def test_a_pass_never_reads_what_the_pass_before_it_made_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_pass("early_exit", {}), make_pass("partition", {})
    read: list[Sequence[Path]] = []

    def damage(_: Pass, parts: Sequence[Path], context: Context) -> AppliedPass:
        model = onnx.load(parts[0])
        model.graph.node[0].op_type = "NoSuchOperator"
        onnx.save(model, context.workdir / "damaged.onnx")
        return AppliedPass((context.workdir / "damaged.onnx",))

    def note(_: Pass, parts: Sequence[Path], context: Context) -> AppliedPass:
        read.append(parts)
        return AppliedPass(tuple(parts))

    monkeypatch.setattr(type(first), "apply", damage)
    monkeypatch.setattr(type(second), "apply", note)
    made = build(ArtifactStore(tmp_path / "store"), small_model(tmp_path / "m.onnx"), first, second)
    assert made.reason is not None and "what early_exit made of the model is not valid: damaged.onnx" in made.reason
    assert read == []


def key_of(passes: Sequence[Pass]) -> str:
    return "-".join(f"{step.name}{step.calibration_samples}" for step in passes)


def pipeline(*names: str, samples: int = 2) -> list[Pass]:
    return [make_pass(name, {"calibration_samples": samples} if name == "static_ptq" else {}) for name in names]


def built_in(store: ArtifactStore, passes: Sequence[Pass]) -> CachedArtifact:
    """Build what passes make of a model that is shipped, from the artifact of the first of them where there is one."""
    inputs = list(np.random.default_rng(1).uniform(size=(3, 1, 1, 28, 28)).astype(np.float32))
    model = BUILTIN / "fashion-resnet.onnx"
    key = key_of(passes)
    return store.build(key, model=model, passes=passes, calibration=lambda count: inputs[:count], key_of=key_of)


LONG = ("early_exit", "static_ptq", "partition")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> CachedArtifact:
    """Build the whole pipeline where nothing of it is cached."""
    return built_in(ArtifactStore(tmp_path_factory.mktemp("alone")), pipeline(*LONG))


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the passes that are applied from now on."""
    applied: list[str] = []
    for step in {type(step) for step in pipeline(*LONG)}:

        def note(self: Any, *arguments: Any, apply: Any = step.apply) -> AppliedPass:
            applied.append(self.name)
            made: AppliedPass = apply(self, *arguments)
            return made

        monkeypatch.setattr(step, "apply", note)
    return applied


def test_a_pipeline_goes_on_from_the_artifact_of_its_first_passes(
    tmp_path: Path, alone: CachedArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(tmp_path)
    built_in(store, pipeline(*LONG[:2]))
    applied = noted(monkeypatch)
    artifact = built_in(store, pipeline(*LONG))
    assert applied == ["partition"]
    assert artifact.reason is None and artifact.files == alone.files and artifact.details == alone.details
    assert set(artifact.details["proof"]) >= {"early_exit", "composition"}


class Vanishing(ArtifactStore):
    """A store whose artifacts are removed by another runner as soon as they were found."""

    def find(self, key: str) -> CachedArtifact | None:
        artifact = super().find(key)
        if "partition" not in key:
            self.discard(key)
        return artifact


@pytest.mark.parametrize("loss", ["changed", "removed while it is read", "of other inputs", "details lost"])
def test_what_does_not_serve_is_made_again(
    tmp_path: Path, alone: CachedArtifact, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    store = ArtifactStore(tmp_path)
    first = pipeline(*LONG[:2], samples=3 if loss == "of other inputs" else 2)
    artifact = built_in(store, first)
    if loss == "changed":
        artifact.path(0).write_bytes(artifact.path(0).read_bytes()[:-1] + b"?")
    elif loss == "details lost":
        content = {"version": 3, "reason": None, "parts": ["model"], "details": {}}
        seal(artifact.directory, artifact.key, ["model.onnx"], content)
    applied = noted(monkeypatch)
    store = Vanishing(tmp_path) if loss.startswith("removed") else store
    whole = built_in(store, pipeline(*LONG))
    assert applied == list(LONG)
    assert whole.files == alone.files and whole.details == alone.details
