"""YAML with places: every value knows its line and column, so that every error can name them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import CatalogFileError

_MAXIMUM_BYTES = 1_000_000
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """A parsed file and where each of its values stands (line and column, from 1)."""

    file: Path
    value: Any
    places: dict[Path_, tuple[int, int]] = field(default_factory=dict)

    def error(self, message: str, path: Path_ = ()) -> CatalogFileError:
        """An error at the value, or at the nearest enclosing one that is in the file."""
        while path and path not in self.places:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return CatalogFileError(message, file=self.file, line=line, column=column)


def read_yaml(file: Path) -> Source:
    """Parse a file; duplicate keys, aliases and tabs are errors.

    Raises
    ------
    CatalogFileError
        With line and column.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CatalogFileError(f"cannot be read: {reason}. Try --catalog FILE", file=file) from error
    if len(raw) > _MAXIMUM_BYTES:
        raise CatalogFileError(f"is {len(raw)} bytes; a catalog has at most {_MAXIMUM_BYTES}", file=file)
    try:
        text = raw.decode("utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                mark = event.start_mark
                raise CatalogFileError(
                    "aliases (*name) are not allowed; write the value out", file=file, line=mark.line + 1, column=mark.column + 1
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise CatalogFileError(f"is not UTF-8 text: byte {error.start}", file=file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "malformed YAML"
        hint = " (indent with spaces, not tabs)" if "\\t" in problem else ""
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise CatalogFileError(f"malformed YAML: {problem}{hint}", file=file, line=line, column=column) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CatalogFileError(f"malformed YAML: {error}", file=file, line=1, column=1) from error
    source = Source(file, None)
    value = None if node is None else _construct(node, (), source)
    return Source(file, value, source.places)


def _construct(node: yaml.Node, path: Path_, source: Source) -> Any:
    source.places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*path, index), source) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, child in node.value:
            key = _scalar(key_node, source)
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key, str):
                raise CatalogFileError(f"keys are text, got {key!r}; quote it", file=source.file, line=place[0], column=place[1])
            if key in result:
                raise CatalogFileError(f"{key!r} is given twice", file=source.file, line=place[0], column=place[1])
            result[key] = _construct(child, (*path, key), source)
            source.places[(*path, key)] = place
        return result
    return _scalar(node, source)


def _scalar(node: yaml.Node, source: Source) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        mark = node.start_mark
        raise CatalogFileError(
            f"cannot be read as a value: {node.value!r}", file=source.file, line=mark.line + 1, column=mark.column + 1
        ) from error
