"""Which input of a node is a factor and which a bias, as the quantizing tools read them."""

import onnx

# A factor at input 1 and, except for MatMul, a bias at input 2.
FACTORED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
READERS_OF_BIAS = ("Conv", "ConvTranspose", "Gemm")


def bias_of(node: onnx.NodeProto) -> str:
    """Return the name of a node's bias; empty where it has none."""
    return node.input[2] if node.op_type in READERS_OF_BIAS and len(node.input) > 2 else ""


def is_transposed(node: onnx.NodeProto) -> bool:
    """Return whether a Gemm takes its factor transposed."""
    return any(entry.name == "transB" and entry.i for entry in node.attribute)
