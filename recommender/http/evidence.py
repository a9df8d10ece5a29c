"""Routes that show the evidence: subjects, strategies, standings, coverage and measurements, looked up by key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BeforeValidator

from catalog.errors import CatalogError
from catalog.evidence.database import open_database, reading_errors, shown_location
from catalog.evidence.lookups import (
    environment_key,
    has_accuracy,
    has_measurement,
    latency_extent,
    link_probes_of,
    measurements_under,
    newest_accuracy,
    stored_strategy,
    tier_runs_of,
)
from catalog.evidence.queries import Reader
from catalog.evidence.records import (
    AccuracySummary,
    LatencyExtent,
    LinkProbeRecord,
    MeasurementSummary,
    Period,
    StrategyIdentity,
    TierRunRecord,
    values_of,
)
from catalog.evidence.soundness import sound_database
from catalog.units import refuse_share
from recommender.answer import strategy_fields
from recommender.answer.strategy_fields import environment_out, strategy_rows, subject_row
from recommender.errors import EvidenceUnavailable, UnknownEvidence
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.http.problems import documented
from recommender.schemas import StrategiesResponse, SubjectsResponse
from recommender.schemas.resources import (
    AccuracyEvidenceOut,
    CoverageResponse,
    LatencyEvidence,
    LinkProbeOut,
    RoundOut,
    SlosResponse,
    StandingsResponse,
    StrategyResource,
    TierRunOut,
)

_AnswerT = TypeVar("_AnswerT")


@dataclass(frozen=True)
class EvidenceIds:
    """The keys of what was measured of a strategy; None where nothing was."""

    latency: str | None
    accuracy: str | None


class EvidenceLookup:
    """Opens the database read-only for each lookup, so that a replaced file or a long fill does no harm."""

    def __init__(self, database: str) -> None:
        self.database = database

    def find(self, identity: str) -> LatencyEvidence | AccuracyEvidenceOut:
        """Return the measurement or accuracy of that key; raise `UnknownEvidence`."""
        evidence = self._answer(lambda reader: _evidence(reader, identity))
        if evidence is None:
            raise UnknownEvidence(identity)
        return evidence

    def ids(self, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
        """Return the evidence ids of a strategy in an environment."""
        return self._answer(lambda reader: _ids(reader, subject, operator, placement, environment))

    def _answer(self, question: Callable[[Reader], _AnswerT]) -> _AnswerT:
        """Query the database as it is; where a row's content makes that fail, query it without such rows."""
        try:
            with open_database(self.database, readonly=True) as opened:
                try:
                    with opened.reading() as reader:
                        return question(reader)
                # To find the unusable rows all tables are read, so that is done only where one of them is in the way.
                except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
                    with sound_database(opened).reading() as reader:
                        return question(reader)
        except reading_errors() as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> EvidenceUnavailable:
        """Return the reason without the driver's message, which may contain the password."""
        reason = str(error) if isinstance(error, CatalogError) else type(error).__name__
        return EvidenceUnavailable(f"the evidence database {shown_location(self.database)!r} cannot be read: {reason}")


def _evidence(reader: Reader, identity: str) -> LatencyEvidence | AccuracyEvidenceOut | None:
    """Return what was recorded under a key, checked to be valid JSON: a cell may hold what no answer can."""
    evidence = _latency(reader, identity) or _accuracy(reader, identity)
    if evidence is not None:
        evidence.model_dump_json()
    return evidence


def _ids(reader: Reader, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
    row = stored_strategy(reader, subject, operator, placement, environment)
    if row is None:
        return EvidenceIds(None, None)
    return EvidenceIds(
        row.latency_key if has_measurement(reader, row.latency_key) else None,
        row.accuracy_key if has_accuracy(reader, row.accuracy_key) else None,
    )


def _latency(reader: Reader, identity: str) -> LatencyEvidence | None:
    measurements = measurements_under(reader, identity)
    if not measurements:
        return None
    first = measurements[0]
    return LatencyEvidence(
        **values_of(first, StrategyIdentity),
        id=identity,
        environment=environment_key(reader, first.environment_id),
        rounds=[_round(reader, measurement) for measurement in measurements],
    )


def _round(reader: Reader, measurement: Any) -> RoundOut:
    return RoundOut(
        **values_of(measurement, MeasurementSummary),
        **values_of(measurement, Period),
        **values_of(latency_extent(reader, measurement.id), LatencyExtent),
        measurement_id=measurement.id,
        tiers=[TierRunOut(**values_of(run, TierRunRecord)) for run in tier_runs_of(reader, measurement.id)],
        links=[LinkProbeOut(**values_of(probe, LinkProbeRecord)) for probe in link_probes_of(reader, measurement.id)],
    )


def _accuracy(reader: Reader, identity: str) -> AccuracyEvidenceOut | None:
    """Return the newest accuracy under the key: an earlier one may be a failed attempt."""
    row = newest_accuracy(reader, identity)
    if row is None:
        return None
    return AccuracyEvidenceOut(
        **values_of(row, AccuracySummary),
        **values_of(row, Period),
        id=identity,
        environment=environment_key(reader, row.environment_id),
        metric=row.metric_primary,
    )


router = APIRouter(tags=["evidence"])

# Any route may answer 413: the limit on bodies does not ask for the method.
_NAMED = documented(401, 404, 413, 422, 500, 503)
_PLAIN = documented(401, 413, 422, 500, 503)


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
Percentile = Annotated[
    float,
    BeforeValidator(refuse_share),
    Query(description="Of the latency, 90 for p90", ge=1, lt=100, allow_inf_nan=False, examples=[90]),
]
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
    subject_evidence, declared = strategy_fields.find(evidence, strategy_id, environment)
    listed = strategy_rows(subject_evidence)
    ids = stored.ids(subject_evidence.subject, declared.operator, declared.placement, subject_evidence.environment.key)
    return StrategyResource(
        id=strategy_id,
        strategy=next(
            row for row in listed if (row.operator, row.placement) == (declared.operator, declared.placement)
        ),
        environment=environment_out(subject_evidence),
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
    return strategy_fields.standings(evidence.select(subject, environment), percentile)


@router.get("/pareto", responses=_NAMED)
def pareto(
    evidence: EvidenceNow, subject: OneSubject, percentile: Percentile = 90.0, environment: EnvironmentQuery = None
) -> StandingsResponse:
    """List only the strategies that no other beats in latency and accuracy at once, fastest first."""
    # Ranks stay those among all measured strategies.
    everything = strategy_fields.standings(evidence.select(subject, environment), percentile)
    return everything.model_copy(update={"strategies": [row for row in everything.strategies if row.pareto]})


@router.get("/coverage", responses=_PLAIN)
def coverage(evidence: EvidenceNow) -> CoverageResponse:
    """Return what is measured, what is missing, and the command that would measure it."""
    return CoverageResponse(coverage=list(strategy_fields.coverage(evidence)), left_out=list(evidence.left_out))


@router.get("/slos", responses=_PLAIN)
def slos(evidence: EvidenceNow) -> SlosResponse:
    """List the SLOs declared at the last fill."""
    return SlosResponse(slos=strategy_fields.slos(evidence))
