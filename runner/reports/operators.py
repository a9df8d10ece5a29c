"""What an analysed model allows, as terminal tables: repeated runs, exits and cuts with their bytes."""

from collections import Counter

from rich.console import Group
from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.units import counted, size
from runner.graph.analysis import Cut, Exit, GraphAnalysis, GraphTensor
from runner.operators.registry import Prospects

# More would leave the screen; --json has all.
_CUTS_SHOWN, _EXITS_SHOWN = 5, 12


def operators_report(analysis: GraphAnalysis, prospects: Prospects) -> Group:
    """Return everything that `runner operators` prints."""
    sections: list[Table | str] = [_summary(analysis)]
    if analysis.runs:
        sections += ["", _runs(analysis), "", _exits(analysis)]
    if analysis.cuts:
        sections += ["", _cuts(analysis)]
    return Group(*sections, "", _prospects(analysis, prospects))


def tensor_text(tensor: GraphTensor) -> str:
    """Return `float32[1, 64, 7, 7]`."""
    shape = "?" if tensor.shape is None else ", ".join(str(dim) for dim in tensor.shape)
    return f"{tensor.dtype}[{shape}]"


def _summary(analysis: GraphAnalysis) -> Table:
    table = Table.grid(padding=(0, 2))
    chains = len(analysis.skeleton) - len(analysis.sub_graphs)
    # Names come from the model file and may hold what rich takes for markup.
    table.add_row("model", analysis.path.name, size(analysis.size_bytes))
    states = _state_names(analysis)
    for what, tensors in (("input", analysis.inputs), ("output", analysis.outputs)):
        for tensor in tensors:
            kind = f"{what}, state" if tensor.name in states else what
            table.add_row(kind, tensor.name, tensor_text(tensor))
    table.add_row(
        "graph",
        counted(analysis.node_count, "node"),
        f"{counted(len(analysis.sub_graphs), 'sub-graph')}, {counted(chains, 'chain')}",
    )
    if analysis.control_flow:
        table.add_row("control flow", ", ".join(analysis.control_flow), "")
    return table


def _runs(analysis: GraphAnalysis) -> Table:
    table = open_table("blocks", "from", "to", "each takes and gives", "size", title="Repeated runs, the last first")
    for run in analysis.runs:
        first, last = run.blocks[0].name, run.blocks[-1].name
        table.add_row(str(len(run.blocks)), first, last, tensor_text(run.tensor), size(run.size_bytes))
    return table


def _exits(analysis: GraphAnalysis) -> Table:
    """Return exits of the last run, which early_exit takes."""
    last = [exit_ for exit_ in analysis.exits if exit_.run is analysis.runs[0]]
    others = len(analysis.exits) - len(last[:_EXITS_SHOWN])
    note = f" ({others} more: --json)" if others else ""
    table = open_table("blocks", "skipped", "saved", "share", title=f"Exits in the last run{note}")
    for exit_ in last[:_EXITS_SHOWN]:
        names = _names(exit_)
        table.add_row(str(exit_.count), names, size(exit_.saved_bytes), f"{100 * exit_.saved_share:.1f} %")
    return table


def _names(exit_: Exit) -> str:
    first, last = exit_.run.blocks[-exit_.count].name, exit_.run.blocks[-1].name
    return first if exit_.count == 1 else f"{first} … {last}"


def _cuts(analysis: GraphAnalysis) -> Table:
    """Return the best cuts of each kind."""
    # The analysis lists the best-balanced cuts first.
    paper = [cut for cut in analysis.cuts if cut.paper][:_CUTS_SHOWN]
    others = [cut for cut in analysis.cuts if not cut.paper][:_CUTS_SHOWN]
    title = f"Best of {len(analysis.cuts)} cuts (all: --json)"
    table = open_table("cut", "head", "tail", "difference", "where", "crosses the link", "bytes", title=title)
    for kind, cuts in (("paper", paper), ("any", others)):
        for cut in cuts:
            table.add_row(
                kind,
                size(cut.head_bytes),
                size(cut.tail_bytes),
                size(cut.difference_bytes),
                where_text(analysis, cut),
                _crossing(analysis, cut),
                size(cut.crossing_bytes),
            )
    return table


def _crossing(analysis: GraphAnalysis, cut: Cut) -> str:
    """Return a line for each tensor that crosses; states, of which a decoder has two a layer, are counted."""
    states = _state_names(analysis)
    tensors = [tensor for tensor in (*cut.tensors, *cut.side) if tensor.name not in states]
    count = len(cut.tensors) + len(cut.side) - len(tensors)
    return "\n".join([*map(tensor_text, tensors), *([counted(count, "state")] if count else [])])


def _state_names(analysis: GraphAnalysis) -> frozenset[str]:
    """Return the inputs and outputs that are states."""
    return frozenset(name for state in analysis.states for name in (state.input, state.output))


def where_text(analysis: GraphAnalysis, cut: Cut) -> str:
    """Return `in layer4.0`, `after layer3.2`."""
    return f"{'in' if cut.inside_segment else 'after'} {analysis.skeleton[cut.segment].name}"


def _prospects(analysis: GraphAnalysis, prospects: Prospects) -> Table:
    table = open_table("pass", "", "what it would do, or why not", title="Passes")
    texts = {
        "static_ptq": f"{_counted(prospects.quantizable)}, given calibration inputs",
        "early_exit": _exit_text(prospects.exit),
        "partition": _cut_text(analysis, prospects.cut),
    }
    for name, text in texts.items():
        refusal = prospects.refusals.get(name)
        mark = Text("yes", "green") if refusal is None else Text("no", "yellow")
        table.add_row(name, mark, text if refusal is None else refusal)
    return table


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {op_type}" for op_type, count in kinds.most_common()) or "no operator with weights"


def _exit_text(exit_: Exit | None) -> str:
    if exit_ is None:
        return ""
    names = ", ".join(block.name for block in exit_.blocks)
    return f"skip {names}: {size(exit_.saved_bytes)} less ({100 * exit_.saved_share:.1f} %)"


def _cut_text(analysis: GraphAnalysis, cut: Cut | None) -> str:
    if cut is None:
        return ""
    count = len(cut.tensors) + len(cut.side)
    tensors = f"{count} tensor{'s' if count > 1 else ''}"
    sizes = f"{size(cut.head_bytes)} + {size(cut.tail_bytes)}"
    free = "of free size, see --dimension"
    # A dimension that the model leaves free leaves the bytes open too.
    crossing = free if cut.crossing_bytes is None else f"({size(cut.crossing_bytes)}) cross the link"
    return f"cut {where_text(analysis, cut)}: {sizes}; {tensors} {crossing}"
