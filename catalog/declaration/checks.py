"""From a YAML document to a valid `CatalogFile`, every problem with its line, what is allowed, the nearest spelling.

The names of links and placements may contain `-`, so `Topology` resolves them against what is declared. YAML is
composed into nodes (which carry marks) and turned into plain data here, so that duplicate keys, aliases that explode
and values that YAML converts silently are caught where they stand.
"""

import difflib
import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from catalog.declaration.schema import (
    TAKING_ONE_MODEL,
    AccuracyTarget,
    AnalysisSpec,
    CatalogFile,
    DatasetFiles,
    ExperimentSpec,
    LinkSpec,
    PreprocessSpec,
    SloSpec,
    StrategySpec,
    SubjectSpec,
    TestbedSpec,
    TierPlace,
    TierSpec,
    parts_made,
)
from catalog.declaration.sweeps import setting_problems, sweep_problems
from catalog.errors import CatalogFileError, FileProblem
from catalog.foreign import read_regular
from catalog.units import counted

Path_ = tuple[str | int, ...]

_MAX_CHARACTERS = 2**20
# A few lines of nested aliases may expand to billions of values.
_MAX_VALUES = 20_000
_MAP, _SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
# The kinds that JSON has as well, because keys and the database hold JSON.
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True, order=True)
class Position:
    """Where something stands; counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class YamlDocument:
    """Plain data with the positions of its keys and values.

    Attributes
    ----------
    file : Path
    sha256 : str
        Of the text in UTF-8.
    data : object
        Dictionaries with text keys, lists and scalars.
    values, keys : mapping of path to Position
        A path is the tuple of keys and indices that leads to a value; `keys` has the key itself.
    """

    file: Path
    sha256: str
    data: object
    values: Mapping[Path_, Position]
    keys: Mapping[Path_, Position]

    def locate(self, path: Path_, *, key: bool = False) -> Position:
        """Find the nearest position: of the value (or its key), else of what contains it."""
        positions = self.keys if key else self.values
        while path not in positions:
            if not path:
                return Position(1, 1)
            path, positions = path[:-1], self.values
        return positions[path]


def read_yaml(file: Path) -> YamlDocument:
    """Read a YAML file.

    Parameters
    ----------
    file : Path

    Returns
    -------
    YamlDocument

    Raises
    ------
    CatalogFileError
        When it cannot be read or is malformed, with line and column.
    """
    try:
        text = read_regular(file).decode("utf-8")
    except FileNotFoundError as error:
        message = "there is no such file; write one with: runner init, or name another with --catalog"
        raise CatalogFileError(file, [FileProblem(1, 1, message)]) from error
    except UnicodeDecodeError as error:
        raise CatalogFileError(
            file, [FileProblem(1, 1, f"not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8")]
        ) from error
    except OSError as error:
        raise CatalogFileError(
            file, [FileProblem(1, 1, f"cannot be read: {error.strerror}; name a catalog file")]
        ) from error
    return parse_yaml(text, file)


def parse_yaml(text: str, file: Path) -> YamlDocument:
    """Parse YAML text; `file` is what messages name. Raises CatalogFileError as `read_yaml` does."""
    if len(text) > _MAX_CHARACTERS:
        raise CatalogFileError(file, [FileProblem(1, 1, f"longer than {_MAX_CHARACTERS} characters: not a catalog")])
    try:
        # Composed, not loaded: only nodes have marks, and loading keeps the last of two equal keys without a word.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise CatalogFileError(file, [FileProblem(1, 1, "the file is empty; it starts with `version: 1`")])
        building = _YamlBuilder(file)
        data = building.value(root, ())
    except yaml.reader.ReaderError as error:
        # This error has an offset, where the others have a mark.
        line, column = _line_and_column(text, error.position)
        message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise CatalogFileError(file, [FileProblem(line, column, message)]) from error
    except yaml.MarkedYAMLError as error:
        raise CatalogFileError(file, [_malformed(error, text)]) from error
    # PyYAML composes nested values by recursion.
    except RecursionError as error:
        raise CatalogFileError(file, [FileProblem(1, 1, "nested too deeply for a catalog")]) from error
    if building.problems:
        raise CatalogFileError(file, building.problems)
    # Of the bytes as they were read: text keeps what UTF-8 decodes.
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return YamlDocument(file, sha256, data, building.values, building.keys)


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _malformed(error: yaml.MarkedYAMLError, text: str) -> FileProblem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    around = lines[line - 1] if line <= len(lines) else ""
    if "\t" in around[: len(around) - len(around.lstrip())] or "'\\t'" in said:
        return FileProblem(line, column, "YAML is indented with spaces, and here is a tab; replace it with spaces")
    return FileProblem(line, column, f"malformed YAML: {said}")


@dataclass
class _YamlBuilder:
    """One walk over the nodes; collects positions and problems."""

    file: Path
    values: dict[Path_, Position] = field(default_factory=dict)
    keys: dict[Path_, Position] = field(default_factory=dict)
    problems: list[FileProblem] = field(default_factory=list)
    _open: set[int] = field(default_factory=set)
    _scalars: yaml.SafeLoader = field(default_factory=lambda: yaml.SafeLoader(""))

    def value(self, node: yaml.Node, path: Path_) -> object:
        position = _position(node)
        self.values[path] = position
        if len(self.values) > _MAX_VALUES:
            message = f"aliases expand to more than {_MAX_VALUES} values; write them out or leave them out"
            raise CatalogFileError(self.file, [FileProblem(position.line, position.column, message)])
        # An alias is the node of its anchor itself, so a node that is open contains itself.
        if id(node) in self._open:
            raise CatalogFileError(
                self.file, [FileProblem(position.line, position.column, "an anchor contains itself; write it out")]
            )
        self._open.add(id(node))
        try:
            return self._convert(node, path)
        finally:
            self._open.discard(id(node))

    def _convert(self, node: yaml.Node, path: Path_) -> object:
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return {key: self.value(child, (*path, key)) for key, child in self._items(node, path)}
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node)
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:timestamp":
            self._report(node, f"YAML reads {node.value!r} as a date; put it in quotes")
            return None
        self._report(node, f"the tag {node.tag!r} is not allowed; a catalog is plain mappings, lists and values")
        return None

    def _scalar(self, node: yaml.ScalarNode) -> object:
        try:
            return self._scalars.construct_object(node)
        except (ValueError, yaml.YAMLError):
            shown = node.value if len(node.value) <= 60 else f"{node.value[:60]}…"
            self._report(node, f"{shown!r} is not a number or text YAML can read; put it in quotes")
            return None

    def _items(self, node: yaml.MappingNode, path: Path_) -> Iterator[tuple[str, yaml.Node]]:
        seen: set[str] = set()
        for key_node, child in node.value:
            key = key_node.value
            if not isinstance(key, str) or key_node.tag != "tag:yaml.org,2002:str":
                shown = repr(key) if isinstance(key, str) else "this"
                self._report(key_node, f"{shown} is not a name; a name is text, put it in quotes if it looks otherwise")
                continue
            if key in seen:
                first = self.keys[(*path, key)]
                self._report(key_node, f"duplicate key {key!r}: it is already on line {first.line}; keep one")
                continue
            seen.add(key)
            self.keys[(*path, key)] = _position(key_node)
            yield key, child

    def _report(self, node: yaml.Node, message: str) -> None:
        position = _position(node)
        self.problems.append(FileProblem(position.line, position.column, message))


def _position(node: yaml.Node) -> Position:
    mark = node.start_mark
    return Position(mark.line + 1, mark.column + 1)


# Where in the section, and what is wrong.
TestbedProblem = tuple[tuple[str, ...], str]


def testbed_problems(testbeds: Mapping[str, TestbedSpec], tiers: Iterable[str]) -> Iterator[TestbedProblem]:
    """Yield where testbeds and the declared tiers do not fit, with the path below `testbeds` and what is wrong.

    Parameters
    ----------
    testbeds : mapping
    tiers : iterable of str
        As declared, the client's first.
    """
    declared = list(tiers)
    for name, testbed in testbeds.items():
        places = testbed.tiers
        if places is None:
            continue
        for tier in places:
            if tier not in declared:
                yield (name, "tiers", tier), f"tier {tier!r} is not declared; allowed: {', '.join(declared)}"
        if absent := [tier for tier in declared if tier not in places]:
            yield (name, "tiers"), f"testbed {name!r} has no place for tier {', '.join(absent)}; name one for each tier"
        yield from _place_problems(name, {tier: places[tier] for tier in declared if tier in places})


def _place_problems(name: str, places: Mapping[str, TierPlace]) -> Iterator[TestbedProblem]:
    """Yield the problems of places by tier, the client's first."""
    servers: dict[str, str] = {}
    for number, (tier, place) in enumerate(places.items()):
        # Requests start at the client's tier, so that no other tier needs its address.
        if number and place.is_unreachable:
            message = (
                f"{place.url} is a socket of this machine, by which other tiers cannot reach {tier!r}; "
                f"write {tier}: {{engine: {place.url}, address: HOST}}"
            )
            yield (name, "tiers", tier), message
        if place.server is not None and place.server in servers:
            message = f"{place.server} serves tier {servers[place.server]!r} already; a tier server serves one tier"
            yield (name, "tiers", tier), message
        servers |= {} if place.server is None else {place.server: tier}


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


# Which model stands where; "*" is any name or index.
_MODELS: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): CatalogFile,
    ("subjects", "*"): SubjectSpec,
    ("subjects", "*", "dataset"): DatasetFiles,
    ("subjects", "*", "preprocess"): PreprocessSpec,
    ("tiers", "*"): TierSpec,
    ("links", "*"): LinkSpec,
    ("strategies", "*"): StrategySpec,
    ("experiment",): ExperimentSpec,
    ("analysis",): AnalysisSpec,
    ("slos", "*"): SloSpec,
    ("slos", "*", "accuracy"): AccuracyTarget,
    ("testbeds", "*"): TestbedSpec,
    ("testbeds", "*", "tiers", "*"): TierPlace,
}

# pydantic speaks of Python's types, a catalog file has YAML's.
_EXPECTED: Mapping[str, str] = {
    "mapping_type": "expected a mapping (name: value)",
    "dict_type": "expected a mapping (name: value)",
    "model_type": "expected a mapping (name: value)",
    "tuple_type": "expected a list ([a, b])",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
}
_UNQUOTE = "remove the quotes"
_NUMBERS = ("int_type", "float_type")
_SHOWN_CHARACTERS = 60


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return text to append to a message: what is allowed, and the nearest spelling if one is near.

    From the cutoff on, of `difflib.SequenceMatcher.ratio`, a spelling is near.
    """
    names = list(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"allowed: {', '.join(names) or 'none is declared'}{hint}"


def validate_file(document: YamlDocument) -> CatalogFile:
    """Validate a document against the schema; raises CatalogFileError with all problems."""
    if not isinstance(document.data, dict):
        message = "a catalog is a mapping that starts with `version: 1`"
        raise CatalogFileError(document.file, [_problem(document, (), message)])
    try:
        return CatalogFile.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        misspelt = {_meant(details) for details in errors if details["type"] == "extra_forbidden"}
        own_errors = [details for details in errors if not _follows(details, misspelt)]
        # Without repeats, in order: for a union, pydantic may find one mistake once for each member.
        problems = dict.fromkeys(_translate(document, details) for details in own_errors)
        raise CatalogFileError(document.file, list(problems)) from error


def _translate(document: YamlDocument, details: ErrorDetails) -> FileProblem:
    path, is_key = _declared_path(document, details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        key = str(path[-1])
        return _problem(document, path, f"unknown key {key!r}; {nearest(key, _allowed(path[:-1]))}", key=True)
    if kind == "missing":
        allowed = nearest("", _allowed(path))
        return _problem(document, path, f"the key {str(details['loc'][-1])!r} is missing here; {allowed}")
    return _problem(document, path, f"{_where(path)}{_wording(details)}", key=is_key)


def _meant(details: ErrorDetails) -> tuple[int | str, ...]:
    """Return where an unknown key would have been right: that key is then misspelt, not missing as well."""
    *parent, key = details["loc"]
    close = difflib.get_close_matches(str(key), _allowed(tuple(parent)), n=1)
    return (*parent, *close)


def _follows(details: ErrorDetails, misspelt: Collection[tuple[int | str, ...]]) -> bool:
    """Tell whether an error only follows from another: a misspelt key, or a list without its wrong member.

    A default that is made of other fields is not made where one of these is wrong, which is an error of its own.
    """
    if details["type"] == "default_factory_not_called":
        return True
    if details["type"] == "missing":
        return details["loc"] in misspelt
    return details["type"] == "too_short" and bool(details["input"])


def _wording(details: ErrorDetails) -> str:
    """Return pydantic's message with the value, or our own message where it is clearer."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    got = details["input"]
    if kind == "string_pattern_mismatch":
        return f"{got!r} is not a name: letters, digits, and _ . - after the first"
    if kind == "literal_error":
        # pydantic joins the literals to a sentence: 'a', 'b' or 'c'.
        allowed = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        # `version: "1"`: right but for its quotes.
        if isinstance(got, str) and got.isdigit() and got in allowed:
            return f"got the text {got!r}; {_UNQUOTE}"
        return f"got {_short(got)}; {nearest(str(got), allowed)}"
    if kind == "too_short":
        return "this must not be empty"
    shown = "a mapping" if isinstance(got, dict) else "a list" if isinstance(got, list) else _short(got)
    if kind in _NUMBERS and isinstance(got, str) and _is_number(got):
        return f"{_EXPECTED[kind]}, got the text {shown}; {_UNQUOTE}"
    return f"{_EXPECTED.get(kind, details['msg'])}, got {shown}"


def _short(value: object) -> str:
    """Shorten a value to what a line of a message can hold."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _declared_path(document: YamlDocument, loc: tuple[int | str, ...]) -> tuple[Path_, bool]:
    """Return the longest part of pydantic's location that is in the file (it adds names of union members)."""
    path: Path_ = ()
    for step in loc:
        # pydantic's mark for the key of a mapping, in place of its value.
        if step == "[key]":
            return path, True
        if (*path, step) in document.values:
            path = (*path, step)
    return path, False


def _allowed(path: Path_) -> list[str]:
    """Return the keys that the mapping at `path` may have."""
    for pattern, model in _MODELS.items():
        if len(pattern) == len(path) and all(p in ("*", step) for p, step in zip(pattern, path, strict=True)):
            return [info.alias or name for name, info in model.model_fields.items()]
    return []


def _where(path: Path_) -> str:
    return ".".join(str(step) for step in path) + ": " if path else ""


def _problem(document: YamlDocument, path: Path_, message: str, *, key: bool = False) -> FileProblem:
    position = document.locate(path, key=key)
    return FileProblem(position.line, position.column, message)


def check_names(declared: CatalogFile, topology: Topology, document: YamlDocument) -> None:
    """Check what the parts of a file say of one another; raises CatalogFileError with all problems."""
    problems = [*_tier_problems(topology, document), *_link_problems(topology, document)]
    # Routes follow the links: a wrong link would be reported again for every placement.
    if not problems:
        problems = [*_operator_problems(declared, document), *_strategy_problems(declared, topology, document)]
    # Routes of placements that are wrong cannot be followed.
    if not problems:
        used = _used(declared, topology)
        problems = [_problem(document, path, text) for path, text in setting_problems(declared, used)]
    for path, message in testbed_problems(declared.testbeds, declared.tiers):
        problems.append(_problem(document, ("testbeds", *path), message, key=True))
    if problems:
        raise CatalogFileError(document.file, problems)


def _used(declared: CatalogFile, topology: Topology) -> dict[str, set[str]]:
    """Return the tiers and the links that the routes of the strategies lead through."""
    placements = {placement for entry in declared.strategies for placement in entry.placements}
    routes = [topology.route(topology.placement(placement)) for placement in placements]
    return {
        "tiers": {tier for route in routes for tier in route},
        "links": {link for route in routes for link in topology.links(route)},
    }


def _tier_problems(topology: Topology, document: YamlDocument) -> Iterator[FileProblem]:
    """Yield names of tiers that differ in capitals alone: a reader would take two tiers for one."""
    names: dict[str, str] = {}
    for name in topology.tiers:
        other = names.setdefault(name.casefold(), name)
        if other != name:
            message = f"tier {name!r} differs from tier {other!r} in capitals alone; give one of them another name"
            yield _problem(document, ("tiers", name), message, key=True)


def _link_problems(topology: Topology, document: YamlDocument) -> Iterator[FileProblem]:
    ends: dict[tuple[str, str], str] = {}
    for name in topology.link_names:
        try:
            first, second = topology.link_ends(name)
        except TopologyError as error:
            pairs = [f"{a}-{b}" for a in topology.tiers for b in topology.tiers if a != b]
            close = difflib.get_close_matches(name, pairs, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            yield _problem(document, ("links", name), f"{error}{hint}", key=True)
            continue
        if (second, first) in ends:
            message = f"link {name!r} is {ends[second, first]!r} in the other direction; use its up and down instead"
            yield _problem(document, ("links", name), message, key=True)
        ends[first, second] = name


def _operator_problems(declared: CatalogFile, document: YamlDocument) -> Iterator[FileProblem]:
    """Yield sweeps that cannot be expanded, and passes that take one model behind one that makes parts of it."""
    for name, message in sweep_problems(declared):
        yield _problem(document, ("operators", name), message)
    for name, passes in declared.operators.items():
        for number, step in enumerate(passes):
            parts = parts_made(passes[:number])
            if step.name in TAKING_ONE_MODEL and parts is not None and parts > 1:
                message = (
                    f"operator {name!r}: {step.name} takes one model, and the passes before it make {parts} parts; "
                    f"put it before `partition`, and declare `partition` once"
                )
                yield _problem(document, ("operators", name, number), message)


def _strategy_problems(declared: CatalogFile, topology: Topology, document: YamlDocument) -> Iterator[FileProblem]:
    seen: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(declared.strategies):
        at: Path_ = ("strategies", index)
        for number, operator in enumerate(entry.operators):
            if operator not in declared.operators:
                message = f"operator {operator!r} is not declared; {nearest(operator, declared.operators)}"
                yield _problem(document, (*at, "operators", number), message)
        for number, placement in enumerate(entry.placements):
            message = _placement_problem(placement, topology)
            if message:
                yield _problem(document, (*at, "placements", number), message)
        yield from _part_problems(declared, topology, document, index)
        yield from _duplicates(document, at, entry, seen)


def _part_problems(
    declared: CatalogFile, topology: Topology, document: YamlDocument, index: int
) -> Iterator[FileProblem]:
    """Compare the parts that an entry's operators make with the tiers of its placements: one part runs on one tier."""
    entry = declared.strategies[index]
    for number, placement in enumerate(entry.placements):
        try:
            tiers = topology.placement(placement)
        except TopologyError:  # reported with the placement
            continue
        # An operator that is listed twice is reported by `_duplicates`, once.
        for operator in dict.fromkeys(entry.operators):
            parts = parts_made(declared.operators[operator]) if operator in declared.operators else None
            if parts is not None and parts != len(tiers):
                message = (
                    f"operator {operator!r} makes {counted(parts, 'part')} and placement {placement!r} has "
                    f"{counted(len(tiers), 'tier')}; each part runs on a tier of its own: {_fitting(parts, topology)}"
                )
                yield _problem(document, ("strategies", index, "placements", number), message)


def _fitting(parts: int, topology: Topology) -> str:
    """Say which placements fit an operator that makes so many parts."""
    if parts == 1:
        return f"name single tiers ({', '.join(topology.tiers)}), in a separate entry"
    if parts > len(topology.tiers):
        return f"{parts} tiers are needed and {len(topology.tiers)} declared"
    example = "-".join(topology.tiers[:parts])
    return f"name placements of {parts} tiers (such as {example}), in a separate entry"


def _placement_problem(placement: str, topology: Topology) -> str:
    """Return what is wrong with a placement, or None."""
    try:
        tiers = topology.placement(placement)
    except TopologyError as error:
        unknown = next((part for part in placement.split("-") if part not in topology.tiers), placement)
        close = difflib.get_close_matches(unknown, topology.tiers, n=1)
        hint = f"; did you mean {placement.replace(unknown, close[0])!r}?" if close else ""
        return f"{error}{hint}"
    try:
        topology.route(tiers)
    except TopologyError as error:
        return f"placement {placement!r}: {error}"
    return ""


def _duplicates(
    document: YamlDocument, at: Path_, entry: StrategySpec, seen: dict[tuple[str, str], int]
) -> Iterator[FileProblem]:
    """Yield operators declared twice on a placement: `seen` remembers the line of the first declaration."""
    for number, operator in enumerate(entry.operators):
        for place, placement in enumerate(entry.placements):
            again = operator in entry.operators[:number]
            path: Path_ = (*at, "operators", number) if again else (*at, "placements", place)
            line = document.locate(path).line
            if (operator, placement) in seen:
                message = f"{operator!r} on {placement!r} is already declared on line {seen[operator, placement]}"
                yield _problem(document, path, f"duplicated strategy: {message}; keep one")
            else:
                seen[operator, placement] = line
