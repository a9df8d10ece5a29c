"""Tensors that may hold infinities, from the constants and attributes of the nodes that compute them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper

from runner.graph.structure import infinite_tensors

INF = np.float32(np.inf)


def node(op_type: str, *constants: str, **attributes: float) -> NodeProto:
    return helper.make_node(op_type, ["x", *constants], ["y"], **attributes)


def vector(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("made", "constants"),
    [
        (node("Conv", "w", "b"), {"b": vector(0, -INF)}),
        (node("Gemm", "w", "b"), {"b": vector(np.nan)}),
        (node("BatchNormalization", "s", "b", "m", "v"), {"b": vector(0, -INF)}),
        (node("Mul", "c"), {"c": vector(-1e38)}),
        (node("Add", "c"), {"c": vector(0, -INF)}),
        (node("LeakyRelu", alpha=float("inf")), {}),
        (node("Log"), {}),
    ],
)
def test_a_tensor_behind_what_is_not_finite_may_be_infinite(
    made: NodeProto, constants: dict[str, NDArray[np.float32]]
) -> None:
    behind = helper.make_node("Relu", ["y"], ["z"])
    assert infinite_tensors([made, behind], constants.get) == {"y", "z"}


@pytest.mark.parametrize(
    ("made", "constants"),
    [
        (node("Conv", "w", "b"), {"b": vector(0, 1)}),
        (node("BatchNormalization", "s", "b", "m", "v"), {"b": vector(0, -1e4)}),
        (node("Mul", "c"), {"c": vector(1e4)}),
        (node("Add", "c"), {"c": vector(0, -3.4e38)}),
        (node("LeakyRelu", alpha=0.1), {}),
        (node("Div", "c"), {"c": vector(0.5)}),
    ],
)
def test_a_tensor_of_ordinary_numbers_is_finite(made: NodeProto, constants: dict[str, NDArray[np.float32]]) -> None:
    assert infinite_tensors([made], constants.get) == frozenset()
