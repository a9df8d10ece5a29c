"""The parameters and nodes of an artifact's files."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx

from catalog.graph_size import GraphSize
from runner.errors import ModelFileError
from runner.graph.model_file import read_model


def count_graph(parts: Iterable[Path]) -> GraphSize:
    """Count the parameters and nodes of an artifact's model files together.

    Examples
    --------
    >>> from runner.subjects.embedded.registry import BUILTIN
    >>> count_graph([BUILTIN / "fashion-resnet.onnx"]).nodes
    105
    """
    try:
        graphs = [read_model(part).graph for part in parts]
    except ModelFileError:
        # The engine may run what cannot be read here; that is no reason to refuse it.
        return GraphSize()
    return GraphSize(
        parameters=sum(_parameters(graph) for graph in graphs), nodes=sum(len(graph.node) for graph in graphs)
    )


def _parameters(graph: onnx.GraphProto) -> int:
    sparse = (tensor.dims for tensor in graph.sparse_initializer)
    return sum(map(_elements, (*(tensor.dims for tensor in graph.initializer), *sparse, *_constants(graph))))


def _constants(graph: onnx.GraphProto) -> Iterable[Sequence[int]]:
    """Yield the shapes of Constant nodes that hold a matrix or more: some exporters write weights so."""
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if len(attribute.t.dims) > 1:
                yield attribute.t.dims


def _elements(dims: Sequence[int]) -> int:
    # A scalar has no dimensions and one element.
    return math.prod(dims)
