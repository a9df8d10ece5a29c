"""Blocks that tensors pass by: an attention mask that every layer reads, a long skip connection around all blocks.

While such a tensor is alive no single tensor separates one block from the next, and the whole network looks like one
sub-graph. Here the stretch is divided again with the long-lived tensors set aside: they stay what they are whichever
blocks are skipped. The division counts where it shows repeated blocks.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from runner.graph.repeated_blocks import RepeatedRun, find_runs
from runner.graph.structure import Region, RegionLayout, Structure, is_branching, last_uses

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
        if runs and all(_is_passed_by(run, candidate, passing, lives) for run in runs):
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
    uses = [position for user in users if (position := bisect_left(structure.data, user)) <= last]
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
    run: RepeatedRun, layout: RegionLayout, passing: frozenset[str], lives: Mapping[str, tuple[int, int]]
) -> bool:
    """Return whether no passing tensor is made within the blocks of a run: what is skipped gives one tensor alone."""
    span = _span(run, layout)
    return not any(lives[name][0] in span for name in passing)
