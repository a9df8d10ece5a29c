"""Tiers, links and the routes between them; names may contain `-`, so they are resolved against what is declared."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


class TopologyError(ValueError):
    """A placement or link that cannot be resolved; translated into a CatalogFileError with its line."""


@dataclass(frozen=True)
class Topology:
    """Declared names only.

    Attributes
    ----------
    tiers : tuple of str
        In declared order, the client's first.
    link_names : tuple of str
        Each two tiers joined by `-`, the one nearer to the client first.
    """

    tiers: tuple[str, ...]
    link_names: tuple[str, ...]

    @property
    def client(self) -> str:
        """The tier where requests start."""
        return self.tiers[0]

    def link_ends(self, name: str) -> tuple[str, str]:
        """Split a link's name into its two tiers; raises TopologyError."""
        readings = [reading for reading in self._readings(name) if len(reading) == 2]
        # With tiers `a`, `a-b`, `b-c` and `c`, the name `a-b-c` has two readings, and none is guessed.
        if len(readings) != 1:
            self._refuse_ambiguous(name, readings)
            raise TopologyError(f"link {name!r} does not join two declared tiers ({', '.join(self.tiers)})")
        first, second = readings[0]
        if first == second:
            raise TopologyError(f"link {name!r} joins a tier with itself")
        return first, second

    def placement(self, name: str) -> tuple[str, ...]:
        """Split a placement's name into its tiers; raises TopologyError."""
        readings = self._readings(name)
        if len(readings) != 1:
            self._refuse_ambiguous(name, readings)
            raise TopologyError(f"placement {name!r} is not made of declared tiers ({', '.join(self.tiers)})")
        if len(set(readings[0])) != len(readings[0]):
            raise TopologyError(f"placement {name!r} names a tier twice; each part runs on a tier of its own")
        return readings[0]

    def route(self, placement: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tiers a request touches, from the client's through all of `placement`; raises TopologyError."""
        route = [self.client]
        for tier in placement:
            route += self._path(route[-1], tier)[1:]
        return tuple(route)

    def links(self, route: tuple[str, ...]) -> tuple[str, ...]:
        """Return the link names along a route."""
        # Two tiers have one link at most, because its name is made of theirs.
        names = {ends: name for name, ends in self._ends.items()}
        return tuple(names[pair] for pair in itertools.pairwise(route))

    @cached_property
    def _ends(self) -> dict[str, tuple[str, str]]:
        return {name: self.link_ends(name) for name in self.link_names}

    def _path(self, source: str, target: str) -> list[str]:
        """Search breadth first: the fewest links, in declared order."""
        paths = {source: [source]}
        waiting = [source]
        while waiting and target not in paths:
            tier = waiting.pop(0)
            for first, second in self._ends.values():
                # In the link's direction only: answers travel back over the same link.
                if first == tier and second not in paths:
                    paths[second] = [*paths[tier], second]
                    waiting.append(second)
        if target not in paths:
            raise TopologyError(self._no_route(source, target))
        return paths[target]

    def _no_route(self, source: str, target: str) -> str:
        declared = ", ".join(self.link_names) or "none"
        return (
            f"no route from tier {source!r} to tier {target!r} over the declared links ({declared}); "
            f"links lead away from the client's tier, so declare for example {source}-{target}"
        )

    def _readings(self, name: str) -> list[tuple[str, ...]]:
        """Yield every way to read a name as declared tiers joined by `-`."""
        readings: list[tuple[str, ...]] = [(name,)] if name in self.tiers else []
        for tier in self.tiers:
            if name.startswith(f"{tier}-"):
                readings += [(tier, *rest) for rest in self._readings(name[len(tier) + 1 :])]
        return readings

    def _refuse_ambiguous(self, name: str, readings: Sequence[tuple[str, ...]]) -> None:
        if len(readings) > 1:
            ways = " or ".join(" + ".join(reading) for reading in readings[:2])
            raise TopologyError(f"{name!r} can be read as {ways}; rename one of these tiers")
