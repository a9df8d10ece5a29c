"""What the analysis finds: sub-graphs, runs, exits, cuts."""

from collections.abc import Iterable
from cProfile import Profile
from pathlib import Path

import numpy as np
import onnx
import pytest

from runner.graph.analysis import GraphAnalysis, analyse
from runner.subjects.embedded.datasets import BUILTIN


def names_of(analysis: GraphAnalysis, run: int = 0) -> list[str]:
    return [block.name for block in analysis.runs[run].blocks]


def test_only_branching_regions_with_weights_are_sub_graphs(network, tmp_path: Path) -> None:
    build = network()
    swish = build.conv("input", "stem")
    swish = build.node("Mul", swish, build.node("Sigmoid", swish))
    chain = build.conv(build.block(swish, "layer1.0"), "head")
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(chain)))
    assert [(sub_graph.number, sub_graph.name) for sub_graph in analysis.sub_graphs] == [(1, "layer1.0")]
    assert sum(len(segment.nodes) for segment in analysis.skeleton) == analysis.node_count == len(build.nodes)


def test_the_last_run_is_the_last_and_a_projected_block_does_not_belong_to_it(residual: Path) -> None:
    analysis = analyse(residual)
    assert names_of(analysis) == ["layer2.0", "layer2.1", "layer2.2"]
    assert [[block.name for block in exit.blocks] for exit in analysis.exits] == [
        ["layer2.2"], ["layer2.1", "layer2.2"], ["layer2.0", "layer2.1", "layer2.2"],
    ]  # fmt: skip
    assert analysis.exits[1].saved_bytes == pytest.approx(2 * analysis.exits[0].saved_bytes, rel=0.01)


def test_blocks_whose_weights_share_one_scope_have_names_that_tell_them_apart(network, tmp_path: Path) -> None:
    build = network()
    current = build.conv("input", "stem")
    for number in range(3):
        current = build.block(current, f"layer{number}")
    # An exporter of functions scopes the nodes by layer, and weights by the module that holds all layers.
    names = {tensor.name: "trunk." + tensor.name.replace("/", "_") for tensor in build.initializers}
    for tensor in build.initializers:
        tensor.name = names[tensor.name]
    for node in build.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.name = node.name.removeprefix("/").replace("/", "_")
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(current)))
    assert names_of(analysis) == ["layer0_conv1_Conv", "layer1_conv1_Conv", "layer2_conv1_Conv"]
    assert [sub_graph.name for sub_graph in analysis.sub_graphs] == names_of(analysis)


def test_dilations_are_no_structure_but_kernels_and_widths_are(network, tmp_path: Path) -> None:
    build = network()
    current = build.conv("input", "stem")
    for number, dilation in enumerate((1, 2, 5)):
        current = build.block(current, f"dilated.{number}", dilation=dilation)
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(current)))
    assert names_of(analysis) == ["dilated.0", "dilated.1", "dilated.2"]

    build = network()
    current = build.block(build.conv("input", "stem"), "a")
    inner = build.conv(build.node("Relu", build.conv(current, "b/conv1", kernel=1)), "b/conv2")
    current = build.node("Relu", build.node("Add", inner, current))
    assert analyse(build.save(tmp_path / "k.onnx", build.classifier(current))).runs == ()


def test_the_order_of_an_addition_is_no_structure(network, tmp_path: Path) -> None:
    build = network()
    current = build.block(build.conv("input", "stem"), "a.0")
    inner = build.conv(build.node("Relu", build.conv(current, "a.1/conv1")), "a.1/conv2")
    current = build.node("Relu", build.node("Add", current, inner))
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(current)))
    assert len(analysis.runs[0].blocks) == 2


def test_a_unit_of_two_sub_graphs_repeats_as_one(network, tmp_path: Path) -> None:
    build = network()
    current = build.conv("input", "stem")
    for number in range(3):
        current = build.projected(build.block(current, f"layer.{number}/a"), f"layer.{number}/b")
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(current)))
    assert len(analysis.runs[0].blocks) == 3
    assert analysis.exits[0].saved_bytes == analysis.runs[0].blocks[-1].size_bytes


def test_free_dimensions_are_compared_exactly(network, tmp_path: Path) -> None:
    build = network(size=(1, 8, "height", "width"))
    weights = build.normal("down.weight", 8, 8, 3, 3)
    current = build.node("Conv", "input", weights, name="down", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    for number in range(2):
        current = build.block(current, f"same.{number}")
    narrow = build.normal("narrow.weight", 8, 8, 3, 3)
    shrunk = build.node("Conv", current, narrow, name="narrow", kernel_shape=[3, 3])
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(build.node("Relu", shrunk))))
    assert names_of(analysis) == ["same.0", "same.1"]
    assert analysis.runs[0].tensor.shape == (1, 8, "(height-1)//2+1", "(width-1)//2+1")
    shapes = {tensor.name: tensor.shape for cut in analysis.cuts for tensor in cut.tensors}
    assert shapes["relu" + str(len(build.nodes) - 4)] == (1, 8, "(height-1)//2-1", "(width-1)//2-1")


def test_pinned_dimensions_give_bytes(network, tmp_path: Path) -> None:
    build = network(size=(1, 8, "height", "width"))
    path = build.save(tmp_path / "m.onnx", build.classifier(build.block(build.conv("input", "stem"), "a")))
    assert {cut.crossing_bytes for cut in analyse(path).cuts if cut.tensors[0].name == "a/relu2"} == {None}
    pinned = analyse(path, sizes={"height": 10, "width": 6})
    assert {cut.crossing_bytes for cut in pinned.cuts if cut.tensors[0].name == "a/relu2"} == {8 * 60 * 4}


def test_paper_cuts_leave_the_identity_branch_whole(residual: Path) -> None:
    analysis = analyse(residual)
    identity = {"layer1.0/relu2", "layer2.0/relu2", "layer2.1/relu2"}
    for cut in analysis.cuts:
        if len(cut.tensors) > 1 and identity & {tensor.name for tensor in cut.tensors}:
            assert not cut.paper
    inner = [
        cut
        for cut in analysis.cuts
        if {tensor.name for tensor in cut.tensors} == {"layer1.0/relu1", "layer1.0/shortcut"}
    ]
    assert [cut.paper for cut in inner] == [True]
    assert analysis.place_of(inner[0]) == "inside sub-graph 4 from the end (layer1.0)"


def test_every_cut_carries_all_that_the_tail_needs_and_counts_every_byte(residual: Path) -> None:
    """Against an independent walk over the graph: the tail must not reach the input except through the cut."""
    graph = onnx.load(residual).graph
    producer = {name: node for node in graph.node for name in node.output}
    sizes = {tensor.name: tensor.ByteSize() for tensor in graph.initializer}
    analysis = analyse(residual)
    assert len(analysis.cuts) > 15
    for cut in analysis.cuts:
        stop = {tensor.name for tensor in cut.tensors}
        tail = _reached(producer, [value.name for value in graph.output], stop)
        head = _reached(producer, stop, set())
        assert "input" not in tail
        for side, bytes_ in ((tail, cut.tail_bytes), (head, cut.head_bytes)):
            weights = sum(size for name, size in sizes.items() if name in side)
            assert 0 < bytes_ - weights < 200 * len(graph.node)
    assert [cut.difference_bytes for cut in analysis.cuts] == sorted(cut.difference_bytes for cut in analysis.cuts)


def _reached(producer: dict[str, onnx.NodeProto], names: Iterable[str], stop: set[str]) -> set[str]:
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in producer:
            waiting += [read for read in producer[name].input if read not in stop]
    return seen


def test_no_cut_between_a_convolution_and_its_batchnorm(network, tmp_path: Path) -> None:
    build = network()
    current = "input"
    for number in range(3):
        conv = build.conv(current, f"conv{number}")
        scale = [
            build.weight(f"bn{number}.{part}", np.ones(8, np.float32)) for part in ("scale", "bias", "mean", "var")
        ]
        current = build.node(
            "Relu", build.node("BatchNormalization", conv, *scale, name=f"bn{number}"), name=f"relu{number}"
        )
    analysis = analyse(build.save(tmp_path / "m.onnx", build.classifier(current)))
    cuttable = {tensor.name for cut in analysis.cuts for tensor in cut.tensors}
    assert {"relu0", "relu1", "relu2"} <= cuttable
    assert not cuttable & {"conv0", "conv1", "conv2", "bn0", "bn1", "bn2"}


def test_a_shape_branch_is_carried_as_one_small_tensor() -> None:
    analysis = analyse(BUILTIN / "canvas-fcn.onnx", sizes={"height": 64, "width": 96})
    cut = analysis.best_cut()
    assert cut is not None
    assert [(tensor.dtype, tensor.shape) for tensor in cut.side] == [("int64", (2,))]
    assert analysis.place_of(cut) == "at the start of sub-graph 3 from the end (backbone.3.2)"
    assert cut.crossing_bytes == 192 * 16 * 24 * 4 + 16


@pytest.mark.parametrize("subject", ["fashion-resnet", "canvas-fcn"])
def test_embedded_subjects(subject: str) -> None:
    analysis = analyse(BUILTIN / f"{subject}.onnx")
    assert names_of(analysis) == ["backbone.3.1", "backbone.3.2", "backbone.3.3", "backbone.3.4"]
    assert analysis.size_bytes == (BUILTIN / f"{subject}.onnx").stat().st_size


def test_the_work_grows_with_the_nodes_and_no_faster(network, tmp_path: Path) -> None:
    calls: list[int] = []
    for blocks in (250, 1000):
        build = network(channels=4, size=(1, 4, 8, 8))
        current = build.conv("input", "stem")
        for number in range(blocks):
            current = build.block(current, f"layer.{number}")
        path = build.save(tmp_path / "m.onnx", build.classifier(current))
        profile = Profile()
        analysis = profile.runcall(analyse, path)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
        assert analysis.node_count == 5 * blocks + 4
        assert len(analysis.runs[0].blocks) == blocks
    # Counted, not timed: a busy machine calls as often as an idle one (seconds are in benchmarks/operators.py).
    assert calls[1] < 4.4 * calls[0]


def test_no_cut_takes_an_output_of_the_model(network, tmp_path: Path) -> None:
    build = network()
    early = build.block(build.conv("input", "stem"), "a")
    late = build.block(early, "b")
    path = build.save(tmp_path / "m.onnx", early, late)
    analysis = analyse(path)
    assert all(early not in {tensor.name for tensor in cut.tensors} for cut in analysis.cuts)
    assert len(analysis.outputs) == 2
