"""Evidence and budgets in, a ranked answer out: pure functions over arrays, numbers only.

The words for these numbers are in `recommender.answer.wording`; where the evidence comes from is `recommender.evidence.snapshots`'s
business.
"""

from catalog.statistics import inputs_needed
from recommender.ranking.candidates import (
    Accuracy,
    Candidate,
    Estimate,
    estimate,
    interval,
    samples_of,
)
from recommender.ranking.constraints import Breach, Constraints, Excluded, declared_breaches
from recommender.ranking.model import (
    Alternative,
    Answer,
    Budgets,
    Change,
    Gap,
    LatencyBudget,
    LatencyMiss,
    NearMiss,
    Objective,
    Relaxation,
    Undecided,
)
from recommender.ranking.pareto import pareto_front
from recommender.ranking.predictions import Foresight
from recommender.ranking.recommend import recommend
from recommender.ranking.shortfalls import Shortfall, shortfalls

__all__ = [
    "Accuracy",
    "Alternative",
    "Answer",
    "Breach",
    "Budgets",
    "Candidate",
    "Change",
    "Constraints",
    "Estimate",
    "Excluded",
    "Foresight",
    "Gap",
    "LatencyBudget",
    "LatencyMiss",
    "NearMiss",
    "Objective",
    "Relaxation",
    "Shortfall",
    "Undecided",
    "declared_breaches",
    "estimate",
    "inputs_needed",
    "interval",
    "pareto_front",
    "recommend",
    "samples_of",
    "shortfalls",
]
