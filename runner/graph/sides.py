"""Shape branches: what a Shape node far away hands to a Resize or Reshape, and how a cut carries it.

Such values are a few integers and cost nothing to compute, so a tail recomputes whatever follows from the tensors it
gets anyway, and is sent the rest.
"""

from functools import cached_property

from runner.graph.cuts import CutPlace
from runner.graph.structure import Role, Structure


class Sides:
    """The shape nodes of a graph, by where their values come from and where data nodes read them."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._position = {index: position for position, index in enumerate(structure.data)}
        self._uses = [
            (position, name)
            for position, index in enumerate(structure.data)
            for name in structure.reads[index]
            if structure.role_of(name) is Role.SHAPE
        ]
        self._known_sources: dict[str, dict[str, str]] = {}

    def crossing(self, place: CutPlace) -> tuple[str, ...]:
        """Shape values the tail needs and cannot compute: late ones or the Shape nodes' own, whichever are fewer."""
        wanted = [name for position, name in self._uses if not place.in_head(position)]
        late: dict[str, None] = {}
        early: dict[str, None] = {}
        visited: set[str] = set()
        while wanted:
            name = wanted.pop()
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
                wanted += [read for read in self._reads(name) if self._structure.role_of(read) is Role.SHAPE]
        return tuple(late if len(late) <= len(early) else early)

    def read_from(self, span: range, *, beyond: int) -> bool:
        """Whether a shape inside these data nodes is used from position `beyond` on.

        That of the last result before `beyond` does not count: what reads it will read the shape of its replacement.
        """
        results = self._structure.writes[self._structure.data[beyond - 1]]
        return any(
            used >= beyond and tensor not in results
            for position in span
            for used, tensor in self._shapes_used.get(position, ())
        )

    @cached_property
    def _shapes_used(self) -> dict[int, list[tuple[int, str]]]:
        """By position of the node whose output's shape is read: where a data node uses that, and the output."""
        found: dict[int, list[tuple[int, str]]] = {}
        for used, name in self._uses:
            for tensor in self._sources(name).values():
                source = self._position.get(self._structure.producer.get(tensor, -1))
                if source is not None:
                    found.setdefault(source, []).append((used, tensor))
        return found

    def _in_tail(self, place: CutPlace, tensor: str) -> bool:
        """Whether the tail has this tensor: it computes it, or it is handed over."""
        if tensor in place.tensors:
            return True
        source = self._position.get(self._structure.producer.get(tensor, -1))
        return source is not None and not place.in_head(source)

    def _sources(self, name: str) -> dict[str, str]:
        """The Shape nodes behind a shape value: their output, and the tensor whose shape they read."""
        if name in self._known_sources:
            return self._known_sources[name]
        structure = self._structure
        found: dict[str, str] = {}
        waiting, seen = [name], {name}
        while waiting:
            current = waiting.pop()
            index = structure.producer[current]
            if structure.nodes[index].op_type in ("Shape", "Size"):
                found[current] = structure.nodes[index].input[0]
                continue
            for read in structure.reads[index]:
                if structure.role_of(read) is Role.SHAPE and read not in seen:
                    seen.add(read)
                    waiting.append(read)
        self._known_sources[name] = found
        return found

    def _reads(self, name: str) -> tuple[str, ...]:
        return self._structure.reads[self._structure.producer[name]]
