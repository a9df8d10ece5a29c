"""The families of strategies that are compared, as in the study, for any catalog."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

FamilyKind = Literal["tiers", "partitions", "operators"]

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
        `tiers:OPERATOR`, `partitions:OPERATOR` or `operators@TIER`.
    kind : {"tiers", "partitions", "operators"}
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
