"""What an analysed model allows, as terminal tables and as an SVG of the model's skeleton.

The tables have repeated runs, exits and cuts with their bytes; the picture has sub-graphs and chains from input to
output, what is skipped and where it is cut.

Colours follow the reader's light or dark scheme; the picture brings its own background, so that it can be read on any
page. A report draws a model only if it is the one that was measured, which the digest of its file says.
"""

import base64
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from catalog.analysis import SubjectResult
from catalog.console import open_table
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.units import counted, size
from runner.errors import RunnerError
from runner.graph.analysis import Cut, Exit, GraphAnalysis, GraphTensor, Segment, analyse
from runner.graph.model_digest import model_sha256
from runner.operators.base import listed as shortened
from runner.operators.registry import Prospects, look_ahead
from runner.reports.html.markup import Html, joined, tag
from runner.reports.html.sentences import listed

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
        table.add_row("control flow", shortened(analysis.control_flow), "")
    if analysis.random_nodes:
        table.add_row("random", shortened(analysis.random_nodes), "other numbers at each run")
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


_WIDTH, _MARGIN, _TOP = 880, 24, 96
# From left to right: the way around skipped blocks, boxes, their sizes (right-aligned), bars.
_LANE, _BOX, _BOX_WIDTH, _SIZE, _BAR, _BAR_WIDTH = 48, 72, 330, 490, 506, 350
_TALL, _SHORT, _GAP, _CUT = 24, 14, 6, 44
_CHARACTER = 6.7  # of the 11 px monospaced font, rounded up
# More rows would be a poster, not a picture: unmarked segments in the middle are left out.
_MOST_ROWS, _KEPT_AROUND = 90, 3

_FONT = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'
# Colour by class: property, light, dark. Plain rules, because not every renderer knows variables.
_COLOURS = (
    (".page", "fill", "#ffffff", "#0d1117"),
    ("text", "fill", "#1f2328", "#e6edf3"),
    (".muted", "fill", "#59636e", "#9198a1"),
    (".box", "fill", "#dbe9fb", "#152a45"),
    (".box", "stroke", "#3568a8", "#6ea8ee"),
    (".bar", "fill", "#8fb0d9", "#3f6ea8"),
    (".chain", "fill", "#eceff2", "#21262d"),
    (".chain", "stroke", "#9aa4ae", "#59636e"),
    (".flow", "stroke", "#59636e", "#9198a1"),
    (".skipped", "fill", "#fdf0d5", "#3a2a0c"),
    (".skipped", "stroke", "#b3700a", "#e3a33b"),
    (".bypass", "stroke", "#b3700a", "#e3a33b"),
    (".arrow", "fill", "#b3700a", "#e3a33b"),
    (".skiptext", "fill", "#8a5300", "#e3a33b"),
    (".cut", "stroke", "#c0262d", "#ff7b72"),
    (".cuttext", "fill", "#c0262d", "#ff7b72"),
)
_LIGHT = "\n".join(f"{name} {{ {what}: {light}; }}" for name, what, light, _ in _COLOURS)
_DARK = "\n".join(f"  {name} {{ {what}: {dark}; }}" for name, what, _, dark in _COLOURS)
_STYLE = f"""
text {{ font-family: {_FONT}; font-size: 11px; }}
.title {{ font-weight: bold; font-size: 14px; }}
.small {{ font-size: 9px; }}
.right {{ text-anchor: end; }}
.flow, .bypass, .cut {{ fill: none; }}
.bypass, .cut {{ stroke-width: 1.8; }}
.skipped {{ stroke-dasharray: 4 3; }}
.cut {{ stroke-dasharray: 7 4; }}
.cuttext {{ font-weight: bold; }}
{_LIGHT}
@media (prefers-color-scheme: dark) {{
{_DARK}
}}
"""


@dataclass(frozen=True)
class _SkeletonRow:
    """One segment, or `left_out` of them, at its place."""

    index: int
    segment: Segment | None
    left_out: int
    top: int
    height: int

    @property
    def bottom(self) -> int:
        return self.top + self.height


def skeleton_svg(analysis: GraphAnalysis, prospects: Prospects) -> str:
    """Draw a model's skeleton.

    Parameters
    ----------
    analysis
        The model's analysis.
    prospects
        The exit whose blocks are shown as skipped, the cut, and the refusals, which go below the picture.

    Returns
    -------
    str
        A whole SVG document.
    """
    rows = _rows(analysis, prospects)
    bottom = rows[-1].bottom if rows else _TOP
    room = int((_WIDTH - 2 * _MARGIN) / _CHARACTER)
    # Some refusals begin with the name of their pass.
    refusals = [f"{name}: {text.removeprefix(f'{name}: ')}" for name, text in prospects.refusals.items()]
    notes = [line for refusal in refusals for line in _wrapped(refusal, room)]
    height = bottom + _MARGIN + 16 * len(notes) + (8 if notes else 0)
    # A model without weights would divide by zero.
    largest = max((segment.size_bytes for segment in analysis.skeleton), default=1) or 1
    body = [*_header(analysis, prospects)]
    for before, after in itertools.pairwise(rows):
        body.append(f'<path class="flow" d="M{_BOX + 20} {before.bottom}V{after.top}"/>')
    skipped = _skipped_nodes(prospects.exit)
    for row in rows:
        body += _drawn(row, skipped, largest)
    body += [*_bypass(rows, skipped), *_cut_line(analysis, rows, prospects.cut)]
    body += [_text(_MARGIN, bottom + 26 + 16 * number, line, "muted") for number, line in enumerate(notes)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img">\n<title>{escape(analysis.path.name)}</title>\n'
        f'<style>{_STYLE}</style>\n<rect class="page" width="100%" height="100%"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _rows(analysis: GraphAnalysis, prospects: Prospects) -> list[_SkeletonRow]:
    """Return the positions of the segments, with room for the cut."""
    rows: list[_SkeletonRow] = []
    top, index = _TOP, 0
    shown = _shown(analysis, prospects)
    while index < len(analysis.skeleton):
        segment = analysis.skeleton[index] if index in shown else None
        stop = index + 1
        while segment is None and stop < len(analysis.skeleton) and stop not in shown:
            stop += 1
        height = _TALL if segment is None or _has_text(segment) else _SHORT
        cut = prospects.cut if prospects.cut is not None and prospects.cut.segment == index else None
        inside = cut is not None and cut.inside_segment
        rows.append(_SkeletonRow(index, segment, stop - index, top, height + (_CUT if inside else 0)))
        top = rows[-1].bottom + (_CUT if cut is not None and not inside else _GAP)
        index = stop
    return rows


def _shown(analysis: GraphAnalysis, prospects: Prospects) -> frozenset[int]:
    """Return the segments to draw: all, or the ends and the marked ones with their neighbours."""
    count = len(analysis.skeleton)
    if count <= _MOST_ROWS:
        return frozenset(range(count))
    marked = [*range(_KEPT_AROUND), *range(count - _KEPT_AROUND, count)]
    if prospects.exit is not None:
        marked += range(prospects.exit.blocks[0].first, prospects.exit.blocks[-1].last + 1)
    if prospects.cut is not None:
        marked.append(prospects.cut.segment)
    # Some neighbours on either side, so that a marked segment is seen in its place.
    near = {m + step for m in marked for step in range(-_KEPT_AROUND, _KEPT_AROUND + 1)}
    return frozenset(index for index in near if 0 <= index < count)


def _has_text(segment: Segment) -> bool:
    return segment.kind == "sub-graph" or len(segment.nodes) > 1


def _drawn(row: _SkeletonRow, skipped: frozenset[str], largest: int) -> Iterator[str]:
    """Yield a segment's box, name, size and bar."""
    segment = row.segment
    if segment is None:
        yield _text(_BOX + 32, row.top + 16, f"… {row.left_out} more segments …", "muted")
        return
    gone = skipped.intersection(segment.nodes)
    whole = len(gone) == len(segment.nodes)
    kind = "skipped" if whole else "box" if segment.kind == "sub-graph" else "chain"
    radius = 4 if segment.kind == "sub-graph" else 7
    box = f'x="{_BOX}" y="{row.top}" width="{_BOX_WIDTH}" height="{row.height}"'
    yield f'<rect class="{kind}" {box} rx="{radius}"/>'
    if not _has_text(segment):
        yield _text(_BOX + 10, row.top + 10, segment.op_types[0], "small muted")
        return
    count = counted(len(segment.nodes), "node") + (f", {len(gone)} skipped" if gone and not whole else "")
    label = segment.name if segment.number is None else f"{segment.number:>2}  {segment.name}"
    room = int((_BOX_WIDTH - 30) / _CHARACTER) - len(count)
    yield _text(_BOX + 10, row.top + 16, _shortened(label, room), "skiptext" if whole else "")
    yield _text(_BOX + _BOX_WIDTH - 10, row.top + 16, count, "right muted")
    yield _text(_SIZE, row.top + 16, size(segment.size_bytes), "right")
    # At least a pixel: a segment without weights is still there.
    width = max(1.0, _BAR_WIDTH * segment.size_bytes / largest)
    yield f'<rect class="bar" x="{_BAR}" y="{row.top + 7}" width="{width:.1f}" height="10"/>'


def _header(analysis: GraphAnalysis, prospects: Prospects) -> Iterator[str]:
    counts = f"{counted(analysis.node_count, 'node')}, {counted(len(analysis.sub_graphs), 'sub-graph')}"
    facts = f"{size(analysis.size_bytes)}, {counts}"
    lines = [(facts, "muted")]
    if prospects.exit is not None:
        names = ", ".join(block.name for block in prospects.exit.blocks)
        saved = f"{size(prospects.exit.saved_bytes)} ({100 * prospects.exit.saved_share:.1f} %)"
        lines.append((f"early exit skips {names}: saves {saved}", "skiptext"))
    if prospects.cut is not None:
        sizes = f"{size(prospects.cut.head_bytes)} + {size(prospects.cut.tail_bytes)}"
        lines.append((f"cut {where_text(analysis, prospects.cut)}: {sizes}", "cuttext"))
    yield _text(_MARGIN, 30, _shortened(analysis.path.name, 60), "title")
    for number, (line, style) in enumerate(lines):
        yield _text(_MARGIN, 48 + 17 * number, _shortened(line, 118), style)


def _skipped_nodes(exit_: Exit | None) -> frozenset[str]:
    return frozenset(node for block in exit_.blocks for node in block.nodes) if exit_ else frozenset()


def _bypass(rows: Sequence[_SkeletonRow], skipped: frozenset[str]) -> Iterator[str]:
    """Yield the way around the segments that are skipped whole."""
    span = [row for row in rows if row.segment is not None and skipped.issuperset(row.segment.nodes)]
    if not span:
        return
    start, end = span[0].top - _GAP // 2, span[-1].bottom + _GAP // 2
    yield f'<path class="bypass" d="M{_BOX + 20} {start}H{_LANE + 6}Q{_LANE} {start} {_LANE} {start + 6}V{end - 6}'
    yield f'Q{_LANE} {end} {_LANE + 6} {end}H{_BOX + 12}"/>'
    yield f'<path class="arrow" d="M{_BOX + 20} {end}l-9 -4v8z"/>'


def _cut_line(analysis: GraphAnalysis, rows: Sequence[_SkeletonRow], cut: Cut | None) -> Iterator[str]:
    """Yield the cut, and what crosses the link there."""
    if cut is None:
        return
    row = next(row for row in rows if row.index == cut.segment)
    middle = row.top + _TALL + _CUT // 2 if cut.inside_segment else row.bottom + _CUT // 2
    yield f'<path class="cut" d="M{_MARGIN} {middle}H{_WIDTH - _MARGIN}"/>'
    tensors = (*cut.tensors, *cut.side)
    what = ", ".join(tensor_text(tensor) for tensor in tensors)
    left = _BOX + _BOX_WIDTH + 14
    room = int((_WIDTH - _MARGIN - left) / _CHARACTER)
    count = f"{len(tensors)} tensor{'s' if len(tensors) > 1 else ''}"
    crossing = f"{size(cut.crossing_bytes)} cross in {count}" if cut.crossing_bytes is not None else f"{count} to send"
    yield _text(left, middle - 6, _shortened(crossing, room), "cuttext")
    yield _text(left, middle + 14, _shortened(what, room), "muted")


def _text(x: int, y: int, content: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}"{kind} xml:space="preserve">{escape(_printable(content))}</text>'


def _printable(content: str) -> str:
    """Replace control characters, which XML cannot hold."""
    return "".join(character if character.isprintable() else "?" for character in content)


def _shortened(text: str, room: int) -> str:
    """Leave out the middle of a text that is too long."""
    if len(text) <= room:
        return text
    keep = max(room - 1, 2)
    return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"


def _wrapped(text: str, room: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        word = _shortened(word, room)
        if line and len(line) + 1 + len(word) > room:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    if line:
        yield line


def model_pictures(models: Mapping[str, Path], results: Sequence[SubjectResult]) -> Mapping[str, Html]:
    """Draw the models of a report.

    Parameters
    ----------
    models : mapping of subject to Path
        Model files as declared; a subject without one is left out.
    results : sequence of SubjectResult

    Returns
    -------
    mapping of subject to Html
        Pictures, or a sentence that says why there is none.
    """
    return {result.subject: _pictures(models[result.subject], result) for result in results if result.subject in models}


def _pictures(path: Path, result: SubjectResult) -> Html:
    evidence = [*(strategy.evidence for strategy in result.strategies), *result.unmeasured]
    exits, cuts = (
        _operators_by(evidence, "early_exit", "blocks", 2),
        _operators_by(evidence, "partition", "cut", "paper"),
    )
    if not exits and not cuts:
        return tag("p", "No operator shortens or cuts this model.", class_="muted")
    try:
        if not path.is_file() or model_sha256(path) not in _measured_digests(evidence):
            return tag("p", f"{path.name} is not there, or is not the model that was measured: it is not drawn.")
        return joined(_figures(analyse(path), exits, cuts))
    except (RunnerError, OSError) as error:
        # A model that cannot be read must not keep the figures of its measurements from being shown.
        return tag("p", f"{path.name} cannot be drawn: {error}")


def _figures(
    analysis: GraphAnalysis, exits: Mapping[Any, Sequence[str]], cuts: Mapping[Any, Sequence[str]]
) -> Iterator[Html]:
    """Yield a picture for each number of skipped blocks, the first with the first kind of cut; then the other cuts."""
    for (blocks, leaving), (cut, cutting) in zip_longest(exits.items(), cuts.items(), fillvalue=(None, ())):
        prospects = look_ahead(analysis, blocks=2 if blocks is None else int(blocks), paper=cut != "any")
        # What no operator does is no part of the picture.
        shown = replace(
            prospects,
            exit=None if blocks is None else prospects.exit,
            exit_refusal=None if blocks is None else prospects.exit_refusal,
            cut=None if cut is None else prospects.cut,
            cut_refusal=None if cut is None else prospects.cut_refusal,
            quantization_refusal=None,
        )
        whats = (
            [f"an exit that skips {counted(int(blocks), 'block')} ({listed(leaving)})"] if blocks is not None else []
        )
        whats += [f"the cut of the whole model ({listed(cutting)})"] if cut is not None else []
        yield _picture(skeleton_svg(analysis, shown), f"{analysis.path.name}: {' and '.join(whats)}")


def _measured_digests(evidence: Sequence[StrategyEvidence]) -> set[str]:
    """Return the digests of the file of identity, which is the model itself."""
    return {file.sha256 for strategy in evidence if not strategy.passes for file in strategy.files}


def _operators_by(
    evidence: Sequence[StrategyEvidence], name: str, option: str, default: object
) -> Mapping[Any, list[str]]:
    """Return the operators that have a pass, by one of its options."""
    operators: dict[Any, list[str]] = {}
    for strategy in evidence:
        for step in strategy.passes:
            if step["name"] == name:
                names = operators.setdefault((step.get("options") or {}).get(option, default), [])
                if strategy.operator not in names:
                    names.append(strategy.operator)
    return operators


def _picture(svg: str, caption: str) -> Html:
    # As an image: the rules of its style would otherwise reach the other figures of the page.
    encoded = base64.b64encode(svg.encode()).decode()
    image = tag("img", src=f"data:image/svg+xml;base64,{encoded}", alt=caption, class_="skeleton")
    return tag("figure", tag("figcaption", caption), image, class_="skeleton")
