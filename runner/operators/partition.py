"""Partition: head and tail of nearly equal size (paper, section 4.5.4, Algorithm 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from catalog.units import counted
from runner.errors import OperatorError
from runner.graph.analysis import LARGEST_SHARE, Cut, GraphAnalysis, GraphTensor, analyse_structure
from runner.graph.model_file import read_model
from runner.graph.rewriting import NotRewirable, split
from runner.graph.structure import read_structure
from runner.graph.writing import stored_bytes, write_part
from runner.operators.base import AppliedPass, Context, PartitionOptions, PassRefusal, beside_control_flow, listed


@dataclass(frozen=True)
class Partition:
    """Cut a model where the sizes of head and tail differ least.

    Notes
    -----
    `cut: paper` leaves the identity branch of residual blocks whole; `cut: any` may send a block's input along with a
    tensor inside the block, which balances better and sends more.
    """

    declared: PartitionOptions
    name: ClassVar[str] = "partition"
    version: ClassVar[int] = 1
    calibration_samples: ClassVar[int] = 0

    def options(self) -> Mapping[str, object]:
        return self.declared.model_dump()

    def apply(self, parts: Sequence[Path], context: Context) -> AppliedPass:
        if len(parts) != 1:
            # A wrong declaration, not an obstacle in the model: an error, not a refusal.
            raise OperatorError(f"partition cuts one model, got {len(parts)} parts; declare it once")
        structure = read_structure(read_model(parts[0]))
        analysis = analyse_structure(structure)
        chosen = choose_cut(analysis, paper=self.declared.cut == "paper")
        try:
            halves = split(
                structure,
                tensors=[tensor.name for tensor in chosen.tensors],
                side=[tensor.name for tensor in chosen.side],
            )
        except NotRewirable as error:
            raise PassRefusal(f"partition cannot cut at {_listed(chosen)}: {error}") from error
        targets = (context.workdir / "head.onnx", context.workdir / "tail.onnx")
        for part, target in zip(halves, targets, strict=True):
            write_part(part, target)
        return AppliedPass(targets, self._details(analysis, chosen, targets))

    def _details(self, analysis: GraphAnalysis, chosen: Cut, targets: tuple[Path, Path]) -> Mapping[str, object]:
        head, tail = (stored_bytes(target) for target in targets)
        # Of the written files: an initializer that both parts need is in both, so this may differ from the estimate.
        percent = 100 * head / (head + tail)
        uneven = f"head and tail hold {percent:.1f} % / {100 - percent:.1f} % of the bytes"
        return {
            "cut": self.declared.cut,
            "place": analysis.place_of(chosen),
            "tensors": [asdict(tensor) for tensor in chosen.tensors],
            "side": [asdict(tensor) for tensor in chosen.side],
            "exact": chosen.exact,
            "crossing_bytes": chosen.crossing_bytes,
            "head_bytes": head,
            "tail_bytes": tail,
            "warnings": [] if chosen.balanced else [uneven],
        }


def choose_cut(analysis: GraphAnalysis, *, paper: bool = True) -> Cut:
    """Return the valid cut whose head and tail differ least in bytes.

    Parameters
    ----------
    analysis
        A model's analysis.
    paper
        Only cuts that leave identity branches whole.

    Returns
    -------
    Cut

    Raises
    ------
    PassRefusal
        When nothing cuts the model in two, or when one part would hold less than a fifth.

    Notes
    -----
    Bytes are those of the parts' nodes and initializers; one that both parts need counts in both.

    References
    ----------
    Paper, section 4.5.4 and Algorithm 2.

    Examples
    --------
    >>> from runner.graph.analysis import analyse
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> cut = choose_cut(analyse(BUILTIN / "fashion-resnet.onnx"))
    >>> len(cut.tensors), cut.crossing_bytes
    (2, 100352)
    """
    inside = beside_control_flow(analysis.control_flow, "cut") + _training(analysis)
    cut = analysis.best_cut(paper=paper)
    if cut is None:
        raise PassRefusal(f"nothing cuts the model in two: {_obstacle(analysis)}{inside}")
    if not cut.even:
        head = 100 * cut.head_bytes / (cut.head_bytes + cut.tail_bytes)
        reasons = _heaviest(analysis), _other_cut(analysis, paper), _unknown(analysis, "; ")
        raise PassRefusal(
            f"no balanced cut: the best ({_listed(cut)}) leaves {head:.1f} % / {100 - head:.1f} %, and each part "
            f"must hold at least {100 * (1 - LARGEST_SHARE):.0f} %{''.join(reasons)}{inside}"
        )
    return cut


def _other_cut(analysis: GraphAnalysis, paper: bool) -> str:
    """Name the option that allows a balanced cut, where there is one."""
    other = analysis.best_cut(paper=False) if paper else None
    return "; `cut: any` allows a balanced one, through an identity branch" if other and other.even else ""


def _heaviest(analysis: GraphAnalysis) -> str:
    share = analysis.largest_initializer_bytes / analysis.size_bytes
    # Nothing cuts an initializer in two, so one with more than half of the bytes explains the imbalance.
    if analysis.largest_initializer is None or share <= 0.5:
        return ""
    return f"; the initializer {analysis.largest_initializer!r} alone holds {100 * share:.1f} % of the bytes"


def _obstacle(analysis: GraphAnalysis) -> str:
    """Explain why there is no cut at all."""
    obstacles = []
    inputs, outputs = analysis.stream_inputs, analysis.results
    if len(inputs) > 1:
        obstacles.append(f"{len(inputs)} inputs ({_names(inputs)}), one of which the tail would need too")
    if len(outputs) > 1:
        obstacles.append(f"{len(outputs)} outputs ({_names(outputs)}), one of which the head would give")
    if analysis.unknown_tensors:
        obstacles.append(_unknown(analysis))
    # Only `cut: paper` comes here with cuts at hand.
    other = analysis.best_cut(paper=False)
    if other is not None:
        allowed = "which `cut: any` allows" if other.even else "and none of these cuts is balanced either"
        obstacles.append(f"every cut takes an identity branch, {allowed}")
    nodes = [op_type for segment in analysis.skeleton for op_type in segment.op_types]
    if len(nodes) == 1:
        return f"all of it is one node ({nodes[0]})"
    return "; ".join(obstacles) or (
        f"no set of up to eight inner tensors carries everything that its {len(nodes)} nodes pass on"
    )


def _unknown(analysis: GraphAnalysis, before: str = "") -> str:
    """Say of how many tensors the types are unknown; nothing where all are known."""
    if not analysis.unknown_tensors:
        return ""
    tensors = counted(analysis.unknown_tensors, "inner tensor")
    return (
        f"{before}the types of {tensors} are unknown (ONNX does not infer them, and runs on made-up inputs do not show "
        "them), and a link carries known types alone"
    )


def _training(analysis: GraphAnalysis) -> str:
    """Name the Dropouts that are on, before and behind which nothing is cut; nothing where there are none."""
    dropouts = [label for label in analysis.random_nodes if label.startswith("Dropout ")]
    if not dropouts:
        return ""
    return f"; {listed(dropouts)} may train, and no cut lies beside such a node: export the model for inference"


def _names(tensors: Sequence[GraphTensor]) -> str:
    return listed(tensor.name for tensor in tensors)


def _listed(cut: Cut) -> str:
    return _names((*cut.tensors, *cut.side))
