"""Small real networks, and their outputs in the real engine."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import docker
import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Builds a network node by node; every layer method takes a tensor's name and returns one."""

    def __init__(self, *, channels: int = 8, size: tuple[int | str, ...] = (1, 8, 16, 16)) -> None:
        self.channels = channels
        self.inputs: dict[str, tuple[int | str, ...]] = {"input": size}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, op_type: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: object) -> str:
        name = name or f"{op_type.lower()}{len(self.nodes)}"
        results = [name] + [f"{name}:{index}" for index in range(1, outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, results, name=f"/{name}/{op_type}", **attributes))
        return name

    def weight(self, name: str, array: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, name: str, *shape: int) -> str:
        fan = float(np.prod(shape[1:])) if len(shape) > 1 else 4.0
        return self.weight(name, (self._random.normal(size=shape) / np.sqrt(fan)).astype(np.float32))

    def conv(
        self, source: str, name: str, *, wide: int = 0, narrow: int = 0, kernel: int = 3, dilation: int = 1
    ) -> str:
        wide, narrow = wide or self.channels, narrow or self.channels
        weights = [self.normal(f"{name}.weight", wide, narrow, kernel, kernel), self.normal(f"{name}.bias", wide)]
        pads = [dilation * (kernel // 2)] * 4
        return self.node(
            "Conv", source, *weights, name=name, kernel_shape=[kernel] * 2, pads=pads, dilations=[dilation] * 2
        )

    def block(self, source: str, name: str, *, dilation: int = 1) -> str:
        """Add a residual block: two convolutions beside an identity branch, and a Relu after."""
        inner = self.node("Relu", self.conv(source, f"{name}/conv1", dilation=dilation), name=f"{name}/relu1")
        inner = self.conv(inner, f"{name}/conv2", dilation=dilation)
        return self.node("Relu", self.node("Add", inner, source, name=f"{name}/add"), name=f"{name}/relu2")

    def projected(self, source: str, name: str) -> str:
        """Add a residual block with a convolution on each branch."""
        inner = self.node("Relu", self.conv(source, f"{name}/conv1"), name=f"{name}/relu1")
        inner = self.conv(inner, f"{name}/conv2")
        around = self.conv(source, f"{name}/shortcut", kernel=1)
        return self.node("Relu", self.node("Add", inner, around, name=f"{name}/add"), name=f"{name}/relu2")

    def classifier(self, source: str, *, classes: int = 4) -> str:
        flat = self.node("Flatten", self.node("GlobalAveragePool", source))
        return self.node("Gemm", flat, self.normal("fc.weight", classes, self.channels), name="scores", transB=1)

    def save(self, path: Path, *outputs: str) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in self.inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)  # fills in the outputs' shapes
        del model.graph.value_info[:]
        onnx.save(model, path)
        return path


def run_model(path: Path, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return the outputs by name, optimised as in a tier."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.fixture
def network() -> type[Network]:
    return Network


@pytest.fixture
def run() -> Callable[[Path, Mapping[str, NDArray[np.generic]]], dict[str, NDArray[np.generic]]]:
    return run_model


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """Write a network: stem, a projected block, three equal blocks `layer2.0` … `layer2.2`, a classifier."""
    build = Network(channels=16, size=(1, 16, 16, 16))
    current = build.projected(build.node("Relu", build.conv("input", "stem")), "layer1.0")
    for number in range(3):
        current = build.block(current, f"layer2.{number}")
    return build.save(tmp_path / "residual.onnx", build.classifier(current))


@pytest.fixture(scope="module")
def gateway() -> str:
    """Return the address of this machine that the containers of its engine reach.

    It is read from the bridge: an engine that has just been started for the first time does not name the gateway.
    """
    client = docker.from_env()
    bridge = client.networks.get("bridge").attrs["Options"]["com.docker.network.bridge.name"]
    client.close()
    return next(address.address for address in psutil.net_if_addrs()[bridge] if address.family == socket.AF_INET)
