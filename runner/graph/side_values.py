"""The values of shape nodes that cross a cut: a few integers, computed from the shapes of tensors before it.

A model may compute a shape per block, or read one shape in every block, and have a cut after each. So values are
grouped by the Shape nodes behind them, and a cut looks only at groups whose Shape nodes it may part from their readers.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from runner.graph.cuts import CutPlace
from runner.graph.runtime import SERVED_TYPES
from runner.graph.structure import Role, Structure


@dataclass
class _ValueGroup:
    """Shape values behind which are the same Shape nodes.

    `sources` has the output of each Shape node with the tensor that it reads, `first` is the position of the first node
    that gives such a tensor (-1 for an input of the model). `uses` are the places where data nodes read the values:
    number of the use, position, name.
    """

    sources: dict[str, str]
    first: int
    uses: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last position at which a value is read."""
        return self.uses[-1][1]

    @cached_property
    def _last_positions(self) -> list[int]:
        """The last position at which each value is read, in order."""
        return sorted({name: position for _, position, name in self.uses}.values())

    def read_from(self, position: int) -> int:
        """Return how many of the values are read at this position or later."""
        return len(self._last_positions) - bisect_left(self._last_positions, position)

    def used_in_tail(self, place: CutPlace) -> list[tuple[int, str]]:
        """Return the uses in the tail of a cut: number and name."""
        start = bisect_left(self.uses, place.start, key=lambda use: use[1])
        return [(number, name) for number, position, name in self.uses[start:] if not place.in_head(position)]

    def last_in_tail(self, place: CutPlace) -> list[tuple[int, str]]:
        """Return the last of the uses in the tail, if there are any."""
        for number, position, name in reversed(self.uses):
            if position < place.start:
                break
            if not place.in_head(position):
                return [(number, name)]
        return []


class Sides:
    """The shape nodes of a graph: where their values come from, and where data nodes read them."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._position = {index: position for position, index in enumerate(structure.data)}
        self._uses = [
            (position, name)
            for position, index in enumerate(structure.data)
            for name in structure.reads[index]
            if structure.role_of(name) is Role.SHAPE
        ]
        # Outputs are given by the tail, whatever computes them.
        self._uses += [
            (len(structure.data), name) for name in structure.outputs if structure.role_of(name) is Role.SHAPE
        ]
        self._sources_by_name: dict[str, dict[str, str]] = {}

    def crossing(self, place: CutPlace) -> tuple[str, ...]:
        """Return the shape values the tail lacks: late ones or the Shape nodes' own outputs, whichever are fewer.

        The Shape nodes' own outputs are integers; late values of another or an unknown type do not cross.
        """
        parted = [group for group in self._parted(place) if not self._is_in_tail(place, group)]
        # All that a group adds to the Shape nodes' outputs is known from one of its values.
        uses = [use for group in parted for use in (self._of_mixed(place, group) or group.last_in_tail(place))]
        late, early = self._walked(place, uses)
        head_end = place.start + place.inside.bit_length()
        if sum(group.read_from(head_end) for group in parted if not self._of_mixed(place, group)) <= len(early):
            late, early = self._walked(place, (use for group in parted for use in group.used_in_tail(place)))
            if len(late) <= len(early) and all(map(self._is_served, late)):
                return tuple(late)
        return tuple(early)

    def _walked(self, place: CutPlace, uses: Iterable[tuple[int, str]]) -> tuple[dict[str, None], dict[str, None]]:
        """Return the late values that these uses need, and the outputs of the Shape nodes behind them."""
        pending = [name for _, name in sorted(uses)]
        late: dict[str, None] = {}
        early: dict[str, None] = {}
        visited: set[str] = set()
        while pending:
            name = pending.pop()
            if name in visited:
                continue
            visited.add(name)
            sources = self._sources(name)
            if all(self._in_tail(place, tensor) for tensor in sources.values()):
                continue
            if all(not self._in_tail(place, tensor) for tensor in sources.values()):
                late[name] = None
                early |= dict.fromkeys(sources)
            else:
                pending += [read for read in self._reads(name) if self._structure.role_of(read) is Role.SHAPE]
        return late, early

    def _parted(self, place: CutPlace) -> list[_ValueGroup]:
        """Return the groups with a Shape node before a place in the head and a reader that may be in the tail."""
        # Of the positions in the head, only those at which a group starts: a region may be the whole graph.
        first = bisect_left(self._starts, place.start)
        behind = bisect_left(self._starts, place.start + place.inside.bit_length())
        inside = self._starts[first:behind]
        groups = [*self._open_at.get(place.start, ()), *(group for p in inside for group in self._starting[p])]
        return [group for group in groups if group.last >= place.start]

    def _is_in_tail(self, place: CutPlace, group: _ValueGroup) -> bool:
        return all(self._in_tail(place, tensor) for tensor in group.sources.values())

    def _of_mixed(self, place: CutPlace, group: _ValueGroup) -> list[tuple[int, str]]:
        """Return the uses in the tail of a group whose Shape nodes are on both sides; none of another group."""
        mixed = len({self._in_tail(place, tensor) for tensor in group.sources.values()}) > 1
        return group.used_in_tail(place) if mixed else []

    @cached_property
    def _starting(self) -> dict[int, list[_ValueGroup]]:
        """The groups by the position of the first node whose shape they need."""
        groups: dict[frozenset[str], _ValueGroup] = {}
        for number, (position, name) in enumerate(self._uses):
            sources = self._sources(name)
            key = frozenset(sources)
            if key not in groups:
                groups[key] = _ValueGroup(sources, min(self._given_at(tensor) for tensor in sources.values()))
            groups[key].uses.append((number, position, name))
        starting: dict[int, list[_ValueGroup]] = {}
        for group in groups.values():
            starting.setdefault(group.first, []).append(group)
        return starting

    @cached_property
    def _starts(self) -> list[int]:
        """The positions at which groups start, in order."""
        return sorted(self._starting)

    @cached_property
    def _open_at(self) -> dict[int, Sequence[_ValueGroup]]:
        """By position: the groups that begin before it and are read there or later; absent where there are none."""
        open_groups = self._starting.get(-1, [])
        opened: dict[int, Sequence[_ValueGroup]] = {}
        for position in range(len(self._structure.data) + 1):
            open_groups = [group for group in open_groups if group.last >= position]
            if open_groups:
                opened[position] = open_groups
            open_groups = [*open_groups, *self._starting.get(position, ())]
        return opened

    def _given_at(self, tensor: str) -> int:
        """Return the position of the node that gives a tensor; -1 for an input."""
        return self._position.get(self._structure.producer.get(tensor, -1), -1)

    def read_from(self, span: range, *, beyond: int) -> bool:
        """Return whether a shape inside these data nodes is used from position `beyond` on.

        The shape of the last result before `beyond` does not count: its readers will read the shape of its replacement.
        """
        results = self._structure.writes[self._structure.data[beyond - 1]]
        return any(
            used >= beyond and tensor not in results
            for position in span
            for used, tensor in self._shapes_used.get(position, ())
        )

    @cached_property
    def _shapes_used(self) -> dict[int, list[tuple[int, str]]]:
        """By position of a node: where data nodes use a shape of its outputs, and which output."""
        uses: dict[int, list[tuple[int, str]]] = {}
        for used, name in self._uses:
            for tensor in self._sources(name).values():
                source = self._position.get(self._structure.producer.get(tensor, -1))
                if source is not None:
                    uses.setdefault(source, []).append((used, tensor))
        return uses

    def _is_served(self, name: str) -> bool:
        tensor_type = self._structure.types.get(name)
        return tensor_type is not None and tensor_type.dims is not None and tensor_type.elem_type in SERVED_TYPES

    def _in_tail(self, place: CutPlace, tensor: str) -> bool:
        """Return whether the tail has this tensor: computed there, or received."""
        if tensor in place.tensors:
            return True
        source = self._position.get(self._structure.producer.get(tensor, -1))
        return source is not None and not place.in_head(source)

    def _sources(self, name: str) -> dict[str, str]:
        """Return the Shape nodes behind a shape value: their output, and the tensor whose shape they read."""
        if name in self._sources_by_name:
            return self._sources_by_name[name]
        structure = self._structure
        sources: dict[str, str] = {}
        waiting, seen = [name], {name}
        while waiting:
            current = waiting.pop()
            index = structure.producer[current]
            if structure.nodes[index].op_type in ("Shape", "Size"):
                sources[current] = structure.nodes[index].input[0]
                continue
            for read in structure.reads[index]:
                if structure.role_of(read) is Role.SHAPE and read not in seen:
                    seen.add(read)
                    waiting.append(read)
        self._sources_by_name[name] = sources
        return sources

    def _reads(self, name: str) -> tuple[str, ...]:
        return self._structure.reads[self._structure.producer[name]]
