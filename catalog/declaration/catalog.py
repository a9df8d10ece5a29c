"""From the file to a catalog: cross checks, and the expansion into strategies."""

import difflib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from catalog.declaration.schema import (
    CatalogSpec,
    ExperimentSpec,
    LinkSpec,
    PassSpec,
    SloSpec,
    SubjectSpec,
    TierSpec,
)
from catalog.declaration.yaml_source import Source, read_yaml
from catalog.errors import CatalogFileError


@dataclass(frozen=True)
class Placement:
    """The ordered tiers that run a strategy's parts."""

    name: str
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Strategy:
    """An operator on a placement, for a subject; the route starts at the client's tier and includes relays."""

    subject: str
    operator: str
    passes: tuple[PassSpec, ...]
    placement: Placement
    route: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.operator}@{self.placement.name}"


@dataclass(frozen=True)
class Catalog:
    """A checked catalog file."""

    file: Path
    spec: CatalogSpec
    expanded: tuple[Strategy, ...]

    @property
    def subjects(self) -> Mapping[str, SubjectSpec]:
        return self.spec.subjects

    @property
    def operators(self) -> Mapping[str, tuple[PassSpec, ...]]:
        return self.spec.operators

    @property
    def tiers(self) -> Mapping[str, TierSpec]:
        return self.spec.tiers

    @property
    def links(self) -> Mapping[str, LinkSpec]:
        return self.spec.links

    @property
    def experiment(self) -> ExperimentSpec:
        return self.spec.experiment

    @property
    def slos(self) -> Mapping[str, SloSpec]:
        return self.spec.slos

    def strategies(self) -> tuple[Strategy, ...]:
        """Every declared strategy, in declared order."""
        return self.expanded


def load_catalog(path: Path) -> Catalog:
    """Read and check a catalog file.

    Raises
    ------
    CatalogFileError
        With file, line, column, what was got, what is allowed, and the nearest spelling.
    """
    source = read_yaml(path)
    if not isinstance(source.value, dict):
        raise source.error("a catalog is a mapping with version, subjects, operators, tiers, strategies")
    try:
        spec = CatalogSpec.model_validate(source.value)
    except ValidationError as error:
        raise _translate(source, error) from error
    return Catalog(path, spec, tuple(_expand(source, spec)))


def _translate(source: Source, error: ValidationError) -> CatalogFileError:
    """The first pydantic error as ours: with its place, what is allowed, and the nearest spelling."""
    first = error.errors(include_url=False)[0]
    path = tuple(part for part in first["loc"] if part != "[key]")
    where = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        allowed = _allowed_keys(source.value, path)
        return source.error(f"unknown key {str(path[-1])!r} in {'.'.join(map(str, path[:-1])) or 'the catalog'}; "
                            f"allowed: {', '.join(allowed)}.{nearest(str(path[-1]), allowed)}", path)
    if first["type"] == "missing":
        return source.error(f"{where} is missing", path)
    message = str(first["msg"]).removeprefix("Value error, ")
    got = first.get("input")
    shown = "" if "got" in message else f", got {got!r}"
    return source.error(f"{where}: {message}{shown}", path)


def _allowed_keys(value: Any, path: tuple[Any, ...]) -> list[str]:
    """The keys of the model that holds the unknown one."""
    models: dict[str, type[BaseModel]] = {
        "subjects": SubjectSpec, "tiers": TierSpec, "links": LinkSpec, "slos": SloSpec, "experiment": ExperimentSpec,
    }
    model: type[BaseModel] = CatalogSpec
    if len(path) > 1:
        model = models.get(str(path[0]), CatalogSpec)
        if path[0] == "strategies":
            return ["operators", "placements", "subjects"]
        if "accuracy" in path:
            return ["min", "max_drop"]
    return [field.alias or name for name, field in model.model_fields.items()]


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _known(source: Source, kind: str, word: str, known: Iterable[str], path: tuple[str | int, ...]) -> None:
    names = list(known)
    if word not in names:
        raise source.error(f"unknown {kind} {word!r}; declared: {', '.join(names)}.{nearest(word, names)}", path)


def _expand(source: Source, spec: CatalogSpec) -> list[Strategy]:
    """Check every name, then combine."""
    ends = {name: _link_ends(source, spec, name) for name in spec.links}
    seen: set[tuple[str, str, str]] = set()
    strategies = []
    for index, entry in enumerate(spec.strategies):
        here = ("strategies", index)
        for position, name in enumerate(entry.subjects or ()):
            _known(source, "subject", name, spec.subjects, (*here, "subjects", position))
        for position, name in enumerate(entry.operators):
            _known(source, "operator", name, spec.operators, (*here, "operators", position))
        placed = []
        for position, name in enumerate(entry.placements):
            placed.append(_place(source, spec, ends, name, (*here, "placements", position)))
        for subject in entry.subjects or spec.subjects:
            for operator in entry.operators:
                for placement, route, links in placed:
                    key = (subject, operator, placement.name)
                    if key in seen:
                        raise source.error(f"{operator} on {placement.name} is declared twice for {subject}", here)
                    seen.add(key)
                    strategies.append(Strategy(subject, operator, spec.operators[operator], placement, route, links))
    return strategies


def _split(name: str, tiers: Iterable[str]) -> tuple[str, ...] | None:
    """`mobile-edge` as declared tier names, which may hold `-` themselves."""
    names = set(tiers)
    if name in names:
        return (name,)
    for position, letter in enumerate(name):
        if letter == "-" and name[:position] in names:
            rest = _split(name[position + 1 :], names)
            if rest is not None:
                return (name[:position], *rest)
    return None


def _link_ends(source: Source, spec: CatalogSpec, name: str) -> tuple[str, str]:
    parts = _split(name, spec.tiers)
    if parts is None or len(parts) != 2 or parts[0] == parts[1]:
        raise source.error(
            f"link {name!r} must name two declared tiers, such as {'-'.join(list(spec.tiers)[:2])}; "
            f"declared: {', '.join(spec.tiers)}", ("links", name))
    return parts[0], parts[1]


def _place(
    source: Source, spec: CatalogSpec, ends: Mapping[str, tuple[str, str]], name: str, path: tuple[str | int, ...]
) -> tuple[Placement, tuple[str, ...], tuple[str, ...]]:
    tiers = _split(name, spec.tiers)
    if tiers is None:
        raise source.error(
            f"placement {name!r} must name declared tiers, joined by '-'; declared: {', '.join(spec.tiers)}."
            f"{nearest(name, spec.tiers)}", path)
    route, links = [next(iter(spec.tiers))], list[str]()
    for target in tiers:
        if target == route[-1]:
            continue
        step = _route(route[-1], target, ends)
        if step is None:
            raise source.error(
                f"placement {name!r} has no route from {route[-1]!r} to {target!r}; links: {', '.join(ends) or 'none'}", path)
        route += step[0]
        links += step[1]
    return Placement(name, tiers), tuple(route), tuple(links)


def _route(
    start: str, target: str, ends: Mapping[str, tuple[str, str]]
) -> tuple[list[str], list[str]] | None:
    """Tiers after the start and links, the fewest that lead there (a link is used in its declared direction)."""
    ways: deque[tuple[str, list[str], list[str]]] = deque([(start, [], [])])
    seen = {start}
    while ways:
        here, tiers, links = ways.popleft()
        if here == target:
            return tiers, links
        for link, (first, second) in ends.items():
            if first == here and second not in seen:
                seen.add(second)
                ways.append((second, [*tiers, second], [*links, link]))
    return None
