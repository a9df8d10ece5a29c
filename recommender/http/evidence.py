"""Routes that show the evidence: subjects, strategies, their standing, coverage, single measurements."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from recommender.answer import standings
from recommender.answer.strategy_fields import environment_out, strategy_rows, subject_row
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.http.evidence_lookup import EvidenceLookup
from recommender.http.problems import documented
from recommender.schemas import StrategiesResponse, SubjectsResponse
from recommender.schemas.resources import (
    AccuracyEvidenceOut,
    CoverageResponse,
    LatencyEvidence,
    SlosResponse,
    StandingsResponse,
    StrategyResource,
)

router = APIRouter(tags=["evidence"])

_NAMED = documented(401, 404, 413, 422, 500, 503)
_PLAIN = documented(401, 413, 500, 503)


def snapshots(request: Request) -> Snapshots:
    """Return the application's view of the database."""
    opened: Snapshots = request.app.state.snapshots
    return opened


def evidence(opened: Annotated[Snapshots, Depends(snapshots)]) -> Evidence:
    """Return the newest evidence; raise `EvidenceUnavailable` when there is none."""
    return opened.current()


def lookup(request: Request) -> EvidenceLookup:
    """Return the application's access to single measurements."""
    opened: EvidenceLookup = request.app.state.lookup
    return opened


EvidenceNow = Annotated[Evidence, Depends(evidence)]
Lookup = Annotated[EvidenceLookup, Depends(lookup)]
OneSubject = Annotated[str, Query(description="The subject", max_length=200, examples=["fashion-resnet"])]
Percentile = Annotated[float, Query(description="Of the latency", gt=0, lt=100, allow_inf_nan=False, examples=[90])]
EnvironmentQuery = Annotated[
    str | None,
    Query(description="Key of the environment; by default the newest with complete evidence", max_length=200),
]


@router.get("/subjects", responses=_PLAIN)
def subjects(evidence: EvidenceNow) -> SubjectsResponse:
    """List the subjects that a question can name, how far their evidence goes, and the declared SLOs."""
    rows = [subject_row(evidence, name) for name in evidence.subjects]
    return SubjectsResponse(subjects=rows, slos=sorted(evidence.slos))


@router.get("/strategies", responses=_NAMED)
def strategies(
    evidence: EvidenceNow,
    subject: Annotated[str | None, Query(description="Only this subject", max_length=200)] = None,
) -> StrategiesResponse:
    """List every declared strategy with its measurements, from each subject's default environment."""
    chosen = list(evidence.subjects) if subject is None else [subject]
    rows = [row for name in chosen for row in strategy_rows(evidence.select(name))]
    return StrategiesResponse(strategies=rows)


@router.get("/strategies/{strategy_id}", responses=_NAMED)
def strategy(
    evidence: EvidenceNow,
    stored: Lookup,
    strategy_id: Annotated[
        str, Path(description="subject:operator:placement", max_length=400, examples=["fashion-resnet:quantized:edge"])
    ],
    environment: EnvironmentQuery = None,
) -> StrategyResource:
    """Return one strategy with the ids of its evidence."""
    part, declared = standings.find(evidence, strategy_id, environment)
    listed = strategy_rows(part)
    ids = stored.ids(part.subject, declared.operator, declared.placement, part.environment.key)
    return StrategyResource(
        id=strategy_id,
        strategy=next(
            row for row in listed if (row.operator, row.placement) == (declared.operator, declared.placement)
        ),
        environment=environment_out(part),
        artifact_sha256=dict(declared.artifact_sha256),
        latency_evidence_id=ids.latency,
        accuracy_evidence_id=ids.accuracy,
    )


@router.get("/evidence/{evidence_id}", responses=_NAMED)
def one_measurement(
    stored: Lookup,
    evidence_id: Annotated[
        str, Path(description="A latency's or an accuracy's key, as answers and strategies name it", max_length=400)
    ],
) -> LatencyEvidence | AccuracyEvidenceOut:
    """Return what was recorded under a key: every round of a latency, or an accuracy."""
    return stored.find(evidence_id)


@router.get("/leaderboard", responses=_NAMED)
def leaderboard(
    evidence: EvidenceNow, subject: OneSubject, percentile: Percentile = 90.0, environment: EnvironmentQuery = None
) -> StandingsResponse:
    """List the measured strategies of a subject, fastest first."""
    return standings.standings(evidence.select(subject, environment), percentile)


@router.get("/pareto", responses=_NAMED)
def pareto(
    evidence: EvidenceNow, subject: OneSubject, percentile: Percentile = 90.0, environment: EnvironmentQuery = None
) -> StandingsResponse:
    """List only the strategies that no other beats in latency and accuracy at once, fastest first."""
    everything = standings.standings(evidence.select(subject, environment), percentile)
    return everything.model_copy(update={"strategies": [row for row in everything.strategies if row.pareto]})


@router.get("/coverage", responses=_PLAIN)
def coverage(evidence: EvidenceNow) -> CoverageResponse:
    """Return what is measured, what is missing, and the command that would measure it."""
    return CoverageResponse(coverage=list(standings.coverage(evidence)), left_out=list(evidence.left_out))


@router.get("/slos", responses=_PLAIN)
def slos(evidence: EvidenceNow) -> SlosResponse:
    """List the SLOs declared at the last fill."""
    return SlosResponse(slos=standings.slos(evidence))
