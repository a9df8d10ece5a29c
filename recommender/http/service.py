"""For whoever operates the service: alive, ready, counted."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from recommender.http.evidence import EvidenceNow
from recommender.http.metrics import ServiceMetrics
from recommender.http.problems import documented
from recommender.resources import LivenessResponse
from recommender.schemas import HealthResponse

router = APIRouter(tags=["service"])


@router.get("/healthz", responses=documented(413, 500, 503))
def healthz() -> LivenessResponse:
    """200 while the process answers, with evidence or without."""
    return LivenessResponse(version=version("tierwise"))


@router.get("/readyz", responses=documented(413, 500, 503))
def readyz(known: EvidenceNow) -> HealthResponse:
    """200 when a question can be answered now; otherwise a problem that says what is missing."""
    return HealthResponse(
        version=version("tierwise"),
        subjects=len(known.subjects),
        loaded_at=known.loaded_at.isoformat(),
        left_out=len(known.left_out),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses=documented(401, 413, 500, 503)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus exposition format"}},
)
def metrics(request: Request) -> Response:
    """Requests by route, and how much evidence the answers rest on."""
    counted: ServiceMetrics = request.app.state.metrics
    return Response(counted.text(), headers={"content-type": CONTENT_TYPE_LATEST})
