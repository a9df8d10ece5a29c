"""Runs of consecutive sub-graphs of one structure and one input/output shape (paper, section 4.5.3, Algorithm 1).

Regions are compared by Merkle hash: the kind of each node, its attributes, the shapes of its constants and the hashes
of its inputs. Values of weights are not structure, nor are dilations (with the padding that goes with them): the last
blocks of a dilated network differ in nothing else.

Tensors may pass blocks by: an attention mask that every layer reads, a long skip connection around all blocks. While
such a tensor is alive no single tensor separates one block from the next, and the whole network looks like one
sub-graph. `divide_hidden` divides the stretch again with the long-lived tensors set aside: they stay what they are
whichever blocks are skipped. The division counts where it shows repeated blocks.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from runner.graph.runtime import bodies
from runner.graph.structure import Region, RegionLayout, Role, Structure, is_branching, last_uses

_COMMUTATIVE = frozenset({"Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Equal"})
# A longer unit than this is no longer "a block", and looking for it would cost the square of the graph.
_LONGEST_UNIT = 64
_MOST_INTEGERS = 64


@dataclass(frozen=True)
class Unit:
    """One repetition: regions `[start, end)` of the layout, from tensor `entry` to tensor `result`."""

    start: int
    end: int
    entry: str
    result: str


@dataclass(frozen=True)
class RepeatedRun:
    """Two or more neighbouring units that are alike, in the order they run."""

    units: tuple[Unit, ...]


def find_runs(structure: Structure, layout: RegionLayout) -> tuple[RepeatedRun, ...]:
    """Return all runs, the last first; for each end the shortest unit that repeats."""
    regions = layout.regions
    digests = [_region_digest(structure, layout, region) for region in regions]
    runs: list[RepeatedRun] = []
    end = len(regions)
    while end > 1:
        candidates = (_run(structure, regions, digests, end, size) for size in range(1, _LONGEST_UNIT + 1))
        run = next(filter(None, candidates), None)
        if run is None:
            end -= 1
            continue
        runs.append(run)
        end = run.units[0].start
    return tuple(runs)


def _run(
    structure: Structure, regions: Sequence[Region], digests: Sequence[bytes], end: int, size: int
) -> RepeatedRun | None:
    """Return the longest run of units of this size that ends here."""
    pattern = digests[end - size : end]
    if end < 2 * size or digests[end - 2 * size : end - size] != pattern:
        return None
    if not any(region.branching for region in regions[end - size : end]):
        return None
    units: list[Unit] = []
    start = end - size
    while start >= 0 and digests[start : start + size] == pattern:
        entries, result = regions[start].entries, regions[start + size - 1].result
        # Skipping needs a block whose input can take the place of its output.
        if len(entries) != 1 or result is None or not same_type(structure, entries[0], result):
            break
        units.insert(0, Unit(start, start + size, entries[0], result))
        start -= size
    return RepeatedRun(tuple(units)) if len(units) > 1 else None


def same_type(structure: Structure, one: str, other: str) -> bool:
    """Return whether two tensors have one element type and shape, by expression or for every size tried.

    A size that is not inferred from the sizes of the inputs shows when the model is run.
    """
    first, second = structure.types.get(one), structure.types.get(other)
    if first is None or first.dims is None or second is None or first.elem_type != second.elem_type:
        return False
    if first == second:
        return True
    pairs = [(types.get(one), types.get(other)) for types in structure.pinned_types]
    if pairs and all(pin is not None and pin.size_bytes for pair in pairs for pin in pair):
        return all(pin == other_pin for pin, other_pin in pairs)
    shown = [(run.types.get(one), run.types.get(other)) for run in structure.trial_runs]
    return len(shown) > 1 and all(first_run is not None and first_run == other_run for first_run, other_run in shown)


def _region_digest(structure: Structure, layout: RegionLayout, region: Region) -> bytes:
    """Return the Merkle hash of what a region computes from its entries."""
    digests: dict[str, bytes] = {name: b"entry %d" % index for index, name in enumerate(region.entries)}
    last = b""
    for position in range(region.start, region.end):
        index = structure.data[position]
        last = _node_digest(structure.nodes[index], lambda name: digests.get(name) or _outside(structure, name))
        for number, name in enumerate(structure.writes[index]):
            digests[name] = b"%d of " % number + last
    return digests.get(region.result, last) if region.result else last


# Says what a tensor contributes to structure.
_Describe = Callable[[str], bytes]


def _node_digest(node: onnx.NodeProto, describe: _Describe) -> bytes:
    """Return the hash of a node and of what it reads."""
    read = [describe(name) for name in node.input]
    # Exporters write the operands of a residual addition in either order.
    if node.op_type in _COMMUTATIVE:
        read.sort()
    return hashlib.sha256(repr((node.domain, node.op_type, _attributes(node, describe), read)).encode()).digest()


def _body_digest(body: onnx.GraphProto, describe: _Describe) -> list[bytes]:
    """Return the hashes of what a body of control flow gives, whatever its tensors are called."""
    own = {value.name: b"taken %d" % index for index, value in enumerate(body.input)}
    for tensor in body.initializer:
        own[tensor.name] = f"constant {tensor.data_type} {tuple(tensor.dims)} {_small_integers(tensor)}".encode()

    def inside(name: str) -> bytes:
        return own.get(name) or describe(name)

    for node in body.node:
        digest = _node_digest(node, inside)
        own |= {name: b"%d of " % number + digest for number, name in enumerate(node.output) if name}
    return [inside(value.name) for value in body.output]


def _outside(structure: Structure, name: str) -> bytes:
    """Describe what a constant, a shape, a tensor that passes by or an absent input contributes to structure."""
    if not name:
        return b"absent"
    tensor_type = structure.types.get(name)
    dims = None if tensor_type is None else tensor_type.dims
    if structure.role_of(name) is Role.STATE:
        return f"state {tensor_type and tensor_type.elem_type} {dims}".encode()  # blocks have one each
    if structure.role_of(name) is Role.DATA:
        return f"passing {name}".encode()  # blocks are alike only where they read the same mask
    if structure.role_of(name) is Role.SHAPE:
        return f"shape {None if dims is None else len(dims)}".encode()
    return f"constant {tensor_type and tensor_type.elem_type} {dims} {_structural_value(structure, name)}".encode()


def _structural_value(structure: Structure, name: str) -> list[int] | None:
    """Return the value of a small int64 constant: axes and sizes are structure, weights are not."""
    tensor_type = structure.types.get(name)
    if tensor_type is None or tensor_type.elem_type != TensorProto.INT64:
        return None
    tensor = structure.small_constants.get(name)
    return None if tensor is None else [int(value) for value in numpy_helper.to_array(tensor).ravel()]


def _small_integers(tensor: TensorProto) -> list[int] | None:
    """Return axes and sizes that a body holds; large tensors are no such, and may be on disk."""
    if tensor.data_type != TensorProto.INT64 or math.prod(tensor.dims) > _MOST_INTEGERS:
        return None
    return [int(value) for value in numpy_helper.to_array(tensor).ravel()]


def _attributes(node: onnx.NodeProto, describe: _Describe) -> list[tuple[str, Any]]:
    """Return a node's attributes in one order, without dilations."""
    values: dict[str, Any] = {attribute.name: _attribute_value(attribute, describe) for attribute in node.attribute}
    kernel, pads = values.get("kernel_shape"), values.get("pads")
    dilations = values.pop("dilations", None) or [1] * len(kernel or ())
    if kernel and pads and len(pads) == 2 * len(kernel) == 2 * len(dilations):
        axes = range(len(kernel))
        # What the padding is beyond the dilated kernel's reach: the same for every dilation that keeps the size.
        values["pads"] = [pads[i] + pads[i + len(kernel)] - dilations[i] * (kernel[i] - 1) for i in axes]
    return sorted(values.items())


def _attribute_value(attribute: onnx.AttributeProto, describe: _Describe) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return (value.data_type, tuple(value.dims))
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        return [_body_digest(body, describe) for body in bodies(attribute)]
    return list(value) if attribute.type >= onnx.AttributeProto.FLOATS else value


# A tensor is set aside where it is alive for so many parts of a stretch: first those that span half of it. Within the
# blocks themselves every tensor lives shorter than this, unless there are too few of them to be worth a search.
_SHARES = (2, 4, 8)
# Two blocks of a few nodes each, and an eighth of the graph: a search costs time in proportion to the whole graph.
_SHORTEST_STRETCH, _LEAST_SHARE = 8, 1 / 8


def divide_hidden(structure: Structure, layout: RegionLayout) -> RegionLayout:
    """Return a layout without repeated blocks with each stretch divided that hides some behind tensors that pass by."""
    last_use = last_uses(structure)
    shortest = max(_SHORTEST_STRETCH, _LEAST_SHARE * len(structure.data))
    divided = layout
    for region in layout.regions:
        if region.end - region.start >= shortest:
            divided = _divided(structure, divided, region, _lives(structure, region, last_use))
    return divided


def _lives(structure: Structure, region: Region, last_use: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return for every tensor of a stretch the positions from which and up to which it is needed there."""
    lives = {name: (region.start - 1, min(last_use[name], region.end)) for name in region.entries}
    for position in range(region.start, region.end):
        for name in structure.writes[structure.data[position]]:
            if name in last_use:
                lives[name] = (position, min(last_use[name], region.end))
    return lives


def _divided(
    structure: Structure, layout: RegionLayout, region: Region, lives: Mapping[str, tuple[int, int]]
) -> RegionLayout:
    """Return the layout with this region divided where blocks repeat in it, or else as it is."""
    tried: set[frozenset[str]] = set()
    for share in _SHARES:
        length = (region.end - region.start) / share
        passing = frozenset(name for name, (first, last) in lives.items() if last - first >= length)
        if not passing or passing in tried:
            continue
        tried.add(passing)
        place = layout.regions.index(region)
        inner = _swept(structure, layout, region, passing, lives)
        candidate = replace(layout, regions=(*layout.regions[:place], *inner, *layout.regions[place + 1 :]))
        # A run may go on behind the last reader of a mask, where the blocks were no longer hidden.
        runs = [run for run in find_runs(structure, candidate) if _touches(run, candidate, region)]
        if runs and all(_is_passed_by(structure, run, candidate, passing, lives) for run in runs):
            return candidate
    return layout


def _swept(
    structure: Structure,
    layout: RegionLayout,
    region: Region,
    passing: frozenset[str],
    lives: Mapping[str, tuple[int, int]],
) -> Iterator[Region]:
    """Yield the regions of a stretch between tensors that everything but the passing ones goes through."""
    ends = {name: last for name, (_, last) in lives.items()}
    # What all else comes from is the stream itself, from which a long skip connection branches off.
    alive = set(region.entries) - passing or set(region.entries)
    ends |= {name: _first_uses_end(structure, name, lives[name][1]) for name in alive & passing}
    entries, start = tuple(sorted(alive)), region.start
    for position in range(region.start, region.end):
        index = structure.data[position]
        written = [name for name in structure.writes[index] if name in lives]
        alive.update(name for name in written if name not in passing)
        alive -= {name for name in structure.reads[index] if ends.get(name) == position}
        follows = position + 1 < region.end and _reads(structure, position + 1, written)
        if not alive and len(written) == 1 and follows:
            ends[written[0]] = _first_uses_end(structure, written[0], lives[written[0]][1])
            alive.update(written)
        if position == region.end - 1:
            yield _region(structure, layout, start, region.end, entries, region.result)
        elif len(alive) == 1:
            (result,) = alive
            yield _region(structure, layout, start, position + 1, entries, result)
            entries, start = (result,), position + 1


def _reads(structure: Structure, position: int, names: list[str]) -> bool:
    return not set(names).isdisjoint(structure.reads[structure.data[position]])


def _first_uses_end(structure: Structure, name: str, last: int) -> int:
    """Return the position of the last use of a tensor before the longest time without one."""
    users = structure.consumers.get(name, ())
    uses = [position for user in users if (position := structure.positions[user]) <= last]
    # An output, or what is read beyond this stretch, is in use up to its end.
    uses += [last] if last not in uses else []
    gaps = [following - use for use, following in pairwise(uses)]
    return uses[gaps.index(max(gaps))] if gaps else last


def _region(
    structure: Structure, layout: RegionLayout, start: int, end: int, entries: tuple[str, ...], result: str | None
) -> Region:
    return Region(start, end, entries, result, is_branching(structure, layout.initializers, start, end))


def _span(run: RepeatedRun, layout: RegionLayout) -> range:
    """Return the positions of the nodes of a run."""
    return range(layout.regions[run.units[0].start].start, layout.regions[run.units[-1].end - 1].end)


def _touches(run: RepeatedRun, layout: RegionLayout, region: Region) -> bool:
    span = _span(run, layout)
    return span.start < region.end and region.start < span.stop


def _is_passed_by(
    structure: Structure,
    run: RepeatedRun,
    layout: RegionLayout,
    passing: frozenset[str],
    lives: Mapping[str, tuple[int, int]],
) -> bool:
    """Return whether no passing tensor is made within the blocks of a run: what is skipped gives one tensor alone."""
    span = _span(run, layout)
    # That one may pass by what follows, as an encoder's result does. In the order of the file it may not, because the
    # cuts of models whose parts were measured depend on which blocks are found there.
    results = {run.units[-1].result} if structure.order is not None else set()
    return not any(lives[name][0] in span for name in passing - results)
