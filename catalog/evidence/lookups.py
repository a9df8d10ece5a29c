"""What was recorded under one content key, or below one measurement: for bundles, plans and the answers about a key.

A plan asks by key what is there already, and `verify` reads every measurement again as the record that it was.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from catalog.artifact_details import REFUSED_BY_DETAIL, output_distance
from catalog.evidence.queries import (
    ACCURACY_COUNTS,
    MEASUREMENT_COUNTS,
    Reader,
    exact_mean,
    fetch,
    fetch_column,
    fetch_stored,
    fetch_value,
    stream,
)
from catalog.evidence.records import (
    LastMeasurement,
    LatencyExtent,
    LinkProbeRecord,
    MeasurementRecord,
    RoundLook,
    SampleRecord,
    TierRunRecord,
)


def analysis_stored(reader: Reader, evidence_key: str) -> bool:
    """Tell whether there is an analysis that rests on exactly this evidence."""
    return fetch_value(reader, "SELECT 1 FROM analysis WHERE evidence_key = :key", key=evidence_key) is not None


_UNANALYSED = f"""
SELECT 1 FROM strategy s JOIN environment e ON e.id = s.environment_id
WHERE e.imported_file_id IS NOT NULL AND s.declared
  AND EXISTS (
    SELECT 1 FROM (SELECT latency_key FROM measurement WHERE {MEASUREMENT_COUNTS}) m
    WHERE m.latency_key = s.latency_key
  )
  AND NOT EXISTS (SELECT 1 FROM analysis a WHERE a.environment_id = s.environment_id AND a.subject = s.subject)
LIMIT 1
"""


def imported_unanalysed(reader: Reader) -> bool:
    """Tell whether imported latencies lack an analysis: those of a large import are analysed by the first reader."""
    return fetch_value(reader, _UNANALYSED) is not None


def measured_pool(reader: Reader, latency_key: str) -> dict[str, int]:
    """Return the size of each input of the pool that rounds under a key drew from; nothing where none is stored."""
    query = (
        "SELECT i.input_id, i.size FROM pool_input i JOIN input_pool p ON p.id = i.pool_id "
        "WHERE p.key IN (SELECT pool_key FROM measurement WHERE latency_key = :key)"
    )
    return dict(fetch(reader, query, key=latency_key))


def environment_key(reader: Reader, environment_id: int) -> str:
    """Return the key of an environment that is there."""
    return str(fetch_value(reader, "SELECT key FROM environment WHERE id = :id", id=environment_id))


def stored_strategy(reader: Reader, subject: str, operator: str, placement: str, environment: str) -> Any:
    """Return a strategy's row in the environment of that key, declared now or not; None where there is none."""
    condition = (
        "WHERE subject = :subject AND operator = :operator AND placement = :placement "
        "AND environment_id = (SELECT id FROM environment WHERE key = :environment)"
    )
    names = {"subject": subject, "operator": operator, "placement": placement, "environment": environment}
    # One at most: the four names are unique together.
    return next(iter(fetch_stored(reader, "strategy", condition, **names)), None)


def has_measurement(reader: Reader, latency_key: str) -> bool:
    """Tell whether anything was measured under a key, whatever its outcome."""
    return fetch_value(reader, "SELECT 1 FROM measurement WHERE latency_key = :key", key=latency_key) is not None


def has_accuracy(reader: Reader, accuracy_key: str) -> bool:
    """Tell whether an accuracy was attempted under a key, whatever its outcome."""
    return fetch_value(reader, "SELECT 1 FROM accuracy WHERE key = :key", key=accuracy_key) is not None


def measurements_under(reader: Reader, latency_key: str) -> Sequence[Any]:
    """Return every attempt under a key, by round and in the order they were made."""
    return fetch_stored(reader, "measurement", "WHERE latency_key = :key ORDER BY round, id", key=latency_key)


def input_orders(reader: Reader, latency_key: str) -> tuple[tuple[str, ...], ...]:
    """Return each order of input ids that was sent under a key, once."""
    # Imported rows have a protocol without input ids.
    return tuple(dict.fromkeys(tuple(row.protocol.get("input_ids", ())) for row in _protocols(reader, latency_key)))


def input_rules(reader: Reader, latency_key: str) -> tuple[dict[str, object], ...]:
    """Return the rules by which rounds under a key drew their inputs; none where all rounds send the same."""
    rules = [
        {name: row.protocol.get(name) for name in ("select", "inputs", "tail")}
        for row in _protocols(reader, latency_key)
    ]
    return tuple(rule for index, rule in enumerate(rules) if rule["select"] and rule not in rules[:index])


def _protocols(reader: Reader, latency_key: str) -> Sequence[Any]:
    return fetch_stored(reader, "measurement", "WHERE latency_key = :key", columns=("protocol",), key=latency_key)


def latency_extent(reader: Reader, measurement_id: int) -> LatencyExtent:
    """Return how many samples a measurement has and between what they lie."""
    mean = exact_mean("latency_s")
    query = f"SELECT COUNT(*), MIN(latency_s), {mean}, MAX(latency_s) FROM sample WHERE measurement_id = :measurement"
    return LatencyExtent(*fetch(reader, query, measurement=measurement_id)[0])


def tier_runs_of(reader: Reader, measurement_id: int) -> Sequence[Any]:
    """Return the tiers of a measurement."""
    return fetch_stored(reader, "tier_run", "WHERE measurement_id = :measurement", measurement=measurement_id)


def link_probes_of(reader: Reader, measurement_id: int) -> Sequence[Any]:
    """Return the link probes of a measurement."""
    return fetch_stored(reader, "link_probe", "WHERE measurement_id = :measurement", measurement=measurement_id)


def newest_accuracy(reader: Reader, accuracy_key: str) -> Any:
    """Return the latest attempt under a key; None without one."""
    # By the number, because the clock may have been set back; an earlier attempt may have failed.
    rows = fetch_stored(reader, "accuracy", "WHERE key = :key ORDER BY id DESC LIMIT 1", key=accuracy_key)
    return next(iter(rows), None)


def rounds_done(reader: Reader, latency_key: str) -> set[int]:
    """Return the rounds with complete evidence that is not INVALID."""
    query = f"SELECT round FROM measurement WHERE latency_key = :key AND {MEASUREMENT_COUNTS}"
    return set(fetch_column(reader, query, key=latency_key))


def rounds_with_looks(reader: Reader, latency_key: str) -> dict[int, RoundLook]:
    """Return the rounds of a key that count, each with the look that it was measured for."""
    query = f"SELECT round, look, error_share FROM measurement WHERE {MEASUREMENT_COUNTS} AND latency_key = :key"
    rows = fetch(reader, query, key=latency_key)
    return {number: RoundLook(look=look, error_share=share) for number, look, share in rows}


def doubtful_rounds(reader: Reader, latency_key: str) -> dict[int, str]:
    """Return by round why its evidence is DOUBTFUL."""
    query = (
        "SELECT round, reason FROM measurement "
        f"WHERE latency_key = :key AND {MEASUREMENT_COUNTS} AND verdict = 'DOUBTFUL'"
    )
    return {number: reason or "no reason stored" for number, reason in fetch(reader, query, key=latency_key)}


def accuracy_done(reader: Reader, accuracy_key: str) -> bool:
    """Tell whether there is a complete accuracy with this key."""
    query = f"SELECT 1 FROM accuracy WHERE key = :key AND {ACCURACY_COUNTS}"
    return fetch_value(reader, query, key=accuracy_key) is not None


def inapplicable_artifacts(reader: Reader, *, refused_by: str | None = None) -> dict[str, str]:
    """Return the reason by artifact key, of the operators that the model does not allow.

    With `refused_by`, a refusal that names other code of the passes does not count: that code may do it now. One that
    names none counts, as those of earlier versions and of other tools.
    """
    rows = fetch_stored(reader, "artifact", "WHERE status = 'inapplicable'", columns=("key", "reason", "details"))
    return {
        row.key: row.reason or ""
        for row in rows
        if refused_by is None
        or not isinstance(row.details, dict)
        or row.details.get(REFUSED_BY_DETAIL, refused_by) == refused_by
    }


def distance_warnings(reader: Reader) -> dict[str, str]:
    """Return by artifact key how far its outputs are from identity's, of the artifacts where that is a warning."""
    rows = fetch_stored(reader, "artifact", "WHERE status = 'ready'", columns=("key", "details"))
    distances = {row.key: output_distance(row.details or {}) for row in rows}
    return {key: distance.warning for key, distance in distances.items() if distance is not None and distance.warning}


def unequal_compositions(reader: Reader) -> set[str]:
    """Return keys of artifacts whose parts are not shown to compute, bit for bit, what the uncut model computes."""
    rows = fetch_stored(reader, "artifact", "WHERE status = 'ready'", columns=("key", "details"))
    proofs = {row.key: row.details.get("proof", {}).get("composition") for row in rows}
    return {key for key, proof in proofs.items() if proof is not None and not proof.get("bit_identical")}


def last_measurement(
    reader: Reader, subject: str, operator: str, placement: str, environment_key: str
) -> LastMeasurement | None:
    """Return the most recent attempt at a strategy in an environment, whatever its keys and outcome."""
    condition = (
        "WHERE subject = :subject AND operator = :operator AND placement = :placement "
        "AND environment_id = (SELECT id FROM environment WHERE key = :environment) "
        "ORDER BY id DESC LIMIT 1"  # not by the clock, which may have been set back
    )
    values = {"subject": subject, "operator": operator, "placement": placement, "environment": environment_key}
    rows = fetch_stored(reader, "measurement", condition, **values)
    if not rows:
        return None
    row = rows[0]
    duration = datetime.fromisoformat(row.finished_at) - datetime.fromisoformat(row.started_at)
    return LastMeasurement(
        latency_key=row.latency_key,
        round=row.round,
        status=row.status,
        verdict=row.verdict,
        reason=row.reason,
        conditions=row.conditions,
        started_at=row.started_at,
        duration_s=duration.total_seconds(),
    )


def last_accuracy_failure(reader: Reader, accuracy_key: str) -> str | None:
    """Return why the most recent attempt at an accuracy failed; None when there was none."""
    query = "SELECT reason FROM accuracy WHERE key = :key AND status = 'failed' ORDER BY id DESC LIMIT 1"
    reason = fetch_value(reader, query, key=accuracy_key)
    return None if reason is None else str(reason)


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


def stored_measurements(reader: Reader, *, subject: str | None = None) -> tuple[StoredMeasurement, ...]:
    """Return every measurement of a strategy declared now, under its present key, in the order they were taken."""
    condition = "WHERE latency_key IN (SELECT latency_key FROM strategy WHERE declared)"
    if subject is not None:
        condition += " AND subject = :subject"
    rows = fetch_stored(reader, "measurement", f"{condition} ORDER BY id", subject=subject)
    environments = {row.id: row for row in fetch(reader, "SELECT id, launcher, scale FROM environment")}
    measurement_ids = {row.id for row in rows}
    runs = _children(reader, "tier_run", TierRunRecord, measurement_ids)
    probes = _children(reader, "link_probe", LinkProbeRecord, measurement_ids)
    samples = _samples(reader, measurement_ids)
    return tuple(
        StoredMeasurement(
            row.id,
            environments[row.environment_id].launcher,
            environments[row.environment_id].scale,
            _record(row, runs[row.id], probes[row.id], samples[row.id]),
        )
        for row in rows
        # A row whose environment is not there belongs to nothing.
        if row.environment_id in environments
    )


def _record(
    row: Any, runs: list[TierRunRecord], probes: list[LinkProbeRecord], samples: list[SampleRecord]
) -> MeasurementRecord:
    # The row has more columns than the record, such as its own number.
    recorded = {item.name for item in fields(MeasurementRecord)}
    values = {name: value for name, value in vars(row).items() if name in recorded}
    values |= {
        "started_at": datetime.fromisoformat(row.started_at),
        "finished_at": datetime.fromisoformat(row.finished_at),
        "tier_runs": runs,
        "link_probes": probes,
        "samples": samples,
    }
    return MeasurementRecord(**values)


def _children(
    reader: Reader, table: str, record: Callable[..., _Record], measurement_ids: set[int]
) -> dict[int, list[_Record]]:
    children: dict[int, list[_Record]] = defaultdict(list)
    for row in fetch_stored(reader, table, "ORDER BY id"):
        if row.measurement_id in measurement_ids:
            values = {name: value for name, value in vars(row).items() if name not in ("id", "measurement_id")}
            children[row.measurement_id].append(record(**values))
    return children


def _samples(reader: Reader, measurement_ids: set[int]) -> dict[int, list[SampleRecord]]:
    samples: dict[int, list[SampleRecord]] = defaultdict(list)
    names = "seq, input_id, repetition, latency_s, transmission_s, stratum"
    query = f"SELECT measurement_id, {names} FROM sample ORDER BY 1, 2"
    for measurement_id, *values in stream(reader, query):
        if measurement_id in measurement_ids:
            samples[measurement_id].append(SampleRecord(*values))
    return samples
