"""What the other resources send, and problems."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recommender.schemas.answer import EnvironmentOut, LatencyBudgetOut, RecommendResponse
from recommender.schemas.base import CONDITIONS, Out
from recommender.schemas.request import RecommendRequest
from recommender.schemas.strategy import AccuracyOut, DistanceOut, LatencyOut


class StrategyRow(Out):
    """A declared strategy with what is known about it in one environment."""

    subject: str
    operator: str
    placement: str
    environment: str
    status: str
    reason: str | None
    latency: LatencyOut | None
    accuracy: AccuracyOut | None
    distance: DistanceOut | None = None
    size_bytes: int | None
    sent_bytes: float | None


class StrategiesResponse(Out):
    """Strategies of each subject's default environment."""

    strategies: list[StrategyRow]
    conditions: str = CONDITIONS


class SubjectRow(Out):
    """A subject and how far its evidence goes."""

    subject: str
    task: str
    strategies: int
    measured: int
    environments: list[EnvironmentOut]


class SubjectsResponse(Out):
    """All declared subjects, and the SLOs that a question can name."""

    subjects: list[SubjectRow]
    slos: list[str]


class HealthResponse(Out):
    """The service can answer."""

    status: Literal["ok"] = "ok"
    version: str
    subjects: int
    loaded_at: str
    left_out: int = Field(0, description="Unusable rows of the database; GET /coverage names them")


class FieldProblem(Out):
    """One field that was refused."""

    field: str
    got: str
    allowed: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    # RFC 9457, section 3.2: a problem may bring members of its own, and a client ignores those it does not know.
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


# At about 2 ms a new question (docs/recommend.md), a whole batch keeps well within the time limit of a request.
MAX_QUESTIONS = 100


class StrategyResource(Out):
    """One strategy with the ids under which its evidence can be fetched."""

    id: str = Field(description="subject:operator:placement")
    strategy: StrategyRow
    environment: EnvironmentOut
    artifact_sha256: dict[str, str] = Field(description="Of the model files, by name")
    latency_evidence_id: str | None = Field(description="For GET /evidence/{id}; null while nothing was measured")
    accuracy_evidence_id: str | None = Field(description="For GET /evidence/{id}; null while nothing was measured")


class StandingOut(Out):
    """A measured strategy's place among those of its subject."""

    id: str
    operator: str
    placement: str
    rank: int = Field(description="By the asked percentile, 1 is the fastest; point estimates, no test of differences")
    median_s: float
    percentile_s: float
    metric: str | None
    accuracy_pct: float | None
    drop_pp: float | None
    distance: DistanceOut | None = None
    size_bytes: int | None
    sent_bytes: float | None
    rounds: int
    inputs: int
    pareto: bool = Field(
        description="No other strategy is both at least as fast and at least as accurate, and not equal"
    )


class StandingsResponse(Out):
    """The measured strategies of one subject in one environment, fastest first."""

    subject: str
    percentile: float
    environment: EnvironmentOut
    strategies: list[StandingOut]
    without_accuracy: list[str] = Field(description="Ids that a front of latency and accuracy cannot place")
    conditions: str = CONDITIONS


class CoverageRow(Out):
    """How much of a subject's declaration has evidence in one environment."""

    subject: str
    environment: str
    declared: int
    complete: int
    partial: int
    missing: int
    inapplicable: int
    rounds: int
    rounds_declared: int
    to_measure: list[str] = Field(description="Ids of partial and missing strategies")
    command: str | None = Field(description="What would measure them; null when nothing is missing")


class CoverageResponse(Out):
    """Every subject in every environment."""

    coverage: list[CoverageRow]
    left_out: list[str] = Field(default=[])


class SloOut(Out):
    """A named target as declared at the last fill."""

    name: str
    latency: list[LatencyBudgetOut]
    min_accuracy_pct: float | None
    max_accuracy_drop_pp: float | None


class SlosResponse(Out):
    """All SLOs that a question can name."""

    slos: list[SloOut]


class RoundOut(Out):
    """One round of measuring, or one attempt at it, as it was recorded."""

    measurement_id: int
    round: int
    status: str
    verdict: str
    reason: str | None
    started_at: str
    finished_at: str
    inputs_select: str
    samples: int
    min_s: float | None
    mean_s: float | None
    max_s: float | None
    protocol: dict[str, Any]
    tiers: list[dict[str, Any]] = Field(description="Limits, threads, provider, cold start, throttling of each tier")
    links: list[dict[str, Any]] = Field(description="What each link really carried beside what was declared")


class LatencyEvidence(Out):
    """All rounds under one latency key: the SHA-256 of everything that determines the latency."""

    # By this field a client tells which of the two an id led to.
    kind: Literal["latency"] = "latency"
    id: str
    subject: str
    operator: str
    placement: str
    environment: str
    rounds: list[RoundOut]
    conditions: str = CONDITIONS


class AccuracyEvidenceOut(Out):
    """One accuracy over the whole validation set; a failed attempt has its reason and no numbers."""

    kind: Literal["accuracy"] = "accuracy"
    id: str
    subject: str
    operator: str
    environment: str
    provider: str
    metric: str
    top1_pct: float | None
    top5_pct: float | None
    # Null in evidence that is older than the counting of classes.
    class_counts: dict[str, int] | None = Field(
        default=None, description="Of how many items (of masks: pixels) each class is the truth"
    )
    miou_pct: float | None
    items: int
    status: str
    reason: str | None
    started_at: str
    finished_at: str


class BatchRequest(BaseModel):
    """Several questions, answered from one snapshot of the evidence."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "questions": [
                        {"subject": "fashion-resnet", "max_latency_s": 0.2},
                        {"subject": "canvas-fcn", "min_accuracy_pct": 60, "objective": "accuracy"},
                    ]
                }
            ]
        },
    )

    questions: list[RecommendRequest] = Field(min_length=1, max_length=MAX_QUESTIONS)


class BatchItem(Out):
    """The answer to a question, or the problem with it."""

    answer: RecommendResponse | None = None
    problem: Problem | None = None


class BatchResponse(Out):
    """One item per question, in their order."""

    answers: list[BatchItem]


class LivenessResponse(Out):
    """The process answers; /readyz says whether it has evidence."""

    status: Literal["ok"] = "ok"
    version: str
