"""Evidence and budgets in, a ranked answer out: pure functions over arrays, numbers only.

The words for these numbers are in `recommender.wording`; where the evidence comes from is `recommender.snapshot`'s
business.
"""

from catalog.statistics import inputs_needed
from recommender.ranking.answers import (
    Alternative,
    Answer,
    Budgets,
    Gap,
    LatencyBudget,
    LatencyMiss,
    NearMiss,
    Objective,
    Undecided,
)
from recommender.ranking.candidates import (
    Accuracy,
    Candidate,
    Estimate,
    estimate,
    interval,
    samples_of,
)
from recommender.ranking.choosing import recommend
from recommender.ranking.predictions import Foresight

__all__ = [
    "Accuracy",
    "Alternative",
    "Answer",
    "Budgets",
    "Candidate",
    "Estimate",
    "Foresight",
    "Gap",
    "LatencyBudget",
    "LatencyMiss",
    "NearMiss",
    "Objective",
    "Undecided",
    "estimate",
    "inputs_needed",
    "interval",
    "recommend",
    "samples_of",
]
