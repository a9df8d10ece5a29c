"""A typed client of the service: the same models in and out, problems as exceptions.

with RecommenderClient("http://127.0.0.1:8080") as service:
    answer = service.recommend(RecommendRequest(subject="fashion-resnet", max_latency_s=0.2))
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from recommender.errors import RecommenderError
from recommender.schemas import (
    HealthResponse,
    Problem,
    RecommendRequest,
    RecommendResponse,
    StrategiesResponse,
    SubjectsResponse,
)
from recommender.schemas.links import LinksResponse, WhatIfResponse
from recommender.schemas.resources import (
    AccuracyEvidenceOut,
    BatchItem,
    BatchRequest,
    BatchResponse,
    CoverageResponse,
    LatencyEvidence,
    SlosResponse,
    StandingsResponse,
    StrategyResource,
)

ModelT = TypeVar("ModelT", bound=BaseModel)
_EVIDENCE: TypeAdapter[LatencyEvidence | AccuracyEvidenceOut] = TypeAdapter(LatencyEvidence | AccuracyEvidenceOut)


class ServiceProblem(RecommenderError):
    """The service refused; `problem` is its document, or None where something else answered."""

    def __init__(self, message: str, *, status: int | None = None, problem: Problem | None = None) -> None:
        self.status = status
        self.problem = problem
        super().__init__(message)


class RecommenderClient:
    """A client of one service over one pool of connections; close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        # As long as the service takes at most (`max_request_s`).
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"x-api-key": api_key}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s, transport=transport)

    def recommend(self, question: RecommendRequest) -> RecommendResponse:
        """Ask which strategy to use within these budgets."""
        return self._post("/recommend", question, RecommendResponse)

    def recommend_batch(self, questions: Sequence[RecommendRequest]) -> list[BatchItem]:
        """Ask several questions; return one answer or problem per question, all from one snapshot of the evidence."""
        return self._post("/recommend/batch", BatchRequest(questions=list(questions)), BatchResponse).answers

    def subjects(self) -> SubjectsResponse:
        """List the subjects that a question can name."""
        return self._get("/subjects", SubjectsResponse)

    def strategies(self, subject: str | None = None) -> StrategiesResponse:
        """List every declared strategy, of one subject or of all."""
        return self._get("/strategies", StrategiesResponse, subject=subject)

    def strategy(self, strategy_id: str, *, environment: str | None = None) -> StrategyResource:
        """Fetch one strategy with the ids of its evidence."""
        # No character is safe: a slash in a name must not begin another segment of the path.
        return self._get(f"/strategies/{quote(strategy_id, safe='')}", StrategyResource, environment=environment)

    def evidence(self, evidence_id: str) -> LatencyEvidence | AccuracyEvidenceOut:
        """Fetch what was recorded under a key."""
        return _EVIDENCE.validate_json(self._send("GET", f"/evidence/{quote(evidence_id, safe='')}"))

    def leaderboard(
        self, subject: str, *, percentile: float = 90.0, environment: str | None = None
    ) -> StandingsResponse:
        """List the measured strategies, fastest first."""
        return self._get(
            "/leaderboard", StandingsResponse, subject=subject, percentile=percentile, environment=environment
        )

    def pareto(self, subject: str, *, percentile: float = 90.0, environment: str | None = None) -> StandingsResponse:
        """List the strategies that no other beats in latency and accuracy at once."""
        return self._get("/pareto", StandingsResponse, subject=subject, percentile=percentile, environment=environment)

    def links(self, subject: str, *, environment: str | None = None) -> LinksResponse:
        """List the links that a question can name and the bandwidths that were measured."""
        return self._get("/links", LinksResponse, subject=subject, environment=environment)

    def whatif(
        self,
        subject: str,
        link: str,
        *,
        low: str = "1mbit",
        high: str = "200mbit",
        percentile: float = 90.0,
        points: int = 9,
        environment: str | None = None,
    ) -> WhatIfResponse:
        """Return latency against the bandwidth of a link, per strategy, and where the choice changes."""
        query: dict[str, str | float | None] = {"from": low, "to": high, "link": link, "percentile": percentile}
        return self._get("/whatif", WhatIfResponse, subject=subject, points=points, environment=environment, **query)

    def coverage(self) -> CoverageResponse:
        """Return what is measured and what is missing."""
        return self._get("/coverage", CoverageResponse)

    def slos(self) -> SlosResponse:
        """List the declared SLOs."""
        return self._get("/slos", SlosResponse)

    def ready(self) -> HealthResponse:
        """Return the service's state; raise `ServiceProblem` while no question can be answered."""
        return self._get("/readyz", HealthResponse)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str, model: type[ModelT], **query: str | float | None) -> ModelT:
        parameters = {name: value for name, value in query.items() if value is not None}
        return model.model_validate_json(self._send("GET", path, params=parameters))

    def _post(self, path: str, body: BaseModel, model: type[ModelT]) -> ModelT:
        # Defaults stay out: beside `slo`, a percentile that was only a default would be refused as a second budget.
        content = body.model_dump_json(exclude_unset=True)
        headers = {"content-type": "application/json"}
        return model.model_validate_json(self._send("POST", path, content=content, headers=headers))

    def _send(self, method: str, path: str, **content: Any) -> bytes:
        try:
            response = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise ServiceProblem(f"the recommender at {self._http.base_url} does not answer: {error}") from error
        if response.is_success:
            return response.content
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            raise ServiceProblem(
                f"{self._http.base_url} answered {response.status_code} without a problem document: "
                "is it a Tierwise recommender?",
                status=response.status_code,
            ) from None
        raise ServiceProblem(f"{problem.title}: {problem.detail}", status=problem.status, problem=problem)
