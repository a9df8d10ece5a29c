"""The passes that a catalog may name: how each is made, and what it would do to an analysed model or why it refuses."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx

from runner.errors import ModelFileError
from runner.graph.analysis import Cut, Exit, GraphAnalysis
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import read_model
from runner.graph.runtime import emptiness, unserved_outputs
from runner.graph.states import find_states
from runner.graph.structure import Randomness, is_weight_node, pixel_inputs
from runner.host import Host, this_host
from runner.operators.base import Pass, PassRefusal, check_options
from runner.operators.early_exit import EarlyExit, choose_exit
from runner.operators.partition import Partition, choose_cut
from runner.operators.quantizers.normal_form import refuse_unquantizable
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


# Kinds of models of which a pass makes something else than it did, by pass, each with how often that has changed. A
# version speaks of all models; raised for one kind, it would make what was measured of the others missing.
_REVISIONS: Mapping[str, Mapping[str, int]] = {
    "states": {"static_ptq": 1, "early_exit": 1, "partition": 1},
    "normalized": {"partition": 1},
    "pixels": {"partition": 1},
    "random": {"partition": 1},
    "prepared": {"static_ptq": 1},
}
# What a cut before them parts, that ONNX Runtime computes as one.
_NORMALIZATIONS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"})
# Below it, static_ptq converts a model first.
_OLD_OPSET = 13


def pass_versions(passes: Sequence[Pass], model: Path) -> dict[str, object]:
    """Return what stands in an artifact's key for the implementation of each pass.

    Parameters
    ----------
    passes
        The passes of an operator.
    model
        The model that they take.

    Returns
    -------
    dict
        The version by name; of a kind of model of which a pass makes something else since then, with the kind.

    Examples
    --------
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> pass_versions([make_pass("partition", {})], BUILTIN / "fashion-resnet.onnx")
    {'partition': 1}
    """
    kinds = _kinds(model, model_sha256(model)) if passes else frozenset()
    versions: dict[str, object] = {}
    for step in passes:
        revisions = {kind: _REVISIONS[kind][step.name] for kind in sorted(kinds) if step.name in _REVISIONS[kind]}
        versions[step.name] = {"version": step.version, **revisions} if revisions else step.version
    return versions


@lru_cache(maxsize=256)
def _kinds(model: Path, _sha256: str) -> frozenset[str]:
    """Return the kinds of `_REVISIONS` that a model is of; equal bytes are of the same."""
    try:
        file = read_model(model)
    except ModelFileError:  # reported by what reads the model
        return frozenset()
    header, nodes = file.model, file.graph.node
    opset = next((entry.version for entry in header.opset_import if entry.domain in ("", "ai.onnx")), _OLD_OPSET)
    pixels = pixel_inputs(file.graph)
    kinds = {
        "states": bool(find_states(file.graph)),
        "normalized": any(node.op_type in _NORMALIZATIONS for node in nodes),
        "pixels": any(node.op_type == "Cast" and node.input[0] in pixels for node in nodes),
        "random": bool(Randomness(header).named(nodes)),
        "prepared": opset < _OLD_OPSET
        or bool(header.functions or file.graph.sparse_initializer)
        or any(attribute.type == onnx.AttributeProto.GRAPH for node in nodes for attribute in node.attribute),
    }
    return frozenset(kind for kind, is_such in kinds.items() if is_such)


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

    def refused(self, text: str) -> "Prospects":
        """Return what is left where every pass is refused for one reason."""
        return replace(self, exit=None, exit_refusal=text, cut=None, cut_refusal=text, quantization_refusal=text)

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
    >>> from runner.subjects.embedded.datasets import BUILTIN
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
    prospects = Prospects(
        early,
        early_refusal,
        cut,
        cut_refusal,
        _quantizable(model.graph),
        quantization_refusal,
        unserved_outputs(model.graph),
    )
    empty = emptiness(model.graph)
    return prospects.refused(empty) if empty else prospects


def _quantizable(graph: onnx.GraphProto) -> Counter[str]:
    # A bias or a scale has one dimension; only matrices and kernels become int8.
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    weights |= {node.output[0] for node in graph.node if is_weight_node(node)}
    return Counter(
        node.op_type for node in graph.node if node.op_type in _QUANTIZED_TYPES and weights.intersection(node.input)
    )
