"""Files that ONNX Runtime runs and that ONNX's checker or its shape inference does not accept or know."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from runner.artifacts.model_runs import Rigour, sound_model
from runner.artifacts.store import ArtifactStore
from runner.errors import ModelFileError, OperatorError
from runner.graph.analysis import analyse
from runner.graph.model_file import read_model, tagged
from runner.operators.early_exit import choose_exit
from runner.operators.registry import look_ahead
from tests.foreign.networks import Network, applied, chained, outputs, relative_error, same_bits, samples

Spoil = Callable[[onnx.ModelProto], object]


def _without_output_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _without_output_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def _with_output_shape(*sizes: int) -> Spoil:
    shape = helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)
    return lambda model: model.graph.output[0].CopyFrom(shape)


def _with_inner_shape(model: onnx.ModelProto) -> None:
    inner = model.graph.node[3].output[0]
    model.graph.value_info.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, [7, 9]))


def _with_casts_at_the_end(model: onnx.ModelProto) -> None:
    """Append the cast of the input, as tools that convert to half precision do."""
    for node in model.graph.node:
        node.input[:] = ["x16" if name == "x" else name for name in node.input]
    model.graph.node.append(helper.make_node("Identity", ["x"], ["x16"], name="cast"))


def _reversed(model: onnx.ModelProto) -> None:
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _without_name(model: onnx.ModelProto) -> None:
    model.graph.name = ""


def _with_the_domain_by_name(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.domain = "ai.onnx"


SPOILERS = {
    "domain by name": _with_the_domain_by_name,
    "output without shape": _without_output_shape,
    "output without type": _without_output_type,
    "output of other sizes": _with_output_shape(1, 16, 3, 3),
    "output of another rank": _with_output_shape(1, 16),
    "inner tensor of another rank": _with_inner_shape,
    "cast at the end": _with_casts_at_the_end,
    "nodes in reverse": _reversed,
    "graph without a name": _without_name,
}


def _convolutions(folder: Path, spoil: Spoil | None = None) -> Path:
    network = Network()
    last = network.residual(network.input("x", [1, 16, 8, 8]), 16, 4)
    network.add("GlobalAveragePool", last, out="y")
    network.output("y", [1, 16, 1, 1])
    model = network.model()
    if spoil is not None:
        spoil(model)
    onnx.save(model, folder / "spoilt.onnx")
    return folder / "spoilt.onnx"


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_a_file_that_only_the_engine_accepts_is_cut_and_shortened(tmp_path: Path, spoil: Spoil) -> None:
    path = _convolutions(tmp_path, spoil)
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 8, 8)).astype(np.float32)}
    halves, _ = applied("partition", path, samples(1, 16, 8, 8))
    assert same_bits(outputs(path, feed), chained(halves, feed))
    spoilt, _ = applied("early_exit", path.rename(tmp_path / "again.onnx"), samples(1, 16, 8, 8))
    shortened, _ = applied("early_exit", _convolutions(tmp_path).rename(tmp_path / "sound.onnx"), samples(1, 16, 8, 8))
    assert same_bits(outputs(shortened / "model.onnx", feed), outputs(spoilt / "model.onnx", feed))


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_the_copy_for_the_passes_is_as_sound_as_the_original_would_be(tmp_path: Path, spoil: Spoil) -> None:
    (tmp_path / "copy").mkdir()
    sound = sound_model(_convolutions(tmp_path, spoil), tmp_path / "copy")
    assert sound.rigour is Rigour.INFERRED
    output = onnx.load(sound.path).graph.output[0]
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [1, 16, 1, 1]


def test_a_file_that_only_the_engine_accepts_is_quantized(tmp_path: Path) -> None:
    path = _convolutions(tmp_path, _with_casts_at_the_end)
    made, _ = applied("static_ptq", path, samples(1, 16, 8, 8))
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 8, 8)).astype(np.float32)}
    assert 0 < relative_error(outputs(path, feed)["y"], outputs(made / "model.onnx", feed)["y"]) < 0.1


def test_identity_of_a_file_that_only_the_engine_accepts_is_the_file_itself(tmp_path: Path) -> None:
    path = _convolutions(tmp_path, _reversed)
    built = ArtifactStore(tmp_path / "store").build("identity", model=path, passes=(), calibration=lambda count: ())
    assert built.path(0).read_bytes() == path.read_bytes()


def _contributed(folder: Path, *sizes: int | str, table: bool = False) -> Path:
    """Write a network of operators of another domain; with `table`, one that runs on few inputs."""
    network = Network(com_microsoft=1)
    if table:
        tokens = network.add("Sub", network.input("x", [1, 16], TensorProto.INT64), network.weight(np.int64(1000)))
        current = network.add("Gather", network.normal(3, 32), tokens)
    else:
        current = network.input("x", sizes)
    for _ in range(6):
        inner = network.add("Add", network.add("MatMul", current, network.normal(32, 64)), network.normal(64))
        inner = network.add("Gelu", inner, domain="com.microsoft")
        inner = network.add("MatMul", inner, network.normal(64, 32))
        scale, shift = network.weight(np.ones(32)), network.weight(np.zeros(32))
        current = network.add("SkipLayerNormalization", current, inner, scale, shift, domain="com.microsoft")
    network.add("Identity", current, out="y")
    network.output("y", [*sizes] or [1, 16, 32])
    return network.save(folder / "contributed.onnx")


@pytest.mark.parametrize("sizes", [(1, 16, 32), ("batch", "length", 32), (-1, -1, 32)])
def test_types_that_inference_does_not_know_are_read_from_a_run(tmp_path: Path, sizes: tuple[int | str, ...]) -> None:
    path = _contributed(tmp_path, *sizes)
    analysis = analyse(path)
    assert analysis.unknown_tensors == 0
    chosen = choose_exit(analysis, 2)
    assert chosen.entry.shape == chosen.result.shape == analysis.inputs[0].shape
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 32)).astype(np.float32)}
    halves, _ = applied("partition", path, samples(1, 16, 32))
    assert same_bits(outputs(path, feed), chained(halves, feed))
    rewired = onnx.load(path)
    for node in rewired.graph.node:
        node.input[:] = [chosen.entry.name if name == chosen.result.name else name for name in node.input]
    onnx.save(rewired, tmp_path / "rewired.onnx")
    shortened, _ = applied("early_exit", path.rename(tmp_path / "again.onnx"), samples(1, 16, 32))
    assert same_bits(outputs(tmp_path / "rewired.onnx", feed), outputs(shortened / "model.onnx", feed))


def test_a_refusal_says_that_types_are_unknown_and_of_how_many_tensors(tmp_path: Path) -> None:
    analysis = analyse(_contributed(tmp_path, table=True))
    assert analysis.unknown_tensors > 0
    refusals = look_ahead(analysis).refusals
    assert f"{analysis.unknown_tensors} inner tensors are unknown" in refusals["early_exit"]
    assert f"{analysis.unknown_tensors} inner tensors are unknown" in refusals["partition"]


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_file_that_the_engine_optimized_is_cut_bit_by_bit(tmp_path: Path, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(_convolutions(tmp_path)), options, providers=["CPUExecutionProvider"])
    path = tmp_path / "optimized.onnx"
    assert any(node.domain for node in onnx.load(path).graph.node)
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 8, 8)).astype(np.float32)}
    halves, _ = applied("partition", path, samples(1, 16, 8, 8))
    assert same_bits(outputs(path, feed), chained(halves, feed))


def test_blocks_of_free_length_are_alike_after_quantization_as_before(tmp_path: Path) -> None:
    network = Network()
    source = network.input("x", [1, "length", 32])
    length = network.add("Shape", source, start=1, end=2)
    square = network.add("Concat", length, length, axis=0)
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [-1e4])
    mask = network.add("Trilu", network.add("ConstantOfShape", square, value=value), network.weight(np.int64(1)))
    current = source
    for number in range(6):
        keys = network.add("Transpose", current, perm=[0, 2, 1])
        scores = network.add("MatMul", network.add("MatMul", current, network.normal(32, 32)), keys)
        mixed = network.add("MatMul", network.add("Softmax", network.add("Add", scores, mask), axis=-1), current)
        projected = network.add("MatMul", mixed, network.normal(32, 32))
        current = network.add("Add", current, projected, out="y" if number == 5 else f"block{number}")
    network.output("y", [1, "length", 32])
    path = network.save(tmp_path / "mask.onnx")
    made, _ = applied("static_ptq, early_exit: {blocks: 2}", path, samples(1, 16, 32))
    rewired = onnx.load(path)
    rewired.graph.output[0].name = "block3"
    onnx.save(rewired, tmp_path / "rewired.onnx")
    feed = {"x": np.random.default_rng(3).normal(size=(1, 20, 32)).astype(np.float32)}
    # The first blocks have the same ranges whether or not the last are there, and the mask makes them coarse.
    alone, _ = applied("static_ptq", tmp_path / "rewired.onnx", samples(1, 16, 32))
    expected, actual = outputs(alone / "model.onnx", feed)["block3"], outputs(made / "model.onnx", feed)["y"]
    assert relative_error(expected, actual) < 0.02
    assert relative_error(outputs(path, feed)["y"], actual) > 0.5


def test_a_sequence_of_maps_is_no_tensor_of_unknown_type(tmp_path: Path) -> None:
    network = Network(ai_onnx_ml=3)
    network.add("Normalizer", network.input("x", [3, 4]), out="scores", domain="ai.onnx.ml", norm="L1")
    network.add("ZipMap", "scores", out="maps", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    model = network.model()
    values = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, values))
    model.graph.output.append(helper.make_value_info("maps", kind))
    onnx.save(model, tmp_path / "maps.onnx")
    analysis = analyse(tmp_path / "maps.onnx")
    assert analysis.unknown_tensors == 0
    assert "unknown" not in str(look_ahead(analysis).refusals)


def test_weights_that_are_written_as_a_field_each_stay_on_disk(tmp_path: Path) -> None:
    network = Network()
    last = network.residual(network.input("x", [1, 16, 8, 8]), 16, 4)
    network.add("GlobalAveragePool", last, out="y")
    network.output("y", [1, 16, 1, 1])
    model = network.model()
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    # Old tools write repeated numbers unpacked: the tag of float_data, field 4 of four bytes, before every number.
    values = [np.frombuffer(tensor.raw_data, np.uint8).reshape(-1, 4) for tensor in tensors]
    unpacked = [np.insert(octets, 0, 4 << 3 | 5, axis=1).tobytes() for octets in values]
    for tensor in tensors:
        tensor.ClearField("raw_data")
    graph = model.graph.SerializeToString() + b"".join(
        tagged(5, tensor.SerializeToString() + numbers) for tensor, numbers in zip(tensors, unpacked, strict=True)
    )
    model.ClearField("graph")
    path = tmp_path / "unpacked.onnx"
    path.write_bytes(model.SerializeToString() + tagged(7, graph))
    file = read_model(path)
    assert file.weights.keys() == {tensor.name for tensor in tensors if len(tensor.dims) == 4}
    assert file.model.ByteSize() < 10_000
    feed = {"x": np.random.default_rng(3).normal(size=(1, 16, 8, 8)).astype(np.float32)}
    halves, _ = applied("partition", path, samples(1, 16, 8, 8))
    assert same_bits(outputs(path, feed), chained(halves, feed))


def test_the_numbers_and_texts_of_a_large_tree_stay_on_disk(tmp_path: Path) -> None:
    network = Network(ai_onnx_ml=3)
    count = 40_000
    network.add("Scaler", network.input("x", [1, 4]), out="scaled", domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    attributes = {
        "nodes_treeids": list(range(count)), "nodes_nodeids": [0] * count, "nodes_featureids": [0] * count,
        "nodes_modes": ["LEAF"] * count, "nodes_values": [0.0] * count, "nodes_truenodeids": [0] * count,
        "nodes_falsenodeids": [0] * count, "target_treeids": list(range(count)), "target_nodeids": [0] * count,
        "target_ids": [0] * count, "target_weights": [0.5] * count, "n_targets": 1,
    }  # fmt: skip
    network.add("TreeEnsembleRegressor", "scaled", out="y", domain="ai.onnx.ml", **attributes)
    network.output("y", [1, 1])
    path = network.save(tmp_path / "tree.onnx")
    file = read_model(path)
    assert file.stored_nodes.keys() == {1}
    assert file.model.ByteSize() < 100_000 < path.stat().st_size
    (sound,) = [node for node in file.graph.node if node.op_type == "Scaler"]
    assert sound == network.nodes[0]
    assert analyse(path).size_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "kind", [TensorProto.INT64, TensorProto.FLOAT16, TensorProto.UINT64, TensorProto.INT16, TensorProto.BFLOAT16]
)
def test_numbers_that_protobuf_shortens_are_all_there(tmp_path: Path, kind: int) -> None:
    network = Network()
    network.initializers.append(helper.make_tensor("small", kind, [3000], [0] * 3000))
    network.add("Add", network.input("x", [3000]), network.add("Cast", "small", to=TensorProto.FLOAT), out="y")
    network.output("y", [3000])
    path = network.save(tmp_path / "small.onnx")
    assert path.stat().st_size < 4000
    assert read_model(path).weights["small"].size_bytes > 3000
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 6000
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="initializer 'small' declares"):
        read_model(path)


def test_a_file_that_the_engine_refuses_is_refused_even_if_a_copy_would_load(tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        # What no output needs is left out of a copy.
        model.graph.node.append(helper.make_node("NoSuchOperator", ["x"], ["unused"]))

    path = _convolutions(tmp_path, spoil)
    with pytest.raises(OperatorError, match="is not a valid ONNX model for ONNX Runtime"):
        applied("early_exit", path, samples(1, 16, 8, 8))


def test_a_cut_in_half_precision_is_not_expected_to_be_exact(tmp_path: Path) -> None:
    model = convert_float_to_float16(onnx.load(_convolutions(tmp_path)), keep_io_types=True)
    onnx.save(model, tmp_path / "half.onnx")
    cuts = analyse(tmp_path / "half.onnx").cuts
    assert cuts
    assert not any(cut.exact for cut in cuts if "float16" in {tensor.dtype for tensor in cut.tensors})
    _, manifest = applied("partition", tmp_path / "half.onnx", samples(1, 16, 8, 8))
    assert manifest["proof"]["composition"]["bit_identical"] is False
