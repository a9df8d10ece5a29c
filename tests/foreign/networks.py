"""Networks of a few kilobytes as foreign exporters write them, and what the engine computes with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runner.artifacts.apply_operator import apply_operator, parse_pipeline
from runner.artifacts.calibration import Calibration
from runner.artifacts.store import ArtifactStore

Array = NDArray[np.generic]


class Network:
    """A graph under construction; `add` and `weight` return the names of tensors."""

    def __init__(self, *, opset: int = 17, **domains: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.opsets = [helper.make_opsetid("", opset)]
        self.opsets += [helper.make_opsetid(name.replace("_", "."), version) for name, version in domains.items()]
        self._random = np.random.default_rng(7)

    def input(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, values: object, name: str = "") -> str:
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.initializers.append(numpy_helper.from_array(array, name or f"w{len(self.initializers)}"))
        return self.initializers[-1].name

    def normal(self, *shape: int, name: str = "") -> str:
        fan = float(np.prod(shape[1:])) if len(shape) > 1 else 100.0
        return self.weight(self._random.normal(size=shape) / np.sqrt(fan), name)

    def add(self, op_type: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"t{len(self.nodes)}"
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=name, **attributes))
        return out

    def conv(self, source: str, channels: int, *, out: str = "", weights: Sequence[str] = ()) -> str:
        weights = weights or (self.normal(channels, channels, 3, 3), self.normal(channels))
        return self.add("Conv", source, *weights, out=out, kernel_shape=[3, 3], pads=[1] * 4)

    def residual(self, source: str, channels: int, count: int) -> str:
        """Add a stem and residual blocks of two convolutions."""
        current = self.add("Relu", self.conv(source, channels))
        for _ in range(count):
            inner = self.conv(self.add("Relu", self.conv(current, channels)), channels)
            current = self.add("Relu", self.add("Add", inner, current))
        return current

    def perceptrons(self, source: str, width: int, count: int) -> str:
        """Add residual blocks of two matrix products."""
        current = source
        for _ in range(count):
            inner = self.add("Relu", self.add("MatMul", current, self.normal(width, 2 * width)))
            current = self.add("Add", current, self.add("MatMul", inner, self.normal(2 * width, width)))
        return current

    def in_constants(self) -> None:
        """Move every initializer into a Constant node at the start."""
        constants = [
            helper.make_node("Constant", [], [tensor.name], value=tensor, name=f"Constant_{tensor.name}")
            for tensor in self.initializers
        ]
        self.nodes, self.initializers = constants + self.nodes, []

    def model(self, *, ir_version: int = 8) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "network", self.inputs, self.outputs, self.initializers)
        return helper.make_model(
            graph, opset_imports=self.opsets, functions=self.functions, ir_version=ir_version
        )  # fmt: skip

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


def samples(*shape: int, count: int = 8) -> Calibration:
    """Return normal inputs of a shape."""
    random = np.random.default_rng(1)
    return Calibration([random.normal(size=shape).astype(np.float32) for _ in range(count)], "normal numbers")


def applied(operator: str, model: Path, calibration: Calibration) -> tuple[Path, Mapping[str, Any]]:
    """Apply an operator; return the folder of the files and the manifest."""
    target = model.with_name(f"{model.stem}-made")
    store = ArtifactStore(model.with_name(f"{model.stem}-store"))
    return target, apply_operator(parse_pipeline(operator, None), model, target, calibration=calibration, store=store)


def outputs(path: Path, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs by name, optimised as in a tier."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def chained(folder: Path, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Return what the tail gives for what the head gives."""
    return outputs(folder / "tail.onnx", outputs(folder / "head.onnx", feed))


def same_bits(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
    """Return whether outputs agree in name, type, shape and every bit."""
    return expected.keys() == actual.keys() and all(
        (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())
        for array, other in ((array, actual[name]) for name, array in expected.items())
    )


def relative_error(expected: Array, actual: Array) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    one, other = expected.astype(np.float64), actual.astype(np.float64)
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))
