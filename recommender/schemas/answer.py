"""The answer as a whole."""

from typing import Literal

from pydantic import Field

from catalog.evidence.records import EnvironmentSummary, FileSummary
from recommender.ranking import LatencyBudget, Objective
from recommender.ranking.model import TargetLimits
from recommender.schemas.base import CONDITIONS, Out
from recommender.schemas.links import AskedLinkOut
from recommender.schemas.strategy import (
    AlternativeOut,
    ConsideredOut,
    ExcludedOut,
    NearMissOut,
    NotConsideredOut,
    RecommendationOut,
    Status,
    UndecidedOut,
)


class ImportedFileOut(Out, FileSummary, frozen=True):
    """A file that evidence was imported from.

    Its name goes with the start of its SHA-256 where several imported files have this name.
    """


class EnvironmentOut(Out, EnvironmentSummary, frozen=True):
    """Where the evidence was measured; an answer never mixes two environments."""

    measured_at: str
    imported_from: str | None = Field(description="The file that brought it; null for what was measured here")
    imported_files: list[ImportedFileOut] = Field(
        description="Every file that the evidence of this subject rests on; empty for what was measured here"
    )
    complete: bool = Field(description="Whether every declared strategy of the subject has all its evidence here")


class LatencyBudgetOut(Out, LatencyBudget, frozen=True):
    """An upper limit on one percentile."""


class LimitsOut(Out, TargetLimits, frozen=True):
    """What a target demands; null where it has no such limit."""

    latency: tuple[LatencyBudgetOut, ...]


class BudgetsOut(LimitsOut, frozen=True):
    """What was asked, after an SLO was looked up."""

    FIRST = ("slo",)
    slo: str | None
    objective: Objective
    confidence: float
    equivalent_within: float
    cost_of_breaking: float


class ConstraintsOut(Out, frozen=True):
    """The constraints that were asked; null where there was none."""

    allow_tiers: list[str] | None
    forbid_tiers: list[str] | None
    allow_operators: list[str] | None
    forbid_operators: list[str] | None
    max_memory_bytes: dict[str, float] | None
    max_model_bytes: dict[str, float] | None
    keep_raw_input_on: str | None
    max_sent_bytes: float | None


class RelaxationOut(Out, frozen=True):
    """One field of the question changed, so that the same evidence gives a recommendation."""

    field: str = Field(description="Of the question")
    key: str | None = Field(description="The tier, where the field holds one limit per tier")
    percentile: float | None = Field(description="Of a latency budget")
    from_value: float | str | list[str] | None = Field(description="What was asked")
    to_value: float | str | list[str] | None = Field(
        description="What to ask instead, rounded to the lenient side; null gives the limit up"
    )
    cost: float = Field(
        description="Relative: 0.1 is a limit 10 % further, or one percentage point of accuracy; "
        "1 is a limit doubled or given up, or one name of a list"
    )
    operator: str = Field(description="Of the strategy that it would recommend")
    placement: str
    words: str


class AgeOut(Out, frozen=True):
    """When the evidence of this answer was measured."""

    oldest_at: str | None = Field(description="Start of the earliest round")
    newest_at: str = Field(description="End of the latest round")
    # With the day in it, the same question on another day has another answer.
    asked_on: str = Field(description="The day of this answer, UTC; an answer is not kept beyond it")
    words: str


class ChoiceOut(Out, frozen=True):
    """Why this environment answers."""

    why: str
    others: int = Field(description="Other environments that hold evidence of the subject, left out")


class InfeasibleOut(Out, frozen=True):
    """How sure it is that no considered strategy keeps the budgets."""

    status: Status
    probability: float | None = Field(description="Null when estimated, or when constraints exclude every strategy")


class ToDoOut(Out, frozen=True):
    """What would make the answer sure."""

    command: str | None = Field(description="To run where the evidence was measured; null where no command can help")
    minutes: float | None = Field(description="How long it measures, by the rounds so far; null where that is unknown")
    words: str


AnswerStatus = Literal["proven", "likely", "open", "estimated", "infeasible", "unmeasured"]


class RecommendResponse(Out, frozen=True):
    """The answer with its evidence; `recommendation` is null where it is proven or likely that no strategy will do.

    With `version` 1 it is null too where it is not proven.
    """

    version: Literal[1, 2] = Field(description="Of the question: 1 recommends nothing but what is proven")
    status: AnswerStatus = Field(
        description="Of the best strategy: proven, likely, open or estimated; infeasible where all estimates miss a "
        "budget and none is recommended, unmeasured where there is nothing to estimate from"
    )
    probability: float | None = Field(
        description="That all budgets hold, or of infeasible that no strategy keeps them; null if unknown"
    )
    subject: str
    budgets: BudgetsOut
    links: list[AskedLinkOut] = Field(default=[], description="The links that were asked about")
    constraints: ConstraintsOut | None = Field(description="Null when the question had none")
    summary: str = Field(
        description="What to use, how sure that is, why, and what would make it sure; or what to change"
    )
    to_do: ToDoOut | None = Field(description="What would make it sure; null where it is, or where nothing is known")
    recommendation: RecommendationOut | None
    proven: RecommendationOut | None = Field(
        description="The best proven strategy, where the recommendation is another: for those who take no risk"
    )
    infeasible: InfeasibleOut | None = Field(description="Null where an estimate is within the budgets")
    relaxation: RelaxationOut | None = Field(
        description="The cheapest single change that leads to a proven recommendation; null with one, or where none "
        "helps"
    )
    other_relaxations: list[RelaxationOut] = Field(description="The cheapest of every other field, the cheapest first")
    alternatives: list[AlternativeOut] = Field(description="Other proven strategies")
    near_misses: list[NearMissOut] = Field(description="Without a recommended one, the nearest first")
    undecided: list[UndecidedOut] = Field(description="Others within the budgets that are not proven")
    considered: list[ConsideredOut]
    excluded: list[ExcludedOut] = Field(
        description="By a constraint, before anything was estimated: not among those whose bounds hold together"
    )
    not_considered: list[NotConsideredOut]
    warnings: list[str]
    environment: EnvironmentOut | None
    environment_choice: ChoiceOut
    age: AgeOut
    conditions: str = CONDITIONS
    inputs_select: str | None = Field(
        description="How the inputs were chosen: systematic (spread by size), random, or the largest (an upper bound)"
    )
