"""Stored measurements as the records they were stored from: what judging them again starts from."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import text
from sqlmodel import Session, select

from catalog.evidence.records import LinkProbeRecord, MeasurementRecord, SampleRecord, TierRunRecord, Verdict
from catalog.evidence.tables import MEASUREMENT_COUNTS, Environment, LinkProbe, Measurement, Strategy, TierRun

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class StoredMeasurement:
    """A measurement, its id, and where it was taken. Samples come without their parts and links."""

    id: int
    launcher: str
    scale: str
    record: MeasurementRecord

    @property
    def counts(self) -> bool:
        """Whether answers use it."""
        return self.record.status == "complete" and self.record.verdict != "INVALID"


def stored_measurements(session: Session, *, subject: str | None = None) -> tuple[StoredMeasurement, ...]:
    """Every measurement of a strategy declared now, under its present key, in the order they were taken."""
    query = (
        select(Measurement, Environment)
        .join(Environment, _sql(Environment.id) == Measurement.environment_id)
        .where(_sql(Measurement.latency_key).in_(select(Strategy.latency_key).where(_sql(Strategy.declared))))
        .order_by(_sql(Measurement.id))
    )
    if subject is not None:
        query = query.where(Measurement.subject == subject)
    rows = session.exec(query).all()
    wanted = {row.id for row, _ in rows}
    runs = _children(session, TierRun, TierRunRecord, wanted)
    probes = _children(session, LinkProbe, LinkProbeRecord, wanted)
    samples = _samples(session, wanted)
    return tuple(
        StoredMeasurement(
            _identity(row.id),
            environment.launcher,
            environment.scale,
            _record(row, runs[_identity(row.id)], probes[_identity(row.id)], samples[_identity(row.id)]),
        )
        for row, environment in rows
    )


def latencies(session: Session, latency_key: str) -> list[tuple[int, str, float]]:
    """Round, input id and seconds of every sample that counts for a key."""
    query = text(
        "SELECT m.round, s.input_id, s.latency_s FROM sample s "
        f"JOIN (SELECT id, round FROM measurement WHERE latency_key = :key AND {MEASUREMENT_COUNTS}) m "
        "ON m.id = s.measurement_id ORDER BY m.round, s.seq"
    )
    rows = session.execute(query, {"key": latency_key})
    return [(int(number), str(name), float(value)) for number, name, value in rows]


def judge_again(
    session: Session,
    measurement_id: int,
    *,
    verdict: Verdict,
    reason: str | None,
    findings: Sequence[Mapping[str, Any]],
) -> bool:
    """Store another verdict; False, and nothing is changed, where the round was measured again meanwhile."""
    row = session.get_one(Measurement, measurement_id)
    if row.verdict == "INVALID" and verdict != "INVALID":
        same = "latency_key = :key AND round = :round AND id <> :id"
        query = text(f"SELECT 1 FROM measurement WHERE {same} AND {MEASUREMENT_COUNTS}")
        values = {"key": row.latency_key, "round": row.round, "id": measurement_id}
        if session.execute(query, values).first() is not None:
            return False
    row.sqlmodel_update({"verdict": verdict, "reason": reason, "findings": [dict(each) for each in findings]})
    session.add(row)
    session.flush()
    return True


def _record(
    row: Measurement, runs: list[TierRunRecord], probes: list[LinkProbeRecord], samples: list[SampleRecord]
) -> MeasurementRecord:
    known = {item.name for item in fields(MeasurementRecord)}
    values = {name: value for name, value in row.model_dump().items() if name in known}
    values |= {
        "started_at": datetime.fromisoformat(row.started_at),
        "finished_at": datetime.fromisoformat(row.finished_at),
        "tier_runs": runs,
        "link_probes": probes,
        "samples": samples,
    }
    return MeasurementRecord(**values)


def _children(
    session: Session, table: Any, record: Callable[..., _Record], wanted: set[int | None]
) -> dict[int, list[_Record]]:
    found: dict[int, list[_Record]] = defaultdict(list)
    for row in session.exec(select(table).order_by(table.id)):
        if row.measurement_id in wanted:
            values = row.model_dump(exclude={"id", "measurement_id"})
            found[row.measurement_id].append(record(**values))
    return found


def _samples(session: Session, wanted: set[int | None]) -> dict[int, list[SampleRecord]]:
    found: dict[int, list[SampleRecord]] = defaultdict(list)
    query = "SELECT measurement_id, seq, input_id, repetition, latency_s, transmission_s FROM sample ORDER BY 1, 2"
    for measurement_id, *values in session.execute(text(query)):
        if measurement_id in wanted:
            found[measurement_id].append(SampleRecord(*values))
    return found


def _identity(value: int | None) -> int:
    assert value is not None
    return value


def _sql(attribute: Any) -> Any:
    """SQLModel types a table's attribute as its Python value; in SQL it is a column."""
    return attribute
