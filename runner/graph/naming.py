"""A readable name for a stretch of nodes, from the names that exporters leave behind."""

from collections.abc import Sequence
from itertools import takewhile


def segment_name(nodes: Sequence[str], initializers: Sequence[str]) -> str:
    """What the nodes have in common (`/layer4/layer4.1/Add` → `layer4.1`), else their weights, else the first node."""
    scope = _scope(nodes, "/")
    if scope:
        *_, parent, own = ["", *scope.split("/")]
        return own if "." in own or not parent else f"{parent}/{own}"
    return _scope([name for name in initializers if "." in name and ":" not in name], ".") or nodes[0]


def _scope(names: Sequence[str], separator: str) -> str:
    """The longest common prefix that ends at a separator; one name alone gives its own scope."""
    paths = [name.split(separator)[:-1] for name in names if name]
    if not paths:
        return ""
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return separator.join(parts[0] for parts in common).strip(separator)
