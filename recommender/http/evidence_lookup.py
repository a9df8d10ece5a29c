"""Single measurements by their content key, read from the database: too many to hold in memory, seldom asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from catalog.errors import CatalogError
from catalog.evidence import open_database, shown_location, sound_database
from catalog.evidence.tables import Accuracy, Environment, LinkProbe, Measurement, Sample, Strategy, TierRun
from recommender.errors import EvidenceUnavailable, UnknownEvidence
from recommender.schemas.resources import AccuracyEvidenceOut, LatencyEvidence, RoundOut

_NOT_TOLD = {"id", "measurement_id"}
_AnswerT = TypeVar("_AnswerT")


@dataclass(frozen=True)
class EvidenceIds:
    """The keys of what was measured of a strategy; None where nothing was."""

    latency: str | None
    accuracy: str | None


class EvidenceLookup:
    """Opens the database read-only for each question, so that a replaced file or a long fill is no concern."""

    def __init__(self, database: str) -> None:
        self.database = database

    def find(self, identity: str) -> LatencyEvidence | AccuracyEvidenceOut:
        """The measurement or accuracy of that key; raises `UnknownEvidence`."""
        found = self._answer(lambda session: _found(session, identity))
        if found is None:
            raise UnknownEvidence(identity)
        return found

    def ids(self, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
        """The evidence ids of a strategy in an environment."""
        return self._answer(lambda session: _ids(session, subject, operator, placement, environment))

    def _answer(self, question: Callable[[Session], _AnswerT]) -> _AnswerT:
        """Ask the database as it is, and where that fails for what a row holds, ask without such rows."""
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
        """Say why without what a driver says, which may hold the password."""
        reason = str(error) if isinstance(error, CatalogError) else type(error).__name__
        return EvidenceUnavailable(f"the evidence database {shown_location(self.database)!r} cannot be read: {reason}")


def _found(session: Session, identity: str) -> LatencyEvidence | AccuracyEvidenceOut | None:
    """What can be sent as JSON too: a cell may hold what no answer can."""
    found = _latency(session, identity) or _accuracy(session, identity)
    if found is not None:
        found.model_dump_json()
    return found


def _ids(session: Session, subject: str, operator: str, placement: str, environment: str) -> EvidenceIds:
    chosen = (
        select(Strategy)
        .join(Environment, col(Environment.id) == Strategy.environment_id)
        .where(Strategy.subject == subject, Strategy.operator == operator)
        .where(Strategy.placement == placement, Environment.key == environment)
    )
    row = session.exec(chosen).first()
    if row is None:
        return EvidenceIds(None, None)
    measured = session.exec(select(Measurement.id).where(Measurement.latency_key == row.latency_key)).first()
    judged = session.exec(select(Accuracy.id).where(Accuracy.key == row.accuracy_key)).first()
    return EvidenceIds(
        row.latency_key if measured is not None else None, row.accuracy_key if judged is not None else None
    )


def _latency(session: Session, identity: str) -> LatencyEvidence | None:
    found = session.exec(
        select(Measurement)
        .where(Measurement.latency_key == identity)
        .order_by(col(Measurement.round), col(Measurement.id))
    ).all()
    if not found:
        return None
    first = found[0]
    return LatencyEvidence(
        id=identity,
        subject=first.subject,
        operator=first.operator,
        placement=first.placement,
        environment=_environment(session, first.environment_id),
        rounds=[_round(session, each) for each in found],
    )


def _round(session: Session, each: Measurement) -> RoundOut:
    latency = col(Sample.latency_s)
    extremes = select(func.count(latency), func.min(latency), func.avg(latency), func.max(latency))
    samples, low, mean, high = session.exec(extremes.where(Sample.measurement_id == each.id)).one()
    return RoundOut(
        measurement_id=each.id or 0,
        round=each.round,
        status=each.status,
        verdict=each.verdict,
        reason=each.reason,
        started_at=each.started_at,
        finished_at=each.finished_at,
        inputs_select=each.inputs_select,
        samples=samples,
        min_s=low,
        mean_s=mean,
        max_s=high,
        protocol=each.protocol,
        tiers=_told(session.exec(select(TierRun).where(TierRun.measurement_id == each.id)).all()),
        links=_told(session.exec(select(LinkProbe).where(LinkProbe.measurement_id == each.id)).all()),
    )


def _told(rows: Sequence[TierRun] | Sequence[LinkProbe]) -> list[dict[str, object]]:
    return [row.model_dump(exclude=_NOT_TOLD, exclude_none=True) for row in rows]


def _accuracy(session: Session, identity: str) -> AccuracyEvidenceOut | None:
    """The newest under the key: an earlier one may be a failed attempt."""
    newest = select(Accuracy).where(Accuracy.key == identity).order_by(col(Accuracy.id).desc())
    row = session.exec(newest).first()
    if row is None:
        return None
    return AccuracyEvidenceOut(
        id=identity,
        subject=row.subject,
        operator=row.operator,
        environment=_environment(session, row.environment_id),
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


def _environment(session: Session, number: int) -> str:
    return session.exec(select(Environment.key).where(Environment.id == number)).one()
