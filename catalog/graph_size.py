"""How large a model's graph is: its parameters and nodes, as the study lists them beside the size of the file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# The key of an artifact's details under which it stands.
DETAIL = "graph"


@dataclass(frozen=True)
class GraphSize:
    """The size of an artifact's graph, of all its parts together; None is unknown.

    Attributes
    ----------
    parameters : int or None
        Elements of the initializers, scales and zero points of a quantized model among them.
    nodes : int or None
        Nodes of the graph itself, without those of bodies and functions.
    """

    parameters: int | None = None
    nodes: int | None = None

    def as_details(self) -> dict[str, Any]:
        """Return it as an artifact's details have it."""
        return asdict(self)


def graph_size(details: Mapping[str, Any]) -> GraphSize:
    """Return the size that an artifact's details hold; unknown in evidence from before it was counted.

    Examples
    --------
    >>> graph_size({"graph": {"parameters": 25_000_000, "nodes": 241}})
    GraphSize(parameters=25000000, nodes=241)
    >>> graph_size({}), graph_size({"graph": "large"})
    (GraphSize(parameters=None, nodes=None), GraphSize(parameters=None, nodes=None))
    """
    counts = details.get(DETAIL)
    # Evidence from elsewhere may hold anything here.
    return (
        GraphSize(*(_count(counts.get(name)) for name in ("parameters", "nodes")))
        if isinstance(counts, Mapping)
        else GraphSize()
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
