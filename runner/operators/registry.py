"""The passes that a catalog may name: how each is made, and what it would do to an analysed model or why it refuses."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from runner.graph.analysis import Cut, Exit, GraphAnalysis
from runner.graph.model_file import read_model
from runner.graph.runtime import unserved_outputs
from runner.graph.structure import is_weight_node
from runner.host import Host, this_host
from runner.operators.base import Pass, PassRefusal, check_options
from runner.operators.early_exit import EarlyExit, choose_exit
from runner.operators.partition import Partition, choose_cut
from runner.operators.quantizers.recognition import refuse_unquantizable
from runner.operators.static_ptq import StaticPtq

# Each takes the options that `check_options` returns for its name.
_FACTORIES: Mapping[str, Callable[[Any, Host], Pass]] = {
    StaticPtq.name: StaticPtq.from_options,
    # Only quantization depends on the host, whose CPU decides whether 8-bit weights saturate.
    EarlyExit.name: lambda declared, _: EarlyExit(declared),
    Partition.name: lambda declared, _: Partition(declared),
}


def known_passes() -> tuple[str, ...]:
    """Return the names that `operators:` of a catalog may use."""
    return tuple(_FACTORIES)


def make_pass(name: str, options: Mapping[str, object], *, host: Host | None = None) -> Pass:
    """Build a pass from its declaration, for the CPU that will run the result (without `host`: this machine's).

    Raises
    ------
    OperatorError
        When the pass or one of its options is unknown, with what is allowed.
    """
    # Before the factory is looked up: what an unknown name should have been is said there.
    checked = check_options(name, options)
    return _FACTORIES[name](checked, host or this_host())


# What both tools quantize, and where a model's bytes usually are.
_QUANTIZED_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather")


@dataclass(frozen=True)
class Prospects:
    """The exit and the cut that the passes would take; where there is none, the text of the refusal.

    `quantizable` counts the operators with weights that are quantized, by op_type. `unserved` are outputs because of
    which no tier serves the model, though the passes may apply.
    """

    exit: Exit | None
    exit_refusal: str | None
    cut: Cut | None
    cut_refusal: str | None
    quantizable: Counter[str]
    quantization_refusal: str | None
    unserved: tuple[str, ...] = ()

    @property
    def refusals(self) -> dict[str, str]:
        """The refusals' texts by pass."""
        texts = {
            "static_ptq": self.quantization_refusal,
            "early_exit": self.exit_refusal,
            "partition": self.cut_refusal,
        }
        return {name: text for name, text in texts.items() if text is not None}


def look_ahead(analysis: GraphAnalysis, *, blocks: int = 2, paper: bool = True) -> Prospects:
    """Return what every pass would do to a model.

    Parameters
    ----------
    analysis
        The model's analysis.
    blocks
        How many blocks early_exit would skip.
    paper
        Whether partition leaves identity branches whole.

    Returns
    -------
    Prospects

    Examples
    --------
    >>> from runner.graph.analysis import analyse
    >>> from runner.subjects.embedded.registry import BUILTIN
    >>> look_ahead(analyse(BUILTIN / "fashion-resnet.onnx"), blocks=9).refusals["early_exit"][:20]
    'early_exit: 9 blocks'
    """
    early, early_refusal = None, None
    try:
        early = choose_exit(analysis, blocks)
    except PassRefusal as refusal:
        early_refusal = str(refusal)
    cut, cut_refusal = None, None
    try:
        cut = choose_cut(analysis, paper=paper)
    except PassRefusal as refusal:
        cut_refusal = str(refusal)
    # Read again, because an analysis does not keep the graph.
    model = read_model(analysis.path).model
    quantization_refusal = None
    try:
        refuse_unquantizable(model)
    except PassRefusal as refusal:
        quantization_refusal = str(refusal)
    return Prospects(
        early,
        early_refusal,
        cut,
        cut_refusal,
        _quantizable(model.graph),
        quantization_refusal,
        unserved_outputs(model.graph),
    )


def _quantizable(graph: onnx.GraphProto) -> Counter[str]:
    # A bias or a scale has one dimension; only matrices and kernels become int8.
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    weights |= {node.output[0] for node in graph.node if is_weight_node(node)}
    return Counter(
        node.op_type for node in graph.node if node.op_type in _QUANTIZED_TYPES and weights.intersection(node.input)
    )
