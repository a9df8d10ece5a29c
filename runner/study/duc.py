"""ResNet101-DUC-7, the study's semantic segmenter, written node by node: no framework exports it today.

A ResNet-101 whose last two stages keep the resolution and dilate instead (hybrid dilated convolution), four parallel
dilated convolutions as the head, and dense upsampling: each of the 1/8-resolution cells predicts 4 x 4 labels
(Wang et al. 2018, "Understanding Convolution for Semantic Segmentation", arXiv:1702.08502). BatchNorm stays apart from
its convolution, as in the ONNX zoo's file of that name, so that sizes agree.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
CLASSES = 19
CELL = 4
SIZE_PX = 800
_EXPANSION = 4
# The rates of DeepLab's pyramid, which the published network keeps.
_HEAD_DILATIONS = (6, 12, 18, 24)
# Uniform draws by a parameter's role; pixels come as 0..255 less their mean, with a variance of about 60².
_RANGES = {
    "scale": (0.9, 1.1),
    "residual": (0.2, 0.4),
    "offset": (-0.1, 0.1),
    "variance": (0.8, 1.2),
    "pixels": (3000.0, 4200.0),
}


@dataclass(frozen=True)
class DucStage:
    """A run of bottleneck blocks; the first has the stride, and the dilations repeat along the run."""

    blocks: int
    stride: int
    dilations: tuple[int, ...]


STAGES = (
    DucStage(blocks=3, stride=1, dilations=(1,)),
    DucStage(blocks=4, stride=2, dilations=(1,)),
    # Rates without a common factor reach every pixel between them (section 3.2 of the paper).
    DucStage(blocks=23, stride=1, dilations=(1, 2, 5, 9)),
    DucStage(blocks=3, stride=1, dilations=(5, 9, 17)),
)


@dataclass(frozen=True)
class Parameter:
    """An initializer that has a shape but no values yet; `role` says how to draw them."""

    name: str
    shape: tuple[int, ...]
    role: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass
class DucGraph:
    """The graph without its weights: 65 million numbers are drawn only when a file is written."""

    size_px: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node whose output has its name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def parameter(self, name: str, shape: tuple[int, ...], role: str) -> str:
        self.parameters.append(Parameter(name, shape, role))
        return name


def duc_architecture(*, width: int = 64, size_px: int = SIZE_PX) -> DucGraph:
    """Lay out the graph: 355 nodes; 65 144 192 weights at the published width of 64."""
    graph = DucGraph(size_px)
    value, channels = _stem(graph, width)
    for number, stage in enumerate(STAGES, start=2):
        for block in range(stage.blocks):
            inner = width * 2 ** (number - 2)
            dilation = stage.dilations[block % len(stage.dilations)]
            stride = stage.stride if block == 0 else 1
            value = _bottleneck(graph, value, f"stage{number}.{block}", channels, inner, stride, dilation)
            channels = inner * _EXPANSION
    _dense_upsampling(graph, value, channels)
    return graph


def write_duc(path: Path, *, seed: int = 0, width: int = 64, size_px: int = SIZE_PX) -> None:
    """Write the model with random weights that keep activations finite; the same seed gives the same bytes."""
    architecture = duc_architecture(width=width, size_px=size_px)
    image = helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1, 3, size_px, size_px])
    # Stem, pooling and the second stage halve the image once each, which leaves an eighth.
    cells = CELL**2 * (size_px // 8) ** 2
    labels = helper.make_tensor_value_info("seg_loss", onnx.TensorProto.FLOAT, [1, CLASSES, cells])
    graph = helper.make_graph(
        architecture.nodes, "ResNet101-DUC-7", [image], [labels], initializer=list(_initializers(architecture, seed))
    )
    # IR 8 is opset 17's; the newest would exclude older runtimes without need.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.producer_name = "tierwise"
    onnx.save(model, str(path))


def _stem(graph: DucGraph, width: int) -> tuple[str, int]:
    value = _convolved(graph, "data", "stem.0", 3, width, kernel=3, stride=2, variance="pixels")
    value = _convolved(graph, value, "stem.1", width, width, kernel=3)
    value = _convolved(graph, value, "stem.2", width, 2 * width, kernel=3)
    pooled = graph.add("MaxPool", [value], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return pooled, 2 * width


def _bottleneck(graph: DucGraph, value: str, name: str, channels: int, inner: int, stride: int, dilation: int) -> str:
    """Append 1x1, dilated 3x3 and 1x1 around a shortcut, which is projected where the shape changes."""
    outer = inner * _EXPANSION
    body = _convolved(graph, value, f"{name}.reduce", channels, inner, kernel=1, stride=stride)
    body = _convolved(graph, body, f"{name}.spatial", inner, inner, kernel=3, dilation=dilation)
    body = _convolved(graph, body, f"{name}.expand", inner, outer, kernel=1, relu=False, gamma="residual")
    if channels != outer or stride != 1:
        value = _convolved(graph, value, f"{name}.shortcut", channels, outer, kernel=1, stride=stride, relu=False)
    return graph.add("Relu", [graph.add("Add", [body, value], f"{name}.sum")], f"{name}.out")


def _convolved(
    graph: DucGraph,
    value: str,
    name: str,
    channels: int,
    outputs: int,
    *,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    relu: bool = True,
    gamma: str = "scale",
    variance: str = "variance",
) -> str:
    """Append a convolution without bias, BatchNorm, and mostly ReLU."""
    weight = graph.parameter(f"{name}.weight", (outputs, channels, kernel, kernel), "weight")
    result = graph.add("Conv", [value, weight], f"{name}.conv", **_geometry(kernel, stride, dilation))
    roles = {"gamma": gamma, "beta": "offset", "mean": "offset", "variance": variance}
    statistics = [graph.parameter(f"{name}.{statistic}", (outputs,), role) for statistic, role in roles.items()]
    result = graph.add("BatchNormalization", [result, *statistics], f"{name}.norm", epsilon=1e-5)
    return graph.add("Relu", [result], f"{name}.relu") if relu else result


def _geometry(kernel: int, stride: int, dilation: int) -> dict[str, object]:
    return {
        "kernel_shape": [kernel] * 2,
        "strides": [stride] * 2,
        "dilations": [dilation] * 2,
        # Pads as wide as the kernel reaches keep the resolution at stride 1.
        "pads": [dilation * (kernel // 2)] * 4,
    }


def _dense_upsampling(graph: DucGraph, value: str, channels: int) -> None:
    """Append four views of the same features, summed: per class 4 x 4 labels a cell, and softmax over classes."""
    outputs = CLASSES * CELL**2
    views = []
    for dilation in _HEAD_DILATIONS:
        name = f"head.{dilation}"
        weight = graph.parameter(f"{name}.weight", (outputs, channels, 3, 3), "logits")
        bias = graph.parameter(f"{name}.bias", (outputs,), "offset")
        views.append(graph.add("Conv", [value, weight, bias], name, **_geometry(3, 1, dilation)))
    total = graph.add("Sum", views, "head.sum")
    # [0, classes, -1]: the batch as it is, the classes apart, so that the softmax is over classes alone.
    shape = graph.parameter("head.shape", (3,), "shape")
    flat = graph.add("Reshape", [total, shape], "head.cells")
    graph.nodes.append(helper.make_node("Softmax", [flat], ["seg_loss"], name="head.softmax", axis=1))


def _initializers(architecture: DucGraph, seed: int) -> Iterator[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    for parameter in architecture.parameters:
        yield numpy_helper.from_array(_values(parameter, rng), parameter.name)


def _values(parameter: Parameter, rng: np.random.Generator) -> NDArray[np.generic]:
    """Draw He's initialisation, and the BatchNorm statistics that keep the signal from vanishing or exploding."""
    shape = parameter.shape
    if parameter.role == "shape":
        return np.array([0, CLASSES, -1], np.int64)
    if parameter.role in ("weight", "logits"):
        gain = 2.0 if parameter.role == "weight" else 0.02  # small logits: a softmax of large ones is all 0 and 1
        deviation = math.sqrt(gain / math.prod(shape[1:]))
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)
    low, high = _RANGES[parameter.role]
    return rng.uniform(low, high, shape).astype(np.float32)
