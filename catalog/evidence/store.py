"""Writing evidence: every function works inside the caller's transaction; one measurement is one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, select

from catalog.declaration import SloSpec
from catalog.evidence.tables import (
    Accuracy,
    AccuracyClassItem,
    AccuracyItem,
    Artifact,
    Environment,
    LinkProbe,
    Measurement,
    Sample,
    SampleLink,
    SamplePart,
    Slo,
    Strategy,
    TierRun,
)


@dataclass(frozen=True)
class SampleRecord:
    """One sample with its parts and links."""

    sample: Sample
    parts: Sequence[SamplePart]
    links: Sequence[SampleLink]


@dataclass(frozen=True)
class MeasurementRecord:
    """One strategy in one round with everything that belongs to it; ids are filled in when it is stored."""

    measurement: Measurement
    tiers: Sequence[TierRun] = ()
    probes: Sequence[LinkProbe] = ()
    samples: Sequence[SampleRecord] = ()

    @property
    def verdict(self) -> str:
        return self.measurement.verdict

    @property
    def reason(self) -> str | None:
        return self.measurement.reason


@dataclass(frozen=True)
class AccuracyRecord:
    """An accuracy with its items."""

    accuracy: Accuracy
    items: Sequence[AccuracyItem] = ()
    class_items: Sequence[AccuracyClassItem] = ()


@dataclass(frozen=True)
class LastMeasurement:
    """The newest attempt at a strategy, for saying why something is missing and how long it takes."""

    latency_key: str
    status: str
    verdict: str
    reason: str | None
    conditions: Mapping[str, Any]
    duration_s: float


def upsert_environment(session: Session, environment: Environment) -> int:
    """The id of the environment with this key, stored if it is new."""
    known = session.exec(select(Environment).where(Environment.key == environment.key)).first()
    if known is None:
        session.add(environment)
        session.flush()
        known = environment
    assert known.id is not None
    return known.id


def upsert_artifact(session: Session, artifact: Artifact) -> None:
    """Store an artifact, or bring the known one with this key up to date."""
    known = session.exec(select(Artifact).where(Artifact.key == artifact.key)).first()
    if known is None:
        session.add(artifact)
        return
    for name in ("subject", "operator", "passes", "status", "reason", "files", "size_bytes", "details"):
        setattr(known, name, getattr(artifact, name))
    session.add(known)


def sync_strategies(session: Session, environment_id: int, strategies: Sequence[Strategy]) -> None:
    """Make the declared strategies of an environment exactly these; others stay, marked as no longer declared."""
    known = {
        (row.subject, row.operator, row.placement): row
        for row in session.exec(select(Strategy).where(Strategy.environment_id == environment_id))
    }
    for strategy in strategies:
        row = known.pop((strategy.subject, strategy.operator, strategy.placement), None)
        if row is None:
            session.add(strategy)
            continue
        row.sqlmodel_update(strategy.model_dump(exclude={"id"}))
        session.add(row)
    for row in known.values():
        row.declared = False
        session.add(row)


def sync_slos(session: Session, slos: Mapping[str, SloSpec]) -> None:
    """Make the stored SLOs exactly the declared ones."""
    for row in session.exec(select(Slo)):
        session.delete(row)
    session.flush()
    for name, slo in slos.items():
        session.add(Slo(name=name, latency=dict(slo.latency), accuracy=slo.accuracy.model_dump(exclude_none=True)))


def record_measurement(session: Session, record: MeasurementRecord) -> None:
    """Store one measurement with its children."""
    session.add(record.measurement)
    session.flush()
    owner = record.measurement.id
    _insert(session, TierRun, record.tiers, measurement_id=owner)
    _insert(session, LinkProbe, record.probes, measurement_id=owner)
    for each in record.samples:
        each.sample.measurement_id = owner or 0
        session.add(each.sample)
    session.flush()
    for each in record.samples:
        _insert(session, SamplePart, each.parts, sample_id=each.sample.id)
        _insert(session, SampleLink, each.links, sample_id=each.sample.id)


def record_accuracy(session: Session, record: AccuracyRecord) -> None:
    """Store one accuracy with its items."""
    session.add(record.accuracy)
    session.flush()
    _insert(session, AccuracyItem, record.items, accuracy_id=record.accuracy.id)
    _insert(session, AccuracyClassItem, record.class_items, accuracy_id=record.accuracy.id)


def _insert(session: Session, table: Any, rows: Sequence[Any], **owner: int | None) -> None:
    if rows:
        values = [{**row.model_dump(exclude={"id"}), **owner} for row in rows]
        session.execute(insert(table), values)


def rounds_done(session: Session, latency_key: str) -> set[int]:
    """Rounds with complete, valid evidence."""
    rows = session.exec(
        select(Measurement.round).where(
            Measurement.latency_key == latency_key, Measurement.status == "complete", Measurement.verdict != "INVALID"
        )
    )
    return set(rows)


def accuracy_done(session: Session, key: str) -> bool:
    """Whether this accuracy is known."""
    return session.exec(select(Accuracy.id).where(Accuracy.key == key)).first() is not None


def inapplicable_artifacts(session: Session) -> dict[str, str]:
    """Keys of artifacts that cannot be, with the reason."""
    rows = session.exec(select(Artifact).where(Artifact.status == "inapplicable"))
    return {row.key: row.reason or "" for row in rows}


def last_measurement(session: Session, subject: str, operator: str, placement: str) -> LastMeasurement | None:
    """The newest attempt at a strategy, in whatever environment."""
    row = session.exec(
        select(Measurement)
        .where(
            Measurement.subject == subject, Measurement.operator == operator, Measurement.placement == placement
        )
        .order_by(col(Measurement.id).desc())
    ).first()
    if row is None:
        return None
    return LastMeasurement(row.latency_key, row.status, row.verdict, row.reason, row.conditions, row.duration_s)
