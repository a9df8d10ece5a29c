"""The answer, and a strategy in it: what was measured of it, and the place that the answer gives it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from catalog.evidence.records import EnvironmentSummary, FileSummary
from recommender.ranking import LatencyBudget, Objective
from recommender.ranking.model import TargetLimits
from recommender.schemas.base import CONDITIONS, Out, StrategyNameOut
from recommender.schemas.links import AskedLinkOut, PredictedFromOut


class LatencyOut(Out, frozen=True):
    """End-to-end latency: percentiles within each round, geometric mean over the rounds."""

    median_s: float
    percentile: float = Field(description="The asked percentile")
    percentile_s: float
    low_s: float | None = Field(description="95 % interval of the percentile; null where the evidence is too thin")
    high_s: float | None
    percentile_s_by_round: list[float]
    rounds: int
    inputs: int = Field(description="Distinct inputs in the round with the fewest: the unit a percentile rests on")
    samples: int
    predicted: bool = Field(default=False, description="Not measured: for the asked links, from measured parts")
    predicted_from: PredictedFromOut | None = None


class AccuracyOut(Out, frozen=True):
    """Accuracy on the whole validation set, measured in the tier."""

    metric: str = Field(description="top1, miou, … ; the subject's primary metric")
    accuracy_pct: float
    low_pct: float | None = Field(description="95 % interval of the accuracy; null where its items are not known")
    high_pct: float | None
    drop_pp: float | None = Field(description="Against identity on the same items; negative is a gain")
    drop_low_pp: float | None = Field(description="95 % interval of the drop, paired by item")
    drop_high_pp: float | None
    items: int
    remark: str | None = Field(
        default=None,
        description="Why the figure says nothing: it does not differ from always giving the same answer, or all "
        "items are of one class; null also where classes were not counted",
    )


class AgreementOut(Out, frozen=True):
    """On how many inputs the first class is identity's."""

    agreeing: int
    items: int
    low: float = Field(description="Exact 95 % interval of the share")
    high: float


class DistanceOut(Out, frozen=True):
    """How far the outputs are from identity's on the same inputs: known without labels, and no accuracy."""

    inputs: int
    source: str = Field(description="calibration, or random: seeded inputs of the declared shapes")
    relative_error: float | None = Field(
        description="Root mean square of the difference over that of identity's output, of the worst output; null "
        "where a number is not finite"
    )
    cosine: float | None = Field(description="Of the angle between both outputs, of the worst output")
    finite: bool = Field(description="Every output is finite wherever identity's is")
    agreement: AgreementOut | None = Field(description="For outputs with a class axis")
    warning: str | None = Field(description="In words, where the outputs are other outputs than identity's")


class ResourcesOut(Out, frozen=True):
    """What a strategy takes, per tier; a tier without a figure was not recorded."""

    memory_bytes: dict[str, int] = Field(description="Largest peak of the tier's server in any round, relays included")
    model_bytes: dict[str, int] = Field(description="Model files of the part that computes there")
    cpu_s: dict[str, float] = Field(description="CPU seconds per inference, after warm-up, relays included")


class StrategyOut(StrategyNameOut, frozen=True):
    """A measured strategy."""

    FIRST = ("id",)
    id: str = Field(description="For GET /strategies/{id}")
    latency: LatencyOut
    accuracy: AccuracyOut | None
    # Null too for artifacts that were built before distances were measured.
    distance: DistanceOut | None = Field(
        default=None, description="Of the outputs to identity's; null for identity, and where it was not measured"
    )
    size_bytes: int | None = Field(description="All model files of the strategy together")
    sent_bytes: float | None = Field(description="Median per inference, over all links of the route")
    resources: ResourcesOut
    pareto: bool = Field(description="No other considered strategy is at least as fast and as accurate, and not equal")
    verdicts: Mapping[str, int] = Field(
        description="Completed rounds by verdict, INVALID ones too, which count nowhere else here"
    )
    latency_evidence_id: str | None = Field(description="For GET /evidence/{id}")
    accuracy_evidence_id: str | None = Field(description="For GET /evidence/{id}; null while nothing was measured")
    artifact_sha256: Mapping[str, str] = Field(description="Of the measured model files, by name")


Status = Literal["proven", "likely", "open", "estimated"]


class ProspectOut(StrategyOut, frozen=True):
    """A strategy whose estimates are within the budgets."""

    # The values of `recommender.ranking.Status`.
    status: Status = Field(
        description="How sure it is that all budgets hold. proven: at the confidence asked; likely: with a probability "
        "of at least 0.8; open: with less; estimated: nothing is known of how far the estimates may be off, or the "
        "question has no budget"
    )
    probability: float | None = Field(description="That all budgets hold; null when estimated")


class RecommendationOut(ProspectOut, frozen=True):
    """The strategy to use, and why it rather than another."""

    joint_confidence: float = Field(
        description="Largest joint confidence at which all its budgets hold, over all candidates"
    )
    next_start_high_s: float | None = Field(
        description="Upper 95 % bound of the percentile in the next start, which is one of many and not a typical one; "
        "null where the evidence gives none"
    )
    why: str
    not_chosen: list[str] = Field(description="Why not a faster one (a better one, by the objective), or a proven one")
    reason: str | None = Field(description="Why it is not proven; null when it is")
    lacks: list[str] = Field(
        default=[], description="Which budgets its estimates miss, where those of all strategies do; else empty"
    )
    quality: str | None = Field(
        default=None,
        description="What must be known of its answers: that nothing was measured of them, how far its outputs are "
        "from identity's, what it loses; null where they are identity's, or within an accuracy budget",
    )


class AlternativeOut(ProspectOut, frozen=True):
    """Proven to hold the budgets too. `relation` is to the fastest feasible strategy, simultaneous over all pairs."""

    # The values of `catalog.statistics.ComparisonOutcome`.
    relation: Literal["equivalent", "different", "unresolved"]
    ratio_low: float | None = Field(description="Interval of the latency ratio to the fastest feasible strategy")
    ratio_high: float | None

    latency_ratio: float = Field(description="Of the asked percentile, against the recommendation; above 1 is slower")
    latency_ratio_low: float | None = Field(description="Its interval, simultaneous over all pairs of feasible ones")
    latency_ratio_high: float | None
    accuracy_difference_pp: float | None = Field(description="Against the recommendation; above 0 is more accurate")


class ShortfallOut(Out, frozen=True):
    """One budget beside what is known of a strategy, all in the budget's unit; positive differences are beyond it."""

    budget: Literal["max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"]
    percentile: float | None = Field(description="Of a latency budget")
    limit: float
    estimate: float | None = Field(description="Null where nothing was measured")
    over: float | None = Field(description="How far the estimate is beyond the limit")
    bound: float | None = Field(description="At the joint confidence asked; null where the evidence gives none")
    bound_over: float | None = Field(description="How far the bound is beyond the limit: what a promise lacks")
    items: int | None = Field(default=None, description="Validation items that a budget of accuracy rests on")
    best_bound: float | None = Field(
        default=None, description="What so many items could show at best, with none lost; null for a latency"
    )
    items_needed: int | None = Field(
        default=None, description="Fewest items that could show the limit to hold; null where there are as many"
    )


class NearMissOut(StrategyOut, frozen=True):
    """Misses at least one budget; the nearest comes first. Each shortfall is null where that budget holds."""

    latency_over_s: float | None
    accuracy_short_pp: float | None
    drop_over_pp: float | None
    lacks: list[str] = Field(description="The same in words, one per missed budget")
    shortfalls: list[ShortfallOut] = Field(description="Every budget of the question")


class UndecidedOut(ProspectOut, frozen=True):
    """Its estimates are within the budgets, or not known, and it is not proven."""

    # The values of `recommender.ranking.Gap`.
    kind: Literal[
        "too_thin",
        "one_round",
        "unproven",
        "too_few_images",
        "by_model",
        "items_missing",
        "accuracy_missing",
        "drop_missing",
    ]
    reason: str
    to_do: str = Field(description="What to measure so that it can be decided")
    shortfalls: list[ShortfallOut] = Field(description="Every budget of the question")


Outcome = Literal["recommended", "alternative", "near_miss", "undecided"]


class ConsideredOut(StrategyNameOut, frozen=True):
    """One line per strategy that took part, and where in this answer it is."""

    outcome: Outcome


class BreachOut(Out, frozen=True):
    """One constraint that a strategy breaks."""

    constraint: str = Field(description="The field of the question")
    name: str | None = Field(description="The tier or operator concerned")
    limit: float | None = Field(description="Bytes; null where the constraint is a name")
    got: float | None = Field(description="Bytes; null where it is not known, which counts as broken")


class ExcludedOut(StrategyNameOut, frozen=True):
    """Measured, but a constraint of the question excludes it."""

    reason: str
    breaches: list[BreachOut]


class NotConsideredOut(StrategyNameOut, frozen=True):
    """Declared, but without a latency to judge: not measured, or without a prediction on the asked links."""

    reason: str
    command: str | None = Field(description="What would measure it; null where nothing here would")
    could_change_answer: bool = Field(description="Whether its evidence could make it the recommendation")
    because: str = Field(description="Why it could or could not")


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
