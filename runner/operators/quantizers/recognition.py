"""What the quantizing tools read of a model: the factors and biases of its nodes, and whether it can be quantized.

Float models with a node that a tool quantizes can be quantized.
"""

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from runner.graph.model_file import tensors_in
from runner.operators.base import PassRefusal

# By name, in whatever domain: ONNX's own nodes, those of ONNX Runtime's quantizers, and its 4- and 8-bit kernels.
_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
    | {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "MatMulInteger16", "MulInteger"}
    | {"ReduceSumInteger", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized", "QGemm", "QMoE", "QAttention"}
    | {"QEmbedLayerNormalization", "QuantizeBFP", "DequantizeBFP", "QuantizeWithOrder", "DequantizeWithOrder"}
)
# Families: MatMulNBitsMlp, QLinearConv, QOrderedGelu, MatMulBlockQuantizedFp8Weight and others of these beginnings.
_QUANTIZED_FAMILIES = ("QLinear", "QOrdered", "MatMulNBits", "MatMulBlockQuantized")
# What onnxruntime.quantization quantizes in either format; its registry is not imported to look ahead.
QUANTIZABLE = frozenset(
    {"Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum"}
    | {"EmbedLayerNormalization", "Flatten", "Gather", "GatherElements", "Gemm", "GlobalAveragePool"}
    | {"InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu"}
    | {"Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze"}
    | {"Where"}
)
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def quantized_nodes(model: onnx.ModelProto) -> Counter[str]:
    """Count the nodes that only quantized models have, by op_type."""
    return Counter(
        node.op_type
        for node in _nodes(model)
        if node.op_type in _QUANTIZED or node.op_type.startswith(_QUANTIZED_FAMILIES)
    )


def refuse_unquantizable(model: onnx.ModelProto) -> None:
    """Raise PassRefusal for a model that is quantized already or has nothing to quantize."""
    counts = quantized_nodes(model)
    if counts:
        kinds = ", ".join(f"{count} {op_type}" for op_type, count in counts.most_common(3))
        raise PassRefusal(f"static_ptq quantizes float models; this one is quantized already ({kinds})")
    if _computes_in_doubles(model):
        raise PassRefusal(
            "static_ptq quantizes numbers of 32 and 16 bits, and the weights of this model are float64; "
            "export it in float32"
        )
    # Functions are inlined before the tool runs; into bodies of control flow it does not look.
    outside = (*model.graph.node, *(node for function in model.functions for node in function.node))
    if not any(map(_is_quantizable, outside)):
        raise PassRefusal(nothing_to_quantize(model))


def _computes_in_doubles(model: onnx.ModelProto) -> bool:
    """Return whether all matrices and kernels of real numbers have 64 bits."""
    kinds = {tensor.data_type for tensor in tensors_in(model) if len(tensor.dims) > 1}
    floats = kinds & {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    return floats == {TensorProto.DOUBLE}


def nothing_to_quantize(model: onnx.ModelProto, tool: str = "onnxruntime") -> str:
    """Return why a tool quantizes nothing of a model, with the first kinds of nodes by name."""
    kinds = sorted({node.op_type for node in _nodes(model)})
    control_flow = [kind for kind in kinds if kind in _CONTROL_FLOW]
    if control_flow and any(map(_is_quantizable, _nodes(model))):
        return (
            f"static_ptq: what {tool} could quantize is inside {', '.join(control_flow)}, whose bodies it leaves as "
            "they are; export the model without control flow"
        )
    return f"static_ptq found no operator that {tool} quantizes among: {', '.join(kinds[:8])}"


def _is_quantizable(node: onnx.NodeProto) -> bool:
    return node.op_type in QUANTIZABLE and node.domain in _DOMAINS


def input_names(graph: onnx.GraphProto) -> list[str]:
    """Return the inputs that are not initializers."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in initializers]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Iterate over the nodes of the graph, of bodies at any depth and of functions."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node
            waiting += [inner for graph in attribute.graphs for inner in graph.node]


# A factor at input 1 and, except for MatMul, a bias at input 2.
FACTORED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
READERS_OF_BIAS = ("Conv", "ConvTranspose", "Gemm")


def bias_of(node: onnx.NodeProto) -> str:
    """Return the name of a node's bias; empty where it has none."""
    return node.input[2] if node.op_type in READERS_OF_BIAS and len(node.input) > 2 else ""


def is_transposed(node: onnx.NodeProto) -> bool:
    """Return whether a Gemm takes its factor transposed."""
    return any(entry.name == "transB" and entry.i for entry in node.attribute)
