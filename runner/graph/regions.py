"""The graph as a row of regions between separators: tensors that everything passes through.

One sweep over the data nodes keeps the set of tensors that are still needed; where it is a single one, the graph can be
parted. A region of one node is a link of a chain; a region of several is a *branching* one, and only those that hold
weights count as sub-graphs (paper, section 4.5.3: "a branch network of graphical nodes").
"""

from collections.abc import Mapping
from dataclasses import dataclass

from runner.graph.structure import Role, Structure


@dataclass(frozen=True)
class Region:
    """Data nodes `[start, end)` of `Structure.data`, with one tensor (or the model's inputs) in and one out.

    `result` is None at the end of a model with several outputs.
    """

    start: int
    end: int
    entries: tuple[str, ...]
    result: str | None
    branching: bool


@dataclass(frozen=True)
class Layout:
    """The regions in order, and the constants each data node draws on, by position in `Structure.data`."""

    regions: tuple[Region, ...]
    initializers: tuple[frozenset[str], ...]
    own_bytes: tuple[int, ...]
    users: Mapping[str, tuple[int, ...]]


def lay_out(structure: Structure) -> Layout:
    """Part the graph into regions and attribute the constants to the nodes that use them."""
    initializers, own_bytes = _attribute(structure)
    users: dict[str, list[int]] = {}
    for position, names in enumerate(initializers):
        for name in names:
            users.setdefault(name, []).append(position)
    regions = _sweep(structure, initializers)
    return Layout(regions, initializers, own_bytes, {name: tuple(found) for name, found in users.items()})


def _attribute(structure: Structure) -> tuple[tuple[frozenset[str], ...], tuple[int, ...]]:
    """Per data node: the initializers behind it, and the bytes of the node with its constant nodes."""
    behind: dict[str, tuple[frozenset[str], frozenset[int]]] = {}
    initializers, own_bytes = [], []
    for index in structure.data:
        names: set[str] = set()
        nodes = {index}
        for tensor in structure.reads[index]:
            if structure.role_of(tensor) is Role.CONSTANT:
                found = behind.setdefault(tensor, structure.constants_behind(tensor))
                names |= found[0]
                nodes |= found[1]
        initializers.append(frozenset(names))
        own_bytes.append(sum(structure.node_bytes[each] for each in nodes))
    return tuple(initializers), tuple(own_bytes)


def _sweep(structure: Structure, initializers: tuple[frozenset[str], ...]) -> tuple[Region, ...]:
    """The regions, by the live set after each data node."""
    last_use = _last_uses(structure)
    alive = {name for name in structure.inputs if name in last_use}
    entries, start = tuple(sorted(alive)), 0
    regions: list[Region] = []
    for position, index in enumerate(structure.data):
        alive.update(name for name in structure.writes[index] if name in last_use)
        alive -= {name for name in structure.reads[index] if last_use.get(name) == position}
        at_end = position == len(structure.data) - 1
        if len(alive) == 1 or at_end:
            (result,) = alive if len(alive) == 1 else (None,)
            weighted = any(_weighty(structure, name) for each in initializers[start : position + 1] for name in each)
            regions.append(Region(start, position + 1, entries, result, position > start and weighted))
            entries, start = tuple(sorted(alive)), position + 1
    return tuple(regions)


def _last_uses(structure: Structure) -> dict[str, int]:
    """Position of the last data node that reads a tensor; outputs are needed to the end."""
    last: dict[str, int] = {}
    for position, index in enumerate(structure.data):
        for name in structure.reads[index]:
            if structure.role_of(name) is Role.DATA:
                last[name] = position
    return last | dict.fromkeys(structure.outputs, len(structure.data))


def _weighty(structure: Structure, initializer: str) -> bool:
    """Whether an initializer is the weight of a layer and not a bias, a scale or a shape."""
    found = structure.types.get(initializer)
    return found is not None and found.dims is not None and sum(size != 1 for size in found.dims) > 1
