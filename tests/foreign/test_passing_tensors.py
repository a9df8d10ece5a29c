"""Early exits past tensors that pass by blocks: masks that every layer reads, skips around all blocks, late inputs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from runner.artifacts.calibration import Calibration
from runner.graph.analysis import analyse
from runner.operators.base import PassRefusal
from runner.operators.early_exit import choose_exit
from tests.foreign.networks import Array, Network, applied, chained, outputs, relative_error, same_bits

WIDTH = 16
RANDOM = np.random.default_rng(3)


def _layer(network: Network, current: str, mask: str, memory: str) -> str:
    """Add attention over `memory` with a mask, and a perceptron, both residual and normalised."""
    query = network.add("MatMul", current, network.normal(WIDTH, WIDTH))
    key, value = (network.add("MatMul", memory, network.normal(WIDTH, WIDTH)) for _ in range(2))
    scores = network.add("MatMul", query, network.add("Transpose", key, perm=[0, 2, 1]))
    weights = network.add("Softmax", network.add("Add", scores, mask), axis=-1)
    attended = network.add("MatMul", network.add("MatMul", weights, value), network.normal(WIDTH, WIDTH))
    current = _normalised(network, network.add("Add", attended, current))
    inner = network.add("Relu", network.add("MatMul", current, network.normal(WIDTH, 2 * WIDTH)))
    outer = network.add("MatMul", inner, network.normal(2 * WIDTH, WIDTH))
    return _normalised(network, network.add("Add", outer, current))


def _normalised(network: Network, current: str) -> str:
    return network.add("LayerNormalization", current, network.weight(np.ones(WIDTH)), network.weight(np.zeros(WIDTH)))


def _embedding(network: Network, name: str) -> str:
    ids = network.input(name, ["batch", f"{name}_length"], TensorProto.INT64)
    return network.add("Gather", network.normal(20, WIDTH), ids)


def _mask(network: Network, name: str, length: str) -> str:
    mask = network.add("Cast", network.input(name, ["batch", length], TensorProto.INT64), to=TensorProto.FLOAT)
    absent = network.add("Sub", network.weight(np.float32(1)), network.add("Unsqueeze", mask, network.weight([1])))
    return network.add("Mul", absent, network.weight(np.float32(-1e4)))


def _scores(network: Network, current: str) -> None:
    first = network.add("Gather", current, network.weight(np.array(0)), axis=1)
    network.add("MatMul", first, network.normal(WIDTH, 3), out="scores")
    network.output("scores", ["batch", 3])


def masked_encoder(*, masks: int = 1) -> Network:
    """Build four layers over tokens; with two masks, every second layer reads the other one."""
    network = Network()
    current = _embedding(network, "ids")
    read = [_mask(network, f"mask{index}", "ids_length") for index in range(masks)]
    for layer in range(4):
        current = _layer(network, current, read[layer % masks], current)
    _scores(network, current)
    return network


def encoder_decoder() -> Network:
    """Build two layers over a text, and three over another that also read the first one's result and its mask."""
    network = Network()
    current = _embedding(network, "source")
    mask = _mask(network, "mask", "source_length")
    for _ in range(2):
        current = _layer(network, current, mask, current)
    decoded = _embedding(network, "target")
    for _ in range(3):
        decoded = _layer(network, decoded, mask, current)
    _scores(network, decoded)
    return network


def long_skip() -> Network:
    """Build convolutions with a skip around all of their residual blocks, as networks for super-resolution have."""
    network = Network()
    first = network.conv(network.input("image", [1, 8, 12, 12]), 8)
    current = first
    for _ in range(4):
        current = network.add(
            "Add", network.conv(network.add("Relu", network.conv(current, 8)), 8), current
        )  # fmt: skip
    network.conv(network.add("Add", network.conv(current, 8), first), 8, out="larger")
    network.output("larger", [1, 8, 12, 12])
    return network


def late_input() -> Network:
    """Build perceptrons whose result is divided by a temperature, which is an input."""
    network = Network()
    source, temperature = network.input("x", [1, WIDTH]), network.input("temperature", [])
    network.add("Div", network.perceptrons(source, WIDTH, 4), temperature, out="y")
    network.output("y", [1, WIDTH])
    return network


def _feed(model: Path) -> dict[str, Array]:
    sizes = {"batch": 1, "ids_length": 7, "source_length": 7, "target_length": 5}
    feed: dict[str, Array] = {}
    for value in onnx.load(model).graph.input:
        shape = [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        numbers = value.type.tensor_type.elem_type == TensorProto.FLOAT
        array = np.asarray(RANDOM.normal(size=shape) if numbers else RANDOM.integers(1, 20, shape))
        feed[value.name] = np.minimum(array, 1) if value.name.startswith("mask") else array
        feed[value.name] = feed[value.name].astype(np.float32 if numbers else np.int64)
    return feed


def _rewired(model: Path, entry: str, result: str) -> Path:
    """Write the model in which every reader of `result` reads `entry`, by ONNX's own classes alone."""
    rewired = onnx.load(model)
    for node in rewired.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = entry if name == result else name
    onnx.save(rewired, model.with_name("rewired.onnx"))
    return model.with_name("rewired.onnx")


@pytest.mark.parametrize(
    ("build", "run_length"), [(masked_encoder, 4), (encoder_decoder, 3), (long_skip, 4), (late_input, 4)]
)
def test_an_exit_leaves_what_passes_by_the_blocks(
    tmp_path: Path, build: Callable[[], Network], run_length: int
) -> None:
    model = build().save(tmp_path / "model.onnx")
    analysis = analyse(model)
    assert len(analysis.runs[0].blocks) == run_length
    exit_ = choose_exit(analysis, 2)
    folder, manifest = applied("early_exit", model, Calibration())
    assert manifest["did"][0]["saved_bytes"] > 0.1 * model.stat().st_size
    feed = _feed(model)
    rewired = outputs(_rewired(model, exit_.entry.name, exit_.result.name), feed)
    for name, array in outputs(folder / "model.onnx", feed).items():
        assert relative_error(rewired[name], array) < 1e-5


@pytest.mark.parametrize("build", [masked_encoder, long_skip, late_input])
def test_a_cut_between_blocks_takes_what_passes_by(tmp_path: Path, build: Callable[[], Network]) -> None:
    model = build().save(tmp_path / "model.onnx")
    folder, manifest = applied("partition", model, Calibration())
    cut = manifest["did"][0]
    assert len(cut["tensors"]) == 2 and cut["place"].startswith("at the start of sub-graph")
    assert min(cut["head_bytes"], cut["tail_bytes"]) > 0.2 * model.stat().st_size
    feed = _feed(model)
    expected, made = outputs(model, feed), chained(folder, feed)
    # Channels that fill no blocks of 16 are added in another order.
    assert build is long_skip or same_bits(expected, made)
    assert all(relative_error(expected[name], made[name]) < 1e-5 for name in expected)


def test_a_head_that_hands_on_an_input_is_quantized(tmp_path: Path) -> None:
    model = late_input().save(tmp_path / "model.onnx")
    feeds = [_feed(model) for _ in range(8)]
    calibration = Calibration([(feed["x"], np.asarray(np.abs(feed["temperature"]) + 1)) for feed in feeds])
    folder, _ = applied("partition, static_ptq", model, calibration)
    feed = {"x": feeds[0]["x"], "temperature": np.array(1.5, np.float32)}
    head = outputs(folder / "head.onnx", feed)
    assert head["temperature"] == np.float32(1.5)
    assert relative_error(outputs(model, feed)["y"], chained(folder, feed)["y"]) < 0.1


def test_an_input_of_unknown_shape_is_handed_on(tmp_path: Path) -> None:
    model = late_input().model()
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    folder, _ = applied("partition", tmp_path / "model.onnx", Calibration())
    feed = {"x": RANDOM.normal(size=(1, WIDTH)).astype(np.float32), "temperature": np.array(1.5, np.float32)}
    assert same_bits(outputs(tmp_path / "model.onnx", feed), chained(folder, feed))


def test_layers_with_different_masks_repeat_in_pairs(tmp_path: Path) -> None:
    analysis = analyse(masked_encoder(masks=2).save(tmp_path / "model.onnx"))
    assert [len(run.blocks) for run in analysis.runs] == [2]


def test_blocks_that_give_more_than_one_tensor_are_no_run(tmp_path: Path) -> None:
    """The first layer of each pair makes a bias that all later ones add: skipping it would leave them without."""
    network = Network()
    current = network.input("x", [1, WIDTH])
    biases: list[str] = []
    for _ in range(4):
        biases.append(network.add("MatMul", current, network.normal(WIDTH, WIDTH)))
        inner = network.add("Relu", network.add("MatMul", current, network.normal(WIDTH, WIDTH)))
        current = network.add("Add", inner, current)
    network.add("Sum", current, *biases, out="y")
    network.output("y", [1, WIDTH])
    with pytest.raises(PassRefusal, match="no two consecutive identical branching sub-graphs"):
        choose_exit(analyse(network.save(tmp_path / "model.onnx")), 2)


def _sorted_by_distance(model: Path) -> Path:
    """Write the nodes in the order of their distance from the inputs, as quantizers do."""
    sorted_model = onnx.load(model)
    distance: dict[str, int] = {}
    nodes = list(sorted_model.graph.node)
    for node in nodes:
        own = 1 + max((distance.get(name, 0) for name in node.input), default=0)
        distance |= dict.fromkeys(node.output, own)
    del sorted_model.graph.node[:]
    sorted_model.graph.node.extend(sorted(nodes, key=lambda node: distance[node.output[0]]))
    onnx.save(sorted_model, model.with_name("sorted.onnx"))
    return model.with_name("sorted.onnx")


def test_layers_repeat_in_whatever_order_a_tool_writes_what_they_read_of_the_encoder(tmp_path: Path) -> None:
    in_order = encoder_decoder().save(tmp_path / "model.onnx")
    model = _sorted_by_distance(in_order)
    exit_ = choose_exit(analyse(model), 2)
    assert exit_.result == choose_exit(analyse(in_order), 2).result
    folder, _ = applied("early_exit", model, Calibration())
    feed = _feed(model)
    rewired = outputs(_rewired(model, exit_.entry.name, exit_.result.name), feed)
    assert relative_error(rewired["scores"], outputs(folder / "model.onnx", feed)["scores"]) < 1e-5


def test_a_quantized_decoder_that_reads_an_encoder_exits_and_is_cut_as_its_floats_are(tmp_path: Path) -> None:
    model = encoder_decoder().save(tmp_path / "model.onnx")
    feeds = [_feed(model) for _ in range(8)]
    calibration = Calibration([tuple(feed.values()) for feed in feeds])
    shortened, manifest = applied("early_exit", model, Calibration())
    operator = "static_ptq, early_exit, partition: {cut: any}"
    parts, quantized = applied(operator, model.rename(tmp_path / "int8.onnx"), calibration)
    assert len(quantized["did"][1]["skipped"]) == len(manifest["did"][0]["skipped"]) == 2
    assert quantized["proof"]["composition"]["bit_identical"]
    exact = outputs(shortened / "model.onnx", feeds[0])["scores"]
    assert relative_error(exact, chained(parts, feeds[0])["scores"]) < 0.2


def test_a_refused_exit_names_the_outputs_that_leave_between_blocks(tmp_path: Path) -> None:
    network = Network()
    current = network.input("x", [1, 8, 12, 12])
    for number in range(3):
        inner = network.conv(network.add("Relu", network.conv(current, 8)), 8)
        current = network.add("Relu", network.add("Add", inner, current))
        network.add("GlobalAveragePool", current, out=f"exit{number}")
        network.output(f"exit{number}", [1, 8, 1, 1])
    with pytest.raises(PassRefusal, match=r"the model has 3 outputs \(exit0, exit1, exit2\), which may hide"):
        choose_exit(analyse(network.save(tmp_path / "model.onnx")), 2)
