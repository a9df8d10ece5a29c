"""What the other resources send, and problems."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from catalog.evidence.records import (
    AccuracySummary,
    LatencyExtent,
    LinkProbeRecord,
    MeasurementSummary,
    Period,
    SloName,
    StrategyIdentity,
    TierRunRecord,
)
from recommender.schemas.answer import (
    AccuracyOut,
    DistanceOut,
    EnvironmentOut,
    LatencyOut,
    LimitsOut,
    RecommendResponse,
)
from recommender.schemas.base import CONDITIONS, Out, StrategyNameOut
from recommender.schemas.request import RecommendRequest


class StrategyRow(Out, StrategyIdentity, frozen=True):
    """A declared strategy with what is known about it in one environment."""

    FIRST = ("subject",)
    environment: str
    status: str
    reason: str | None
    latency: LatencyOut | None
    accuracy: AccuracyOut | None
    distance: DistanceOut | None = None
    size_bytes: int | None
    sent_bytes: float | None


class StrategiesResponse(Out, frozen=True):
    """Strategies of each subject's default environment."""

    strategies: list[StrategyRow]
    conditions: str = CONDITIONS


class SubjectRow(Out, frozen=True):
    """A subject and how far its evidence goes."""

    subject: str
    task: str
    strategies: int
    measured: int
    tiers: list[str] = Field(description="On which a strategy of the subject computes a part")
    environments: list[EnvironmentOut]


class SubjectsResponse(Out, frozen=True):
    """All declared subjects, and the SLOs that a question can name."""

    subjects: list[SubjectRow]
    slos: list[str]


class HealthResponse(Out, frozen=True):
    """The service can answer."""

    status: Literal["ok"] = "ok"
    version: str
    subjects: int
    loaded_at: str
    left_out: int = Field(0, description="Unusable rows of the database; GET /coverage names them")
    refresh: str = Field("", description="How a change of the evidence is noticed, and what keeps it from more")


class FieldProblem(Out, frozen=True):
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


class StrategyResource(Out, frozen=True):
    """One strategy with the ids under which its evidence can be fetched."""

    id: str = Field(description="subject:operator:placement")
    strategy: StrategyRow
    environment: EnvironmentOut
    artifact_sha256: dict[str, str] = Field(description="Of the model files, by name")
    latency_evidence_id: str | None = Field(description="For GET /evidence/{id}; null while nothing was measured")
    accuracy_evidence_id: str | None = Field(description="For GET /evidence/{id}; null while nothing was measured")


class StandingOut(StrategyNameOut, frozen=True):
    """A measured strategy's place among those of its subject."""

    FIRST = ("id",)
    id: str
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


class StandingsResponse(Out, frozen=True):
    """The measured strategies of one subject in one environment, fastest first."""

    subject: str
    percentile: float
    environment: EnvironmentOut
    strategies: list[StandingOut]
    without_accuracy: list[str] = Field(description="Ids that a front of latency and accuracy cannot place")
    conditions: str = CONDITIONS


class CoverageRow(Out, frozen=True):
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


class CoverageResponse(Out, frozen=True):
    """Every subject in every environment."""

    coverage: list[CoverageRow]
    left_out: list[str] = Field(default=[])


class SloOut(LimitsOut, SloName, frozen=True):
    """A named target as declared at the last fill."""


class SlosResponse(Out, frozen=True):
    """All SLOs that a question can name."""

    slos: list[SloOut]


class RecordedOut(Out, frozen=True):
    """What was recorded of a tier or a link; a figure that was not recorded is left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    @model_serializer(mode="wrap")
    def _recorded(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # Of the serializer alone the schema would say that it gives any object.
        return handler({name: value for name, value in core_schema.items() if name != "serialization"})


class TierRunOut(RecordedOut, TierRunRecord, frozen=True):
    """A tier during a round: its limits, cold start and resource use."""


class LinkProbeOut(RecordedOut, LinkProbeRecord, frozen=True):
    """What a link really carried in one direction, beside what was declared."""


class RoundOut(Out, LatencyExtent, MeasurementSummary, Period, frozen=True):
    """One round of measuring, or one attempt at it, as it was recorded."""

    FIRST = (
        "measurement_id",
        "round",
        "status",
        "verdict",
        "reason",
        "started_at",
        "finished_at",
        "inputs_select",
        "samples",
        "min_s",
        "mean_s",
        "max_s",
    )
    measurement_id: int
    tiers: list[TierRunOut] = Field(description="Limits, threads, provider, cold start, throttling of each tier")
    links: list[LinkProbeOut] = Field(description="What each link really carried beside what was declared")


class LatencyEvidence(Out, StrategyIdentity, frozen=True):
    """All rounds under one latency key: the SHA-256 of everything that determines the latency."""

    FIRST = ("kind", "id", "subject")
    # By this field a client tells which of the two an id led to.
    kind: Literal["latency"] = "latency"
    id: str
    environment: str
    rounds: list[RoundOut]
    conditions: str = CONDITIONS


class AccuracyEvidenceOut(Out, Period, AccuracySummary, frozen=True):
    """One accuracy over the whole validation set; a failed attempt has its reason and no numbers."""

    FIRST = ("kind", "id", "subject", "operator", "environment", "provider", "metric")
    kind: Literal["accuracy"] = "accuracy"
    id: str
    environment: str
    metric: str


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


class BatchItem(Out, frozen=True):
    """The answer to a question, or the problem with it."""

    answer: RecommendResponse | None = None
    problem: Problem | None = None


class BatchResponse(Out, frozen=True):
    """One item per question, in their order."""

    answers: list[BatchItem]


class LivenessResponse(Out, frozen=True):
    """The process answers; /readyz says whether it has evidence."""

    status: Literal["ok"] = "ok"
    version: str
