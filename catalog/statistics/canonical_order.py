"""One order of tiers, operators and placements that does not depend on the order of the evidence.

In a pair, the member listed first is compared with the one listed later, and draws are made strategy by strategy. If
the order were that of a file's rows, sorting the file would change the results.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

# The study's, in its order.
KNOWN_TIERS = ("mobile", "edge", "cloud")
_KNOWN_PASSES = ("static_ptq", "early_exit", "partition")
_CUTTING = "partition"


def tier_order(placements: Iterable[Sequence[str]], chains: Iterable[Sequence[str]] = ()) -> tuple[str, ...]:
    """Order tiers from the client on.

    Parameters
    ----------
    placements : iterable of sequence of str
        The ordered tiers of each placement.
    chains : iterable of sequence of str
        Tiers as links and routes connect them, from the client on. They decide where placements contradict them.

    Returns
    -------
    tuple of str
        Every tier once: a tier before those behind it, otherwise mobile, edge, cloud, then by name.

    Examples
    --------
    >>> tier_order([("cloud",), ("edge",), ("mobile",)])
    ('mobile', 'edge', 'cloud')
    >>> tier_order([("hub",), ("pi",)], chains=[("pi", "hub")])
    ('pi', 'hub')
    """
    # Sorted: which of two contradicting statements wins must not depend on the order of the rows.
    placed = sorted(map(tuple, placements))
    linked = sorted(map(tuple, chains))
    behind: dict[str, set[str]] = {tier: set() for tiers in (*placed, *linked) for tier in tiers}
    # Links before placements, because the first statement wins.
    for tiers in (*linked, *placed):
        for before, after in pairwise(tiers):
            # A link or placement that contradicts an earlier one is ignored, so that the order has no cycle.
            if before != after and before not in _reachable(behind, after):
                behind[before].add(after)
    # Kahn's topological sort; of several tiers that are free, `_tier_rank` names the next, so the order is unique.
    ordered: list[str] = []
    while len(ordered) < len(behind):
        waiting = behind.keys() - set(ordered)
        free = [tier for tier in waiting if not any(tier in behind[other] for other in waiting)]
        ordered.append(min(free, key=_tier_rank))
    return tuple(ordered)


def condition_chains(conditions: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Read from a measurement's conditions how tiers follow one another: its route, and the links that it used."""
    route = _names(conditions.get("tiers"))
    links = [tuple(name.split("-")) for name in _names(conditions.get("links"))]
    return [tuple(route), *(link for link in links if len(link) == 2)]


def operator_rank(operator: str, passes: Sequence[Mapping[str, Any]]) -> tuple[object, ...]:
    """Return the key that sorts operators.

    Parameters
    ----------
    operator : str
    passes : sequence of mapping
        With the `name` of each.

    Returns
    -------
    tuple
        Identity comes first, operators that cut come last; then fewer passes before more, in the study's order.

    Examples
    --------
    >>> passes = {"both": ["static_ptq", "early_exit"], "halves": ["partition"], "quick": ["static_ptq"], "whole": []}
    >>> sorted(passes, key=lambda name: operator_rank(name, [{"name": step} for step in passes[name]]))
    ['whole', 'quick', 'both', 'halves']
    """
    names = [str(step.get("name")) for step in passes]
    pass_ranks = [_KNOWN_PASSES.index(name) if name in _KNOWN_PASSES else len(_KNOWN_PASSES) for name in names]
    return (_CUTTING in names, len(names), pass_ranks, names, operator)


def placement_rank(tiers: Sequence[str], order: Sequence[str]) -> tuple[object, ...]:
    """Return the key that sorts placements: fewer tiers before more, near ones before far ones, from the client on.

    Examples
    --------
    >>> places = [("mobile", "cloud"), ("edge", "cloud"), ("cloud",), ("mobile", "edge")]
    >>> sorted(places, key=lambda tiers: placement_rank(tiers, KNOWN_TIERS))
    [('cloud',), ('mobile', 'edge'), ('edge', 'cloud'), ('mobile', 'cloud')]
    """
    positions = [order.index(tier) if tier in order else len(order) for tier in tiers]
    return (len(positions), max(positions, default=0) - min(positions, default=0), positions, list(tiers))


def _reachable(behind: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        tier = waiting.pop()
        if tier not in reached:
            reached.add(tier)
            waiting += behind[tier]
    return reached


def _tier_rank(tier: str) -> tuple[int, str]:
    return (KNOWN_TIERS.index(tier) if tier in KNOWN_TIERS else len(KNOWN_TIERS), tier)


def _names(rows: Any) -> list[str]:
    """Return the names in a list of mappings; in files from elsewhere the value may be anything."""
    listed = rows if isinstance(rows, list) else []
    return [row["name"] for row in listed if isinstance(row, Mapping) and isinstance(row.get("name"), str)]
