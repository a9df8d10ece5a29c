"""Which cuts ONNX Runtime reproduces bit by bit, by what its optimiser does to head and tail.

Its blocked layout (NCHWc) fuses a residual addition into the first convolution that feeds it, where it can tell that
both summands have one shape. A cut keeps that up when the tail can still do the same: with an identity pooling on each
feature map (`rewriting.split`), whose channels fill whole blocks, and with the fused convolution beside its addition.
Found by comparing outputs of ONNX Runtime 1.32; the proof beside each artifact checks it again.

The pooling is no identity for what is not finite (-inf becomes the least float), so only feature maps that stay finite
for finite inputs get one.
"""

from collections.abc import Sequence

from onnx import TensorProto

from runner.graph.structure import Structure

# Blocks hold 8 channels on AVX2 and 16 on AVX-512; whole blocks of 16 are whole blocks of 8.
_BLOCK_CHANNELS = 16
_ADDITIONS = frozenset({"Add", "Sum"})
_FUSED_WITH_ADDITION = frozenset({"Conv", "MatMul", "Gemm"})


def is_exact(structure: Structure, cut: Sequence[str]) -> bool:
    """Whether head and tail are expected to compute the same bits as the whole."""
    floats = [name for name in cut if structure.types[name].elem_type == TensorProto.FLOAT]
    if any(_is_fused_away(structure, name) for name in floats):
        return False
    maps = [dims for name in floats if (dims := structure.types[name].dims) is not None and len(dims) == 4]
    if maps and not structure.possibly_infinite.isdisjoint(floats):
        return False  # without an identity pooling nothing tells what the optimiser makes of the tail
    if len(maps) > 1 and any(isinstance(size, str) for dims in maps for size in dims):
        return False  # two inputs of the tail, and nothing tells it that they match
    return all(isinstance(dims[1], int) and dims[1] % _BLOCK_CHANNELS == 0 for dims in maps)


def _is_fused_away(structure: Structure, name: str) -> bool:
    """Whether the whole model computes this tensor only within the addition that follows."""
    if not _is_weighted(structure, name):
        return False
    for user in structure.consumers.get(name, ()):
        node = structure.nodes[user]
        if node.op_type in _ADDITIONS and name == next(each for each in node.input if _is_weighted(structure, each)):
            return True
    return False


def _is_weighted(structure: Structure, name: str) -> bool:
    """Whether a convolution or matrix product makes this tensor, a BatchNorm folded into it or not."""
    index = structure.producer.get(name)
    if index is not None and structure.nodes[index].op_type == "BatchNormalization":
        index = structure.producer.get(structure.nodes[index].input[0])
    return index is not None and structure.nodes[index].op_type in _FUSED_WITH_ADDITION
