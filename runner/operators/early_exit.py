"""Early exit: skip the last of a run of identical sub-graphs (paper, section 4.5.3, Algorithm 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from catalog.units import counted
from runner.errors import OperatorError
from runner.graph.analysis import Exit, GraphAnalysis, analyse_structure
from runner.graph.model_file import read_model
from runner.graph.rewriting import NotRewirable, skip, with_identity
from runner.graph.structure import Structure, read_structure
from runner.graph.writing import Part, stored_bytes, write_part
from runner.operators.base import (
    AppliedPass,
    Context,
    EarlyExitOptions,
    PassRefusal,
    beside_control_flow,
    listed,
)

# The paper finds that exits which save less than 7 % are not worth their loss; below this share the pass warns.
_WORTHWHILE_SHARE = 0.05


@dataclass(frozen=True)
class EarlyExit:
    """Shorten a model by the last `blocks` sub-graphs of its last repeated run.

    Notes
    -----
    The result is a shorter graph with a single path, not one that decides at run time where to exit.
    """

    declared: EarlyExitOptions
    name: ClassVar[str] = "early_exit"
    version: ClassVar[int] = 1
    calibration_samples: ClassVar[int] = 0

    def options(self) -> Mapping[str, object]:
        return self.declared.model_dump()

    def apply(self, parts: Sequence[Path], context: Context) -> AppliedPass:
        if len(parts) != 1:
            # A wrong order in the declaration is no obstacle in the model: an error, not a refusal.
            raise OperatorError(f"early_exit shortens one model, got {len(parts)} parts; put it before `partition`")
        structure = read_structure(read_model(parts[0]))
        analysis = analyse_structure(structure)
        chosen = choose_exit(analysis, self.declared.blocks)
        part = _shortened(structure, chosen)
        target = context.workdir / "model.onnx"
        write_part(part, target)
        details = _details(analysis, chosen, part, stored_bytes(target))
        return AppliedPass((target,), details, _reference(structure, chosen, context.workdir / "reference.onnx"))


def choose_exit(analysis: GraphAnalysis, blocks: int) -> Exit:
    """Return the exit that skips the last blocks of the last repeated run.

    Parameters
    ----------
    analysis
        A model's analysis.
    blocks
        How many sub-graphs to skip, at least 1.

    Returns
    -------
    Exit

    Raises
    ------
    PassRefusal
        When the model has no repeated run, too short a one, or one whose weights are used outside it too; the text says
        what the model has instead.

    Notes
    -----
    Algorithm 1 as printed would skip all of a long run; the paper's prose, which its sizes follow, skips two.

    References
    ----------
    Paper, section 4.5.3 and Algorithm 1.

    Examples
    --------
    >>> from runner.graph.analysis import analyse
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> [block.name for block in choose_exit(analyse(BUILTIN / "fashion-resnet.onnx"), 2).blocks]
    ['backbone.3.3', 'backbone.3.4']
    """
    if not analysis.runs:
        raise PassRefusal(
            f"no two consecutive identical branching sub-graphs: {_alternatives(analysis)}"
            f"{beside_control_flow(analysis.control_flow, 'skipped')}"
        )
    # Runs are listed from the output backwards: the first is the last of the model.
    run = analysis.runs[0]
    names = listed(block.name for block in run.blocks)
    if len(run.blocks) < blocks:
        raise PassRefusal(
            f"early_exit: {blocks} blocks were requested and the last run of identical sub-graphs has "
            f"{len(run.blocks)}: {names}; set `blocks` to {len(run.blocks)} or less"
        )
    # The exits of a run end where something outside needs what a block computes, so this one may be absent.
    chosen = next((exit_ for exit_ in analysis.exits if exit_.run is run and exit_.count == blocks), None)
    if chosen is None:
        raise PassRefusal(f"a shape computed inside the last run of identical sub-graphs ({names}) is used outside it")
    if not chosen.weight_bytes:
        # Weights that the rest of the model uses too stay in the file whatever is skipped.
        skipped = listed(block.name for block in chosen.blocks)
        raise PassRefusal(f"skipping {skipped} would save nothing: the rest of the model uses the same weights")
    return chosen


def _alternatives(analysis: GraphAnalysis) -> str:
    """Describe the structure of a model that has no run."""
    count = len(analysis.sub_graphs)
    beside = [
        f"{len(tensors)} {kind} ({listed(tensor.name for tensor in tensors)})"
        for kind, tensors in (("inputs", analysis.stream_inputs), ("outputs", analysis.results))
        if len(tensors) > 1
    ]
    hidden = f"; the model has {' and '.join(beside)}, which may hide the borders of sub-graphs" if beside else ""
    if not count:
        nodes = sum(len(segment.nodes) for segment in analysis.skeleton)
        return f"the model is a chain of {counted(nodes, 'node')}{hidden}"
    if analysis.unknown_tensors:
        tensors = counted(analysis.unknown_tensors, "inner tensor")
        return (
            f"{counted(count, 'branching sub-graph')} cannot be compared, because the types or shapes of {tensors} are "
            f"unknown: ONNX does not infer them, and runs on made-up inputs do not show them{hidden}"
        )
    if count == 1:
        return f"found one branching sub-graph ({analysis.sub_graphs[0].name}), and none like it{hidden}"
    last = ", ".join(sub_graph.name for sub_graph in analysis.sub_graphs[-4:])
    return f"found {counted(count, 'branching sub-graph')} (the last: {last}), each unlike the one before it{hidden}"


def _shortened(structure: Structure, chosen: Exit) -> Part:
    """Return the graph without the blocks; refuse if it cannot be rewired."""
    names = listed(block.name for block in chosen.blocks)
    try:
        return skip(structure, entry=chosen.entry.name, result=chosen.result.name)
    except NotRewirable as error:
        raise PassRefusal(f"early_exit cannot skip {names}: {error}") from error


def _reference(structure: Structure, chosen: Exit, path: Path) -> Path | None:
    """Write the whole model with an Identity in the place of the blocks."""
    part = with_identity(structure, entry=chosen.entry.name, result=chosen.result.name)
    if part is None:
        return None
    write_part(part, path)
    return path


def _details(analysis: GraphAnalysis, chosen: Exit, part: Part, size_bytes: int) -> Mapping[str, object]:
    saved = analysis.size_bytes - size_bytes
    share = saved / analysis.size_bytes
    names = listed(block.name for block in chosen.blocks)
    early = f"skipping {names} saves {100 * share:.1f} % of the model's bytes: the last repeated run lies early in it"
    return {
        "skipped": [
            {"name": block.name, "nodes": list(block.nodes), "size_bytes": block.size_bytes} for block in chosen.blocks
        ],
        "run_length": len(analysis.runs[0].blocks),
        "entry": chosen.entry.name,
        "result": chosen.result.name,
        "removed_nodes": analysis.node_count - len(part.nodes),
        "before_bytes": analysis.size_bytes,
        "after_bytes": size_bytes,
        "saved_bytes": saved,
        "saved_share": share,
        "warnings": [early] if share < _WORTHWHILE_SHARE else [],
    }
