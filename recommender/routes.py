"""The four resources. Sync functions on purpose: ranking is arithmetic and a refresh reads a file, so both run in
the server's thread pool and a slow disk never blocks the event loop."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from recommender import answering
from recommender.evidence import Evidence
from recommender.problems import TABLE
from recommender.schemas import (
    HealthResponse,
    Problem,
    RecommendRequest,
    RecommendResponse,
    StrategiesResponse,
    SubjectsResponse,
)
from recommender.snapshot import Snapshots

router = APIRouter()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for OpenAPI."""
    titles = {status: [kind.title for kind in TABLE.values() if kind.status == status] for status in statuses}
    return {status: {"model": Problem, "description": " / ".join(titles[status])} for status in statuses}


def snapshots(request: Request) -> Snapshots:
    """The application's one view of the database."""
    found: Snapshots = request.app.state.snapshots
    return found


def evidence(held: Annotated[Snapshots, Depends(snapshots)]) -> Evidence:
    """The newest evidence; a problem when there is none."""
    return held.current()


EvidenceNow = Annotated[Evidence, Depends(evidence)]
SubjectQuery = Annotated[str | None, Query(description="Only this subject", max_length=200)]


@router.post("/recommend", responses=documented(404, 413, 422, 500, 503), tags=["questions"])
def recommend(question: RecommendRequest, known: EvidenceNow) -> RecommendResponse:
    """Which operator on which placement, within these budgets, and on what evidence."""
    return answering.respond(known, question)


@router.get("/strategies", responses=documented(404, 413, 422, 500, 503), tags=["evidence"])
def strategies(known: EvidenceNow, subject: SubjectQuery = None) -> StrategiesResponse:
    """Every declared strategy with its measurements, from each subject's default environment."""
    chosen = list(known.subjects) if subject is None else [subject]
    rows = [row for name in chosen for row in answering.strategy_rows(known.select(name))]
    return StrategiesResponse(strategies=rows)


@router.get("/subjects", responses=documented(413, 500, 503), tags=["evidence"])
def subjects(known: EvidenceNow) -> SubjectsResponse:
    """The subjects that a question can name, how far their evidence goes, and the declared SLOs."""
    rows = [answering.subject_row(known, name) for name in known.subjects]
    return SubjectsResponse(subjects=rows, slos=sorted(known.slos))


@router.get("/healthz", responses=documented(413, 500, 503), tags=["service"])
def healthz(known: EvidenceNow) -> HealthResponse:
    """200 when a question can be answered now; otherwise a problem that says what is missing."""
    return HealthResponse(
        version=version("tierwise"), subjects=len(known.subjects), loaded_at=known.loaded_at.isoformat()
    )
