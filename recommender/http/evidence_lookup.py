"""Single measurements by their content key, read from the database: too many to keep in memory, and rarely needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from catalog.errors import CatalogError
from catalog.evidence import open_database, shown_location, sound_database
from catalog.evidence.keyed_evidence import (
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
from catalog.evidence.tables import LinkProbe, Measurement, TierRun
from recommender.errors import EvidenceUnavailable, UnknownEvidence
from recommender.schemas.resources import AccuracyEvidenceOut, LatencyEvidence, RoundOut

_INTERNAL_COLUMNS = {"id", "measurement_id"}
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
        evidence = self._answer(lambda session: _evidence(session, identity))
        if evidence is None:
            raise UnknownEvidence(identity)
        return evidence

    def ids(self, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
        """Return the evidence ids of a strategy in an environment."""
        return self._answer(lambda session: _ids(session, subject, operator, placement, environment))

    def _answer(self, question: Callable[[Session], _AnswerT]) -> _AnswerT:
        """Query the database as it is; where a row's content makes that fail, query it without such rows."""
        try:
            with open_database(self.database, readonly=True) as opened:
                try:
                    with opened.session() as session:
                        return question(session)
                except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
                    with sound_database(opened).session() as session:
                        return question(session)
        except (CatalogError, SQLAlchemyError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> EvidenceUnavailable:
        """Return the reason without the driver's message, which may contain the password."""
        reason = str(error) if isinstance(error, CatalogError) else type(error).__name__
        return EvidenceUnavailable(f"the evidence database {shown_location(self.database)!r} cannot be read: {reason}")


def _evidence(session: Session, identity: str) -> LatencyEvidence | AccuracyEvidenceOut | None:
    """Return what was recorded under a key, checked to be valid JSON: a cell may hold what no answer can."""
    evidence = _latency(session, identity) or _accuracy(session, identity)
    if evidence is not None:
        evidence.model_dump_json()
    return evidence


def _ids(session: Session, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
    row = stored_strategy(session, subject, operator, placement, environment)
    if row is None:
        return EvidenceIds(None, None)
    return EvidenceIds(
        row.latency_key if has_measurement(session, row.latency_key) else None,
        row.accuracy_key if has_accuracy(session, row.accuracy_key) else None,
    )


def _latency(session: Session, identity: str) -> LatencyEvidence | None:
    measurements = measurements_under(session, identity)
    if not measurements:
        return None
    first = measurements[0]
    return LatencyEvidence(
        id=identity,
        subject=first.subject,
        operator=first.operator,
        placement=first.placement,
        environment=environment_key(session, first.environment_id),
        rounds=[_round(session, measurement) for measurement in measurements],
    )


def _round(session: Session, measurement: Measurement) -> RoundOut:
    extent = latency_extent(session, measurement.id)
    return RoundOut(
        measurement_id=measurement.id or 0,
        round=measurement.round,
        status=measurement.status,
        verdict=measurement.verdict,
        reason=measurement.reason,
        started_at=measurement.started_at,
        finished_at=measurement.finished_at,
        inputs_select=measurement.inputs_select,
        samples=extent.samples,
        min_s=extent.min_s,
        mean_s=extent.mean_s,
        max_s=extent.max_s,
        protocol=measurement.protocol,
        tiers=_details(tier_runs_of(session, measurement.id)),
        links=_details(link_probes_of(session, measurement.id)),
    )


def _details(rows: Sequence[TierRun] | Sequence[LinkProbe]) -> list[dict[str, object]]:
    return [row.model_dump(exclude=_INTERNAL_COLUMNS, exclude_none=True) for row in rows]


def _accuracy(session: Session, identity: str) -> AccuracyEvidenceOut | None:
    """Return the newest accuracy under the key: an earlier one may be a failed attempt."""
    row = newest_accuracy(session, identity)
    if row is None:
        return None
    return AccuracyEvidenceOut(
        id=identity,
        subject=row.subject,
        operator=row.operator,
        environment=environment_key(session, row.environment_id),
        provider=row.provider,
        metric=row.metric_primary,
        top1_pct=row.top1_pct,
        top5_pct=row.top5_pct,
        class_counts=row.class_counts,
        miou_pct=row.miou_pct,
        items=row.items,
        status=row.status,
        reason=row.reason,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
