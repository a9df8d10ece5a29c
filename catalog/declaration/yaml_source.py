"""YAML with a line and a column for every key and value, and none of YAML's surprises.

The file is composed into nodes (which carry marks) and turned into plain data here, so that duplicate keys, aliases
that explode and values YAML silently converts are caught where they stand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from catalog.errors import CatalogFileError, FileProblem
from catalog.regular_files import read_regular

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
    data : object
        Dictionaries with text keys, lists and scalars.
    values, keys : mapping of path to Position
        A path is the tuple of keys and indices that leads to a value; `keys` has the key itself.
    """

    file: Path
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
    return YamlDocument(file, data, building.values, building.keys)


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
