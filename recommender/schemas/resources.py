"""What the other resources send, and problems."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recommender.answer.wording import CONDITIONS
from recommender.schemas.answer import EnvironmentOut
from recommender.schemas.base import Out
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
    left_out: int = Field(0, description="Rows of the database that nothing can be made of; GET /coverage names them")


class FieldProblem(Out):
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
