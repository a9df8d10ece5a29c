"""The question: a subject, budgets, constraints, and the environment to answer from."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from catalog.evidence.allowed import Percentile
from recommender.ranking import Objective
from recommender.schemas.base import Bytes, BytesByTier, Name, Names, Percent, Seconds
from recommender.schemas.links import Links

_SLO_EXCLUDES = ("max_latency_s", "latency_percentile", "min_accuracy_pct", "max_accuracy_drop_pp")
_KEY_EXCLUDES = ("host", "scale", "launcher")
_EXAMPLES: list[JsonValue] = [
    {"subject": "fashion-resnet", "max_latency_s": 0.2, "latency_percentile": 90, "max_accuracy_drop_pp": 1.0},
    {"subject": "fashion-resnet", "slo": "interactive"},
    {"subject": "canvas-fcn", "min_accuracy_pct": 60, "objective": "accuracy"},
    {"subject": "fashion-resnet", "max_latency_s": 0.2, "keep_raw_input_on": "mobile", "forbid_tiers": ["cloud"]},
    {"subject": "fashion-resnet", "max_memory_bytes": {"edge": 67108864}, "max_sent_bytes": 100000, "objective": "cpu"},
    {"subject": "fashion-resnet", "max_latency_s": 0.2, "links": {"edge-cloud": "50mbit"}},
]

OneOrMore = Annotated[Names, Field(min_length=1)]


class RecommendRequest(BaseModel):
    """A subject and the budgets to hold; every budget is optional, none at all means: the best by the objective."""

    # Strict: a number sent as text is refused and not guessed at.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra={"examples": _EXAMPLES})

    subject: Name = Field(description="The model under study, as named in the catalog file (GET /subjects lists them)")
    max_latency_s: Seconds | None = Field(
        default=None, description="End-to-end latency budget in seconds, at the percentile"
    )
    latency_percentile: Percentile = Field(
        default=90.0,
        allow_inf_nan=False,
        description="Percentile to bound, to rank by and to report: 90 for p90, from 1; 0.9 is refused",
    )
    min_accuracy_pct: Percent | None = Field(
        default=None, description="Floor of the subject's accuracy metric, in percent"
    )
    max_accuracy_drop_pp: Percent | None = Field(
        default=None, description="Largest drop against the identity operator, in percentage points"
    )
    slo: Name | None = Field(default=None, description="A declared SLO instead of explicit budgets")
    objective: Objective = Field(
        default="latency",
        description="What to optimise among the strategies that hold the budgets: latency, accuracy, size (all model "
        "files), sent (bytes per inference over all links), cpu (CPU seconds per inference on the tier where the raw "
        "input arises)",
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        le=0.999999999999,
        allow_inf_nan=False,
        description="Joint, over all candidates and budgets, that what is called feasible is",
    )
    equivalent_within: float = Field(
        default=0.05, ge=0, le=1, allow_inf_nan=False, description="Latency ratios this near to 1 do not matter"
    )
    cost_of_breaking: float = Field(
        default=0.6931,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="What a broken budget costs, on the scale of the log latency: 0.6931 is as much as twice the "
        "latency (two percentage points for the objective accuracy); 0 takes the best estimate, 10 hardly any risk",
    )
    version: Literal[1, 2] = Field(
        default=2,
        description="2: the recommendation is the best choice, and `status` says how sure it is; 1: it is null unless "
        "it is proven, for clients that use null as a gate",
    )
    detail: Literal["full", "short"] = Field(
        default="full", description="short leaves out near misses, the list of all considered, and shortfalls"
    )
    allow_tiers: OneOrMore | None = Field(
        default=None,
        description="The only tiers on which a part may compute; a tier that only passes bytes on does not count",
    )
    forbid_tiers: Names | None = Field(default=None, description="Tiers on which no part may compute")
    allow_operators: OneOrMore | None = Field(default=None, description="The only operators that may be used")
    forbid_operators: Names | None = Field(default=None, description="Operators that may not be used")
    max_memory_bytes: BytesByTier | None = Field(
        default=None,
        description="Per tier: largest peak memory of its server in any round. Concerns tiers where a part computes; "
        "a strategy whose memory was not recorded there is excluded",
    )
    max_model_bytes: BytesByTier | None = Field(default=None, description="Per tier: size of the model files on it")
    keep_raw_input_on: Name | None = Field(
        default=None, description="The first part must compute on this tier, so that only cut tensors leave it"
    )
    max_sent_bytes: Bytes | None = Field(
        default=None, description="Bytes per inference over all links of the route (the median)"
    )
    links: Links | None = Field(
        default=None,
        description="Bandwidths other than the measured ones, by link; latencies over these links are then predicted",
        examples=[{"edge-cloud": "10mbit"}],
    )
    environment: Name | None = Field(
        default=None, description="Key of the environment to answer from; by default the newest with complete evidence"
    )
    host: Name | None = Field(default=None, description="Answer from an environment on this host")
    scale: Name | None = Field(default=None, description="Answer from an environment at this scale, 1 or such as 1/8")
    launcher: Name | None = Field(default=None, description="Answer from an environment of this launcher")

    @model_validator(mode="after")
    def _one_source_of_budgets(self) -> Self:
        return self._refuse_beside("slo", _SLO_EXCLUDES, "'slo' already says the budgets", "explicit budgets")

    @model_validator(mode="after")
    def _one_way_to_an_environment(self) -> Self:
        return self._refuse_beside(
            "environment", _KEY_EXCLUDES, "'environment' already names one", "what it should be like"
        )

    def _refuse_beside(self, field: str, others: tuple[str, ...], because: str, instead: str) -> Self:
        # Only what was sent: the percentile has a value in every question.
        sent = self.model_fields_set
        both = [name for name in others if name in sent and getattr(self, name) is not None]
        if getattr(self, field) is not None and both:
            raise ValueError(f"{because}, yet {', '.join(both)} was given too; send either '{field}' or {instead}")
        return self
