"""What an analysis is asked: declared in the catalog file, stored with the result."""

from dataclasses import dataclass

from catalog.statistics import ADJUSTMENTS
from catalog.statistics.comparison import Question


@dataclass(frozen=True)
class AnalysisSettings:
    """The question of the deciding analysis and the adjustment of the study's.

    Attributes
    ----------
    percentile : float
        That strategies are compared and ranked by.
    equivalent_within : float
        Share within which two latencies are equivalent.
    confidence_level : float
        Of all comparisons of one question together.
    adjustment : str
        Of the p-values of Conover's test within a family.
    n_resamples : int
        Draws of inputs.
    seed : int
        Of the draws, so that the same evidence gives the same result.
    """

    percentile: float = 50.0
    equivalent_within: float = 0.05
    confidence_level: float = 0.95
    adjustment: str = "holm"
    n_resamples: int = 2000
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if self.adjustment not in ADJUSTMENTS:
            raise ValueError(f"unknown adjustment {self.adjustment!r}; allowed: {', '.join(ADJUSTMENTS)}")
        self.question()

    def question(self) -> Question:
        """The same for `catalog.statistics`."""
        return Question(self.percentile, self.equivalent_within, self.confidence_level, self.n_resamples)
