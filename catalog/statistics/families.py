"""The families of strategies that are compared, as in the study, for any catalog; and the one order of their members.

The order of tiers, operators and placements does not depend on that of the evidence. In a pair, the member listed
first is compared with the one listed later, and draws are made strategy by strategy. If the order were that of a
file's rows, sorting the file would change the results.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

FamilyKind = Literal["tiers", "partitions", "operators", "settings"]

_PARTITION = "partition"
_QUESTION_OF_PASS = {"static_ptq": "RQ2", "early_exit": "RQ3", _PARTITION: "RQ4"}


@dataclass(frozen=True)
class StudiedOperator:
    """An operator as declared, and its placements.

    Attributes
    ----------
    name : str
    passes : tuple of str
        Names of its passes in order, without options; none for identity.
    placements : tuple of tuple of str
        The ordered tiers of each placement, in declared order.
    """

    name: str
    passes: tuple[str, ...]
    placements: tuple[tuple[str, ...], ...]

    @property
    def on_one_tier(self) -> tuple[tuple[str, ...], ...]:
        """The placements of one tier each."""
        return tuple(tiers for tiers in self.placements if len(tiers) == 1)

    @property
    def on_several_tiers(self) -> tuple[tuple[str, ...], ...]:
        """The placements that are spread over tiers."""
        return tuple(tiers for tiers in self.placements if len(tiers) > 1)


@dataclass(frozen=True)
class StrategyFamily:
    """Strategies that one Kruskal-Wallis test compares; the same for each subject.

    Attributes
    ----------
    name : str
        `tiers:OPERATOR`, `partitions:OPERATOR`, `operators@TIER`, or `SETTING:STRATEGY` over values of a setting.
    kind : {"tiers", "partitions", "operators", "settings"}
    questions : tuple of str
        The study's research questions it serves, RQ1 to RQ5; none for passes that the study did not have.
    members : tuple of str
        Strategies, `operator@placement`. In a pair, the left member is the one listed first.
    """

    name: str
    kind: FamilyKind
    questions: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class OperatorPair:
    """Two operators whose accuracies are compared; `right` has more passes than `left`."""

    left: str
    right: str
    questions: tuple[str, ...]


def study_families(operators: Sequence[StudiedOperator], tiers: Sequence[str]) -> tuple[StrategyFamily, ...]:
    """Generate the families whose latencies are compared.

    Parameters
    ----------
    operators : sequence of StudiedOperator
        In declared order, which is the order of members.
    tiers : sequence of str
        In declared order, the client's first.

    Returns
    -------
    tuple of StrategyFamily
        Those with at least two members.

    Raises
    ------
    ValueError
        For an operator declared twice, or a placement on a tier that is not declared.

    Notes
    -----
    The rules, which give exactly the study's nine families for its six operators and three tiers:

    - ``tiers:O``, one per operator: O on each single tier (RQ1, RQ2, RQ3, RQ5).
    - ``partitions:O``, one per operator that is placed across tiers: the operator that O cuts in two, on each single
      tier, then O on each of its placements across tiers (RQ4, RQ5). The operator that O cuts is the first with O's
      passes less ``partition``; if none is declared, O's placements are compared among themselves.
    - ``operators@T``, one per tier: each operator on T, and each operator that is placed across tiers on the one
      placement nearest to the client (the first in the order of tiers). The study did so for all three of its tiers,
      mobile-edge being the fastest of the three placements; the choice is made from the declaration, since a choice by
      the latencies that are then tested would favour it.

    An operator belongs to RQ1 with no pass, to RQ2, RQ3 or RQ4 with the one pass ``static_ptq``, ``early_exit`` or
    ``partition``, and to RQ5 with several. A family of operators serves the questions of its members but RQ1, which
    asks about tiers.

    References
    ----------
    Paper, section 4.6.1, 4.6.2, Tables 3 and 4.

    Examples
    --------
    >>> identity = StudiedOperator("identity", (), (("mobile",), ("edge",)))
    >>> halves = StudiedOperator("partition", ("partition",), (("mobile", "edge"),))
    >>> for family in study_families([identity, halves], ["mobile", "edge"]):
    ...     print(family.name, *family.members)
    tiers:identity identity@mobile identity@edge
    partitions:partition identity@mobile identity@edge partition@mobile-edge
    operators@mobile identity@mobile partition@mobile-edge
    operators@edge identity@edge partition@mobile-edge
    """
    _check(operators, tiers)
    families = [*_tier_families(operators), *_partition_families(operators), *_operator_families(operators, tiers)]
    # One strategy alone has nothing to be compared with.
    return tuple(family for family in families if len(family.members) > 1)


def accuracy_pairs(operators: Sequence[StudiedOperator]) -> tuple[OperatorPair, ...]:
    """Generate the pairs of operators whose accuracies are compared.

    Parameters
    ----------
    operators : sequence of StudiedOperator

    Returns
    -------
    tuple of OperatorPair
        In the order of the declaration: left first, then right.

    Notes
    -----
    Each operator against those it adds to: its passes contain theirs, in order, and no declared operator lies between.
    That gives the study's four: I-Q, I-E, Q-QE, E-QE. An operator with ``partition`` has the accuracy of the one it
    cuts and takes no part. Options of passes do not matter.

    Examples
    --------
    >>> operators = [StudiedOperator("identity", (), ()), StudiedOperator("quantized", ("static_ptq",), ())]
    >>> accuracy_pairs(operators)
    (OperatorPair(left='identity', right='quantized', questions=('RQ2',)),)
    """
    # A partition computes what the whole does, so it has no accuracy of its own to compare.
    whole = [operator for operator in operators if _PARTITION not in operator.passes]
    return tuple(
        OperatorPair(left.name, right.name, research_questions(right.passes))
        for left in whole
        for right in whole
        if _extends(right.passes, left.passes)
        # Only the nearest: with I, Q and QE declared, I-QE would test I-Q and Q-QE once more.
        and not any(_extends(right.passes, mid.passes) and _extends(mid.passes, left.passes) for mid in whole)
    )


def research_questions(passes: Sequence[str]) -> tuple[str, ...]:
    """Return the study's question that an operator belongs to.

    Parameters
    ----------
    passes : sequence of str
        Names of its passes in order.

    Returns
    -------
    tuple of str
        One of RQ1 to RQ5; empty for a single pass that the study did not have.

    References
    ----------
    Paper, section 4.

    Examples
    --------
    >>> research_questions(["static_ptq"]), research_questions(["static_ptq", "early_exit"])
    (('RQ2',), ('RQ5',))
    """
    if not passes:
        return ("RQ1",)
    if len(passes) > 1:
        return ("RQ5",)
    return (_QUESTION_OF_PASS[passes[0]],) if passes[0] in _QUESTION_OF_PASS else ()


def strategy_name(operator: str, placement: Sequence[str]) -> str:
    """Name a strategy within its subject.

    Parameters
    ----------
    operator : str
    placement : sequence of str
        The ordered tiers.

    Returns
    -------
    str
        `operator@placement`, the tiers joined by `-` as in the catalog file.

    Examples
    --------
    >>> strategy_name("partition", ["mobile", "edge"])
    'partition@mobile-edge'
    """
    return f"{operator}@{'-'.join(placement)}"


def _tier_families(operators: Sequence[StudiedOperator]) -> Iterator[StrategyFamily]:
    for operator in operators:
        members = _members(operator, operator.on_one_tier)
        yield StrategyFamily(f"tiers:{operator.name}", "tiers", research_questions(operator.passes), members)


def _partition_families(operators: Sequence[StudiedOperator]) -> Iterator[StrategyFamily]:
    for operator in operators:
        if operator.on_several_tiers:
            passes = tuple(name for name in operator.passes if name != _PARTITION)
            # The same operator without its cut, so that a family differs in placement and in nothing else.
            whole = next((other for other in operators if other.passes == passes), None)
            # Partitions are compared with the whole model on single tiers, which stands first: on the left of pairs.
            singles = _members(whole, whole.on_one_tier) if whole else ()
            members = singles + _members(operator, operator.on_several_tiers)
            yield StrategyFamily(
                f"partitions:{operator.name}", "partitions", research_questions(operator.passes), members
            )


def _operator_families(operators: Sequence[StudiedOperator], tiers: Sequence[str]) -> Iterator[StrategyFamily]:
    order = {tier: position for position, tier in enumerate(tiers)}
    for tier in tiers:
        # A tier that only cut models use has no whole model to compare them with.
        if not any((tier,) in operator.placements for operator in operators):
            continue
        members: list[str] = []
        questions: set[str] = set()
        for operator in operators:
            # By the declaration: a choice by the latencies that are then tested would favour the one chosen.
            nearest = sorted(operator.on_several_tiers, key=lambda placement: [order[name] for name in placement])[:1]
            here = [(tier,)] if (tier,) in operator.placements else []
            members += _members(operator, (*here, *nearest))
            questions |= set(research_questions(operator.passes)) if here or nearest else set()
        # RQ1 asks about tiers, and here the tier is the same for all.
        yield StrategyFamily(f"operators@{tier}", "operators", tuple(sorted(questions - {"RQ1"})), tuple(members))


def _members(operator: StudiedOperator, placements: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(strategy_name(operator.name, placement) for placement in placements)


def _extends(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    """Return whether `shorter` is `longer` without some of its passes."""
    rest = iter(longer)  # consumed by the search, so that the order counts
    return len(shorter) < len(longer) and all(any(step == name for step in rest) for name in shorter)


def _check(operators: Sequence[StudiedOperator], tiers: Sequence[str]) -> None:
    names = [operator.name for operator in operators]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"operator {twice[0]!r} is declared twice; give each operator once, with all its placements")
    for operator in operators:
        unknown = {tier for placement in operator.placements for tier in placement} - set(tiers)
        if unknown:
            raise ValueError(
                f"operator {operator.name!r} is placed on tier {min(unknown)!r}; "
                f"declared are {', '.join(tiers) or 'none'}"
            )


# The study's, in its order.
KNOWN_TIERS = ("mobile", "edge", "cloud")
KNOWN_PASSES = ("static_ptq", "early_exit", "partition")


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


def client_tier(placements: Iterable[Sequence[str]], chains: Iterable[Sequence[str]] = ()) -> str | None:
    """Return the tier where requests start, where anything says which it is.

    Parameters
    ----------
    placements, chains : iterable of sequence of str
        As `tier_order` takes them.

    Returns
    -------
    str or None
        The first tier in order, if it is the study's first or another tier is behind it. None where only the alphabet
        puts it first, or where it is known to lie behind a tier that is not there.

    Examples
    --------
    >>> client_tier([("phone",), ("hub",), ("phone", "hub")]), client_tier([("edge",), ("mobile",)])
    ('phone', 'mobile')
    >>> client_tier([("phone",), ("hub",)]), client_tier([("edge", "cloud")])
    (None, None)
    """
    placed, linked = list(placements), list(chains)
    first = next(iter(tier_order(placed, linked)), None)
    leads = any(tiers[0] == first for tiers in (*placed, *linked) if len(tiers) > 1)
    return first if first == KNOWN_TIERS[0] or (leads and first not in KNOWN_TIERS) else None


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
    pass_ranks = [KNOWN_PASSES.index(name) if name in KNOWN_PASSES else len(KNOWN_PASSES) for name in names]
    return (_PARTITION in names, len(names), pass_ranks, names, operator)


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
