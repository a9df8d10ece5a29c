"""static_ptq, compared with float: numbers that int8 cannot stand for, and weights that are read in several ways."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from catalog.artifact_details import output_distance
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.graph.model_file import read_model
from runner.operators.base import PassRefusal, QuantizationSettings
from runner.operators.quantizers import onnx_runtime
from runner.operators.quantizers.preparation import FirstPart, prepare
from runner.operators.quantizers.ranges import unusable_scale
from runner.operators.registry import make_pass

FORMATS = ["qdq", "qoperator"]


class Network:
    """A small network under construction: every call adds a node and returns the name of its output."""

    def __init__(self, shape: list[int], elem_type: int = TensorProto.FLOAT) -> None:
        self.inputs = [helper.make_tensor_value_info("input", elem_type, shape)]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(0)

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        # Without a name of its own, as many exporters leave them.
        output = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self._random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))

    def save(self, path: Path, output: str, shape: list[int]) -> Path:
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "small", self.inputs, outputs, self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def quantized(model: Path, store: Path, **options: object) -> CachedArtifact:
    value = onnx.load(model).graph.input[0].type.tensor_type
    shape = [size.dim_value for size in value.shape.dim]
    random = np.random.default_rng(1)
    inputs = [
        random.normal(size=shape).astype(np.float32)
        if value.elem_type == TensorProto.FLOAT
        else random.integers(0, 20, size=shape)
        for _ in range(32)
    ]
    passes = [make_pass("static_ptq", {"calibration_samples": 32, **options})]
    return ArtifactStore(store).build("key", model=model, passes=passes, calibration=lambda count: inputs[:count])


def relative_error(artifact: CachedArtifact) -> float:
    assert artifact.reason is None
    distance = output_distance(artifact.details)
    assert distance is not None and distance.relative_error is not None
    return distance.relative_error


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("low", "high"), [(0.5, None), (None, -0.5), (0.5, 2.0)])
def test_a_clip_that_leaves_out_zero_stays(format: str, low: float | None, high: float | None, tmp_path: Path) -> None:
    net = Network([1, 32])
    hidden = net("Relu", net("Gemm", "input", net.weight(32, 32), net.weight(32)))
    size = net("MatMul", hidden, net.constant(np.full((32, 1), 0.005, np.float32)))
    if low is None:
        size = net("Neg", size)
    bounds = ["" if bound is None else net.constant(np.float32(bound)) for bound in (low, high)]
    scores = net("Gemm", net("Div", hidden, net("Clip", size, *bounds)), net.weight(32, 10))
    artifact = quantized(net.save(tmp_path / "m.onnx", scores, [1, 10]), tmp_path / "store", format=format)
    assert relative_error(artifact) < 0.1
    assert "Clip" in {node.op_type for node in onnx.load(artifact.path(0)).graph.node}


def test_a_clip_at_zero_is_absorbed(tmp_path: Path) -> None:
    net = Network([1, 32])
    hidden = net("Clip", net("Gemm", "input", net.weight(32, 32)), net.constant(np.float32(0)))
    model = net.save(tmp_path / "m.onnx", net("Gemm", hidden, net.weight(32, 10)), [1, 10])
    artifact = quantized(model, tmp_path / "store")
    assert relative_error(artifact) < 0.1
    assert "Clip" not in {node.op_type for node in onnx.load(artifact.path(0)).graph.node}
    assert "left_in_float" not in artifact.details["passes"][0]["quantized"][0]


def attention(path: Path, mask: float, how: str) -> Path:
    """Two layers of one head each; later positions are masked by a constant, by a Where, or by what a node computes."""
    net = Network([1, 16, 32])
    upper = np.triu(np.ones((1, 16, 16), np.float32), 1)
    hidden = "input"
    for _ in range(2):
        query, key, value = (net("MatMul", hidden, net.weight(32, 32)) for _ in range(3))
        scores = net("MatMul", query, net("Transpose", key, perm=[0, 2, 1]))
        if how == "added":
            with np.errstate(invalid="ignore"):
                scores = net("Add", scores, net.constant(np.where(upper > 0, np.float32(mask), np.float32(0))))
        elif how == "chosen":
            scores = net("Where", net.constant(upper > 0), net.constant(np.float32(mask)), scores)
        else:
            masks = net(
                "Mul",
                net("Unsqueeze", net.constant(upper[0]), net.constant(np.array([0]))),
                net.constant(np.float32(mask)),
            )
            scores = net("Add", scores, masks)
        mixed = net("MatMul", net("Softmax", scores, axis=-1), value)
        ones, zeros = net.constant(np.ones(32, np.float32)), net.constant(np.zeros(32, np.float32))
        hidden = net("LayerNormalization", net("Add", hidden, mixed), ones, zeros)
    return net.save(path, hidden, [1, 16, 32])


MASKS = [
    (mask, how)
    for mask in (-np.inf, float(np.finfo(np.float32).min), -65504.0, -1e9, -1e4, -1e3)
    for how in ("added", "chosen", "computed")
    if not (np.isinf(mask) and how == "computed")  # 0 times infinity is no number
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("mask", "how"), MASKS)
def test_masks_stay_in_floats(mask: float, how: str, format: str, tmp_path: Path) -> None:
    artifact = quantized(attention(tmp_path / "m.onnx", mask, how), tmp_path / "store", format=format)
    assert relative_error(artifact) < 0.12
    assert artifact.details["passes"][0]["quantized"][0]["left_in_float"]


@pytest.mark.parametrize("scale", [np.inf, np.nan, 0.0, -1.0])
def test_a_scale_that_is_no_number_is_told(scale: float, tmp_path: Path) -> None:
    net = Network([1, 8])
    scales = [net.constant(np.full(8, value, np.float32)) for value in (0.1, scale)]
    zeros = net.constant(np.zeros(8, np.uint8))
    integers = net("QuantizeLinear", "input", scales[0], zeros, axis=1)
    model = net.save(tmp_path / "m.onnx", net("DequantizeLinear", integers, scales[1], zeros, axis=1), [1, 8])
    assert unusable_scale(read_model(model)) == f"'{scales[1]}' is {scale:g}"


def embedding(path: Path) -> Path:
    """Words are looked up in the matrix that the scores are computed with."""
    net = Network([1, 8], TensorProto.INT64)
    words = net.weight(20, 16)
    hidden = net("Relu", net("MatMul", net("Gather", words, "input"), net.weight(16, 16)))
    rows = net("Reshape", hidden, net.constant(np.array([8, 16])))
    return net.save(path, net("Gemm", rows, words, transB=1), [8, 20])


def autoencoder(path: Path) -> Path:
    net = Network([1, 32])
    code = net.weight(32, 8)
    hidden = net("Relu", net("Gemm", "input", code))
    return net.save(path, net("Gemm", hidden, code, transB=1), [1, 32])


def transposed_autoencoder(path: Path) -> Path:
    net = Network([1, 32])
    code = net.weight(32, 8)
    hidden = net("Relu", net("Gemm", "input", code))
    return net.save(path, net("MatMul", hidden, net("Transpose", code, perm=[1, 0])), [1, 32])


def mirrored_convolution(path: Path) -> Path:
    net = Network([1, 6, 8, 8])
    kernels = net.weight(4, 6, 3, 3)
    hidden = net("Relu", net("Conv", "input", kernels, pads=[1] * 4))
    return net.save(path, net("ConvTranspose", hidden, kernels, pads=[1] * 4), [1, 6, 8, 8])


def bias_elsewhere(path: Path) -> Path:
    net = Network([1, 4, 8, 8])
    bias = net.weight(4)
    hidden = net("Relu", net("Conv", "input", net.weight(4, 4, 3, 3), bias, pads=[1] * 4))
    hidden = net("Conv", hidden, net.weight(4, 4, 3, 3), bias, pads=[1] * 4)
    return net.save(path, net("Add", hidden, net("Reshape", bias, net.constant(np.array([1, 4, 1, 1])))), [1, 4, 8, 8])


def factor_and_summand(path: Path) -> Path:
    net = Network([1, 8, 8])
    matrix = net.weight(8, 8)
    return net.save(path, net("Add", net("MatMul", "input", matrix), matrix), [1, 8, 8])


@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "network",
    [embedding, autoencoder, transposed_autoencoder, mirrored_convolution, bias_elsewhere, factor_and_summand],
)
@pytest.mark.timeout(120)
def test_weights_that_are_read_in_several_ways(network: Any, format: str, per_channel: bool, tmp_path: Path) -> None:
    artifact = quantized(network(tmp_path / "m.onnx"), tmp_path / "store", format=format, per_channel=per_channel)
    assert relative_error(artifact) < 0.15


def test_a_summand_as_large_as_what_it_is_added_to_is_quantized(tmp_path: Path) -> None:
    net = Network([1, 32])
    hidden = net("Mul", net("Gemm", "input", net.weight(32, 32)), net.constant(np.float32(100)))
    shifted = net("Relu", net("Add", hidden, net.constant(np.full(32, 250, np.float32))))
    artifact = quantized(
        net.save(tmp_path / "m.onnx", net("Gemm", shifted, net.weight(32, 10)), [1, 10]), tmp_path / "s"
    )
    assert relative_error(artifact) < 0.1
    assert "left_in_float" not in artifact.details["passes"][0]["quantized"][0]


@pytest.mark.parametrize("format", FORMATS)
def test_infinities_and_nan_of_activations_stay_in_floats(format: str, tmp_path: Path) -> None:
    net = Network([1, 32])
    hidden = net("Relu", net("Gemm", "input", net.weight(32, 32), net.weight(32)))
    logarithm = net("Log", hidden)  # of zero: -inf
    nan = net("Sub", logarithm, logarithm)
    numbers = net("Where", net("IsNaN", nan), net.constant(np.float32(0)), hidden)
    artifact = quantized(
        net.save(tmp_path / "m.onnx", net("Gemm", numbers, net.weight(32, 10)), [1, 10]), tmp_path / "s", format=format
    )
    assert relative_error(artifact) < 0.1


def test_a_model_that_the_tool_refuses_is_inapplicable(tmp_path: Path) -> None:
    net = Network([1, 32])
    doubles = net("Cast", net("Gemm", "input", net.weight(32, 32)), to=TensorProto.DOUBLE)
    model = net.save(tmp_path / "m.onnx", net("Cast", doubles, to=TensorProto.FLOAT), [1, 32])
    source = prepare(
        model, tmp_path / "prepared", QuantizationSettings("qdq", per_channel=True, reduce_range=False)
    ).path
    feeds = FirstPart(["absent"], [np.zeros((1, 32), np.float32)])
    with pytest.raises(PassRefusal, match=r"onnxruntime\.quantization could not quantize the model: "):
        onnx_runtime.measure_ranges(source, feeds)
