"""The study's short names for the heads of its matrices: I, Q, E, P, QE, QEP on M, E, C, ME, EC, MC."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from catalog.evidence.store import StrategyEvidence
from runner.reports.html.markup import Html, joined, tag

_LETTERS = {"static_ptq": "Q", "early_exit": "E", "partition": "P"}


@dataclass(frozen=True)
class Codes:
    """Short names by operator and by placement; the full ones where short ones would be ambiguous."""

    operators: Mapping[str, str]
    placements: Mapping[str, str]

    def head(self, strategy: str) -> Html:
        """`I` with its placement as a subscript."""
        operator, placement = split(strategy)
        return joined(self.operators[operator], tag("sub", self.placements[placement]))

    def legend(self, strategies: Iterable[str]) -> str:
        """What the short names of these strategies stand for; empty where none is shortened."""
        pairs = [split(each) for each in strategies]
        said = {self.operators[operator]: operator for operator, _ in pairs}
        placed = {self.placements[placement]: placement for _, placement in pairs}
        return "; ".join(
            ", ".join(f"{code} {name}" for code, name in group.items() if code != name) for group in (said, placed)
        ).strip("; ")


def split(strategy: str) -> tuple[str, str]:
    """Operator and placement of `operator@placement`."""
    operator, _, placement = strategy.rpartition("@")
    return operator, placement


def codes_of(evidence: Iterable[StrategyEvidence]) -> Codes:
    """Short names for all strategies of a report."""
    listed = list(evidence)
    operators = {each.operator: _operator(each) for each in listed}
    placements = {each.placement: "".join(tier[0].upper() for tier in each.tiers) for each in listed}
    return Codes(_unambiguous(operators), _unambiguous(placements))


def _operator(each: StrategyEvidence) -> str:
    passes = [str(step["name"]) for step in each.passes]
    return "".join(_LETTERS.get(name, name[0].upper()) for name in passes) or "I"


def _unambiguous(codes: Mapping[str, str]) -> Mapping[str, str]:
    return codes if len(set(codes.values())) == len(codes) else {name: name for name in codes}
