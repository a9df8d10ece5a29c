"""Evidence and budgets in, a ranked answer out: pure functions over arrays, numbers only.

The words for these numbers are in `recommender.answer.wording`; where the evidence comes from is the business of
`recommender.evidence.snapshots`.
"""

from catalog.statistics.intervals import inputs_needed
from recommender.ranking.candidates import (
    AccuracyMeasurement,
    Candidate,
    Estimate,
    Foresight,
    estimate,
    interval,
    samples_of,
)
from recommender.ranking.feasibility import Shortfall, shortfalls
from recommender.ranking.model import (
    Alternative,
    Breach,
    Budgets,
    Change,
    Constraints,
    ExcludedCandidate,
    Gap,
    LatencyBudget,
    LatencyMiss,
    NearMiss,
    Objective,
    Prospect,
    RankedAnswer,
    Relaxation,
    Status,
    UndecidedCandidate,
    declared_breaches,
)
from recommender.ranking.recommend import pareto_front, recommend

__all__ = [
    "AccuracyMeasurement",
    "Alternative",
    "Breach",
    "Budgets",
    "Candidate",
    "Change",
    "Constraints",
    "Estimate",
    "ExcludedCandidate",
    "Foresight",
    "Gap",
    "LatencyBudget",
    "LatencyMiss",
    "NearMiss",
    "Objective",
    "Prospect",
    "RankedAnswer",
    "Relaxation",
    "Shortfall",
    "Status",
    "UndecidedCandidate",
    "declared_breaches",
    "estimate",
    "inputs_needed",
    "interval",
    "pareto_front",
    "recommend",
    "samples_of",
    "shortfalls",
]
