"""Where the time of an inference goes: mean durations by strategy and tier, in two set-wise queries."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.evidence.tables import MEASUREMENT_COUNTS

_COUNTING = (
    f"SELECT id, latency_key, round FROM measurement WHERE {MEASUREMENT_COUNTS} "
    "AND latency_key IN (SELECT latency_key FROM strategy WHERE declared)"
)
_WHOLE = f"""
SELECT m.latency_key, m.round, COUNT(*), SUM(s.latency_s), SUM(s.transmission_s)
FROM sample s JOIN ({_COUNTING}) m ON m.id = s.measurement_id
GROUP BY m.latency_key, m.round
"""
_PARTS = f"""
SELECT m.latency_key, m.round, p.tier, SUM(p.preprocess_s), SUM(p.compute_s), SUM(p.postprocess_s), SUM(p.serialise_s)
FROM sample_part p JOIN sample s ON s.id = p.sample_id JOIN ({_COUNTING}) m ON m.id = s.measurement_id
GROUP BY m.latency_key, m.round, p.tier
"""


@dataclass(frozen=True)
class TierTimes:
    """Mean seconds a tier spends on one inference."""

    tier: str
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


@dataclass(frozen=True)
class Breakdown:
    """Mean seconds of one inference; `tiers` is in the order of the placement, empty where parts were not told."""

    latency_s: float
    transmission_s: float
    tiers: tuple[TierTimes, ...]


def mean_breakdowns(session: Session, evidence: Sequence[StrategyEvidence]) -> Mapping[str, Breakdown]:
    """Means over all samples of the rounds that `evidence` has, by latency key."""
    rounds = {(each.latency_key, row.round) for each in evidence for row in each.rounds}
    wholes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for key, number, *sums in session.execute(text(_WHOLE)):
        if (key, number) in rounds:
            wholes[key].append(tuple(sums))
    parts: dict[str, dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for key, number, tier, *sums in session.execute(text(_PARTS)):
        if (key, number) in rounds:
            parts[key][tier].append(tuple(sums))
    order = {each.latency_key: each.tiers for each in evidence}
    return {key: _breakdown(rows, parts[key], order[key]) for key, rows in wholes.items()}


def _breakdown(
    rows: Sequence[tuple[float, ...]], parts: Mapping[str, Sequence[tuple[float, ...]]], placement: Sequence[str]
) -> Breakdown:
    count, latency_s, transmission_s = (sum(column) for column in zip(*rows, strict=True))
    tiers = sorted(parts, key=lambda tier: (placement.index(tier) if tier in placement else len(placement), tier))
    return Breakdown(
        latency_s / count,
        transmission_s / count,
        tuple(TierTimes(tier, *(sum(column) / count for column in zip(*parts[tier], strict=True))) for tier in tiers),
    )
