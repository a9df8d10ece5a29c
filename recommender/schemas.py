"""What goes in and out over HTTP (and as `--json`): pydantic models, SI units, nothing unknown accepted."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recommender.link_schemas import AskedLinkOut, Links, PredictedFromOut
from recommender.ranking import Objective
from recommender.wording import CONDITIONS

_SLO_EXCLUDES = ("max_latency_s", "latency_percentile", "min_accuracy_pct", "max_accuracy_drop_pp")

Name = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class RecommendRequest(BaseModel):
    """A subject and the budgets to hold; every budget is optional, none at all means: the best by the objective."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "subject": "fashion-resnet",
                    "max_latency_s": 0.2,
                    "latency_percentile": 90,
                    "max_accuracy_drop_pp": 1.0,
                },
                {"subject": "fashion-resnet", "slo": "interactive"},
                {"subject": "canvas-fcn", "min_accuracy_pct": 60, "objective": "accuracy"},
                {"subject": "fashion-resnet", "max_latency_s": 0.2, "links": {"edge-cloud": "50mbit"}},
            ]
        },
    )

    subject: Name = Field(description="The model under study, as named in the catalog file (GET /subjects lists them)")
    max_latency_s: Seconds | None = Field(
        default=None, description="End-to-end latency budget in seconds, at the percentile"
    )
    latency_percentile: float = Field(
        default=90.0, gt=0, lt=100, allow_inf_nan=False, description="Percentile to bound, to rank by and to report"
    )
    min_accuracy_pct: Percent | None = Field(
        default=None, description="Floor of the subject's accuracy metric, in percent"
    )
    max_accuracy_drop_pp: Percent | None = Field(
        default=None, description="Largest drop against the identity operator, in percentage points"
    )
    slo: Name | None = Field(default=None, description="A declared SLO instead of explicit budgets")
    objective: Objective = Field(
        default="latency", description="What to optimise among the strategies that hold the budgets"
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1,
        allow_inf_nan=False,
        description="Joint, over all candidates and budgets, that what is called feasible is",
    )
    equivalent_within: float = Field(
        default=0.05, ge=0, le=1, allow_inf_nan=False, description="Latency ratios this near to 1 do not matter"
    )
    links: Links | None = Field(
        default=None,
        description="Bandwidths other than the measured ones, by link; latencies over these links are then predicted",
        examples=[{"edge-cloud": "10mbit"}],
    )
    environment: Name | None = Field(
        default=None, description="Key of the environment to answer from; by default the newest with complete evidence"
    )

    @model_validator(mode="after")
    def _one_source_of_budgets(self) -> Self:
        if self.slo is not None:
            sent = self.model_fields_set
            explicit = [name for name in _SLO_EXCLUDES if name in sent and getattr(self, name) is not None]
            if explicit:
                raise ValueError(
                    f"'slo' already says the budgets, yet {', '.join(explicit)} was given too; "
                    "send either 'slo' or explicit budgets"
                )
        return self


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencyOut(_Out):
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


class AccuracyOut(_Out):
    """Accuracy on the whole validation set, measured in the tier."""

    metric: str = Field(description="top1, miou, … ; the subject's primary metric")
    accuracy_pct: float
    drop_pp: float | None = Field(description="Against identity on the same items; negative is a gain")
    items: int


class StrategyOut(_Out):
    """A measured strategy."""

    operator: str
    placement: str
    latency: LatencyOut
    accuracy: AccuracyOut | None
    size_bytes: int | None = Field(description="All model files of the strategy together")
    sent_bytes: float | None = Field(description="Median per request, over all links of the route")


class RecommendationOut(StrategyOut):
    """The strategy to use, and why it rather than the next best."""

    joint_confidence: float = Field(description="Largest joint confidence at which all its budgets hold")

    why: str
    artifact_sha256: dict[str, str] = Field(description="Of the measured model files, by name")


class AlternativeOut(StrategyOut):
    """Holds the budgets too. `relation` is to the fastest feasible strategy, simultaneous over all pairs."""

    relation: Literal["equivalent", "different", "unresolved"]
    ratio_low: float | None = Field(description="Interval of the latency ratio to the fastest feasible strategy")
    ratio_high: float | None

    latency_ratio: float = Field(description="Of the asked percentile, against the recommendation; above 1 is slower")
    accuracy_difference_pp: float | None = Field(description="Against the recommendation; above 0 is more accurate")


class NearMissOut(StrategyOut):
    """Misses at least one budget; the nearest comes first. Each shortfall is null where that budget holds."""

    latency_over_s: float | None
    accuracy_short_pp: float | None
    drop_over_pp: float | None
    lacks: list[str] = Field(description="The same in words, one per missed budget")


class UndecidedOut(StrategyOut):
    """Nothing measured speaks against it, but the evidence cannot promise the budgets."""

    kind: Literal["too_thin", "one_round", "unproven", "items_missing", "accuracy_missing", "drop_missing"]
    reason: str
    to_do: str = Field(description="What to measure so that it can be decided")


class ConsideredOut(_Out):
    """One line per strategy that took part, and where in this answer it is."""

    operator: str
    placement: str
    outcome: Literal["recommended", "alternative", "near_miss", "undecided"]


class NotConsideredOut(_Out):
    """Declared, but without evidence."""

    operator: str
    placement: str
    reason: str
    command: str | None = Field(description="What would measure it; null when it cannot apply to this subject")


class EnvironmentOut(_Out):
    """Where the evidence was measured; an answer never mixes two environments."""

    key: str
    launcher: str
    scale: str = Field(description="1, or the common factor of an emulation such as 1/8")
    host: str
    cpu_model: str
    cpu_count: int
    onnxruntime: str
    measured_at: str
    imported_from: str | None = Field(description="The file that brought it; null for what was measured here")
    complete: bool = Field(description="Whether every declared strategy of the subject has all its evidence here")


class BudgetsOut(_Out):
    """What was asked, after an SLO was looked up."""

    slo: str | None
    latency: list["LatencyBudgetOut"]
    min_accuracy_pct: float | None
    max_accuracy_drop_pp: float | None
    objective: Objective
    confidence: float
    equivalent_within: float


class LatencyBudgetOut(_Out):
    """An upper limit on one percentile."""

    percentile: float
    max_s: float


class RecommendResponse(_Out):
    """The answer with its evidence; `recommendation` is null when nothing is known to hold every budget."""

    subject: str
    budgets: BudgetsOut
    links: list[AskedLinkOut] = Field(default=[], description="The links that were asked about")
    summary: str
    recommendation: RecommendationOut | None
    alternatives: list[AlternativeOut]
    near_misses: list[NearMissOut]
    undecided: list[UndecidedOut]
    considered: list[ConsideredOut]
    not_considered: list[NotConsideredOut]
    warnings: list[str]
    environment: EnvironmentOut | None
    conditions: str = CONDITIONS
    inputs_select: str | None = Field(description="How the inputs were chosen: random, or the largest (an upper bound)")


class StrategyRow(_Out):
    """A declared strategy with what is known about it in one environment."""

    subject: str
    operator: str
    placement: str
    environment: str
    status: str
    reason: str | None
    latency: LatencyOut | None
    accuracy: AccuracyOut | None
    size_bytes: int | None
    sent_bytes: float | None


class StrategiesResponse(_Out):
    """Strategies of each subject's default environment."""

    strategies: list[StrategyRow]
    conditions: str = CONDITIONS


class SubjectRow(_Out):
    """A subject and how far its evidence goes."""

    subject: str
    task: str
    strategies: int
    measured: int
    environments: list[EnvironmentOut]


class SubjectsResponse(_Out):
    """All declared subjects, and the SLOs that a question can name."""

    subjects: list[SubjectRow]
    slos: list[str]


class HealthResponse(_Out):
    """The service can answer."""

    status: Literal["ok"] = "ok"
    version: str
    subjects: int
    loaded_at: str


class FieldProblem(_Out):
    """One field that was refused."""

    field: str
    got: str
    allowed: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] | None = Field(
        default=None, description="The refused fields: what each held, what is allowed"
    )
    known: list[str] | None = Field(default=None, description="The names that exist, when one does not")
    nearest: str | None = Field(default=None, description="The known name that is spelled most like the one sent")
