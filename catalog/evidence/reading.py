"""Queries on the evidence for `plan`, `status` and the leaderboard."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from catalog.artifact_details import OutputDistance, output_distance
from catalog.evidence.queries import (
    ACCURACY_COUNTS,
    MEASUREMENT_COUNTS,
    Reader,
    exact_mean,
    fetch,
    fetch_column,
    fetch_named,
    fetch_stored,
    fetch_value,
    stream,
)
from catalog.evidence.records import (
    LastMeasurement,
    LinkProbeRecord,
    MeasurementRecord,
    RoundLook,
    SampleRecord,
    TierRunRecord,
)
from catalog.statistics.description import chance_remark
from catalog.units import Setting, setting_of


def rounds_done(reader: Reader, latency_key: str) -> set[int]:
    """Return the rounds with complete evidence that is not INVALID."""
    query = f"SELECT round FROM measurement WHERE latency_key = :key AND {MEASUREMENT_COUNTS}"
    return set(fetch_column(reader, query, key=latency_key))


def rounds_with_looks(reader: Reader, latency_key: str) -> dict[int, RoundLook]:
    """Return the rounds of a key that count, each with the look that it was measured for."""
    query = f"SELECT round, look, error_share FROM measurement WHERE {MEASUREMENT_COUNTS} AND latency_key = :key"
    rows = fetch(reader, query, key=latency_key)
    return {number: RoundLook(look=look, error_share=share) for number, look, share in rows}


def declared_subjects(reader: Reader) -> set[str]:
    """Return the subjects that have declared strategies, in whichever environment."""
    return set(fetch_column(reader, "SELECT DISTINCT subject FROM strategy WHERE declared"))


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


def inapplicable_artifacts(reader: Reader) -> dict[str, str]:
    """Return the reason by artifact key, of the operators that the model does not allow."""
    query = "SELECT key, reason FROM artifact WHERE status = 'inapplicable'"
    return {key: reason or "" for key, reason in fetch(reader, query)}


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


def race_departures(reader: Reader) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return the strategies that left the last race, by subject, environment, operator and placement."""
    query = "SELECT e.key AS environment, r.* FROM race_departure r JOIN environment e ON e.id = r.environment_id"
    rows = fetch_named(reader, query)
    return {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in rows}


def inapplicable_strategies(reader: Reader, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return declared strategies whose operator the model does not allow: subject, operator, placement, reason."""
    where = "" if subject is None else "AND subject = :subject"
    query = (
        # A strategy may be declared in several environments, which are not told apart here.
        "SELECT DISTINCT subject, operator, placement, reason FROM strategy "
        f"WHERE declared AND status = 'inapplicable' {where} ORDER BY subject, operator, placement"
    )
    return fetch_named(reader, query, **({} if subject is None else {"subject": subject}))


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


_DRAWING = f"""
SELECT DISTINCT s.subject, m.id FROM measurement m
JOIN strategy s ON s.latency_key = m.latency_key AND s.declared
WHERE m.id IN (SELECT id FROM measurement WHERE {MEASUREMENT_COUNTS}) AND m.inputs_select = 'systematic'
ORDER BY m.id
"""


def drawing_protocols(reader: Reader) -> dict[str, Mapping[str, Any]]:
    """Return by subject how its rounds drew their inputs, as last measured; nothing of those that drew none."""
    newest: dict[str, int] = dict(fetch(reader, _DRAWING))
    protocols = {subject: _protocol(reader, identity) for subject, identity in newest.items()}
    return {subject: protocol for subject, protocol in protocols.items() if protocol.get("strata")}


def _protocol(reader: Reader, measurement_id: int) -> Mapping[str, Any]:
    condition = "WHERE id = :id"
    protocol: Mapping[str, Any] = fetch_stored(
        reader, "measurement", condition, columns=("protocol",), id=measurement_id
    )[0].protocol
    return protocol


# LEFT JOIN keeps subjects without evidence; the cast keeps the sum of PostgreSQL's bigints a whole number.
# DISTINCT, because the join repeats a strategy for each of its rounds.
_COVERAGE = f"""
SELECT s.subject, e.key AS environment, e.launcher, e.scale, COUNT(DISTINCT s.id) AS strategies,
       COUNT(DISTINCT CASE WHEN m.id IS NOT NULL THEN s.id END) AS with_evidence,
       COUNT(m.id) AS rounds, CAST(COALESCE(SUM(m.samples), 0) AS BIGINT) AS samples
FROM strategy s
JOIN environment e ON e.id = s.environment_id
LEFT JOIN (
    SELECT id, latency_key, (SELECT COUNT(*) FROM sample WHERE sample.measurement_id = measurement.id) AS samples
    FROM measurement WHERE {MEASUREMENT_COUNTS}
) m ON m.latency_key = s.latency_key
WHERE s.declared
GROUP BY s.subject, e.id, e.key, e.launcher, e.scale
ORDER BY s.subject, e.id
"""

# A failed or invalid attempt is no longer a trouble once the same round of the same key is known.
# `id <> m.id`, because a DOUBTFUL measurement counts and would hide itself.
_TROUBLES = f"""
SELECT m.subject, m.operator, m.placement, e.launcher, e.scale, m.round, m.status, m.verdict, m.reason, m.log_tail,
       m.started_at
FROM measurement m JOIN environment e ON e.id = m.environment_id
JOIN strategy s ON s.latency_key = m.latency_key AND s.environment_id = m.environment_id AND s.declared
     AND s.subject = m.subject AND s.operator = m.operator AND s.placement = m.placement
WHERE NOT (m.status = 'complete' AND m.verdict = 'VALID')
  AND NOT EXISTS (
    SELECT 1 FROM (SELECT latency_key, round, id FROM measurement WHERE {MEASUREMENT_COUNTS}) known
    WHERE known.latency_key = m.latency_key AND known.round = m.round AND known.id <> m.id
  )
ORDER BY m.id
"""


# Imported rounds are left out: their time was spent elsewhere.
_PROBING = """
SELECT m.started_at, m.finished_at, m.probing_s FROM measurement m
WHERE m.status = 'complete' AND m.probing_s IS NOT NULL AND m.imported_file_id IS NULL
"""


def probing_share(reader: Reader) -> float | None:
    """Return the share of the measurements' time that went into probing links; None where that was not recorded."""
    total_s = probing_s = 0.0
    for started_at, finished_at, spent_s in fetch(reader, _PROBING):
        total_s += (datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)).total_seconds()
        probing_s += spent_s
    return probing_s / total_s if total_s else None


# The mean of an input's repetitions is one value. Only sums, which both databases compute alike and quickly.
_ROUND_MOMENTS = f"""
SELECT m.subject, m.latency_key, m.round, m.started_at, m.finished_at, i.inputs, i.mean_s, i.square_s, i.total_s
FROM measurement m
JOIN (
    SELECT measurement_id, COUNT(*) AS inputs, AVG(mean_s) AS mean_s, AVG(mean_s * mean_s) AS square_s,
           SUM(total_s) AS total_s
    FROM (
        SELECT measurement_id, input_id, AVG(latency_s) AS mean_s, SUM(latency_s) AS total_s
        FROM sample GROUP BY measurement_id, input_id
    ) repetitions
    GROUP BY measurement_id
) i ON i.measurement_id = m.id
WHERE {MEASUREMENT_COUNTS} AND m.imported_file_id IS NULL
  AND EXISTS (SELECT 1 FROM strategy s WHERE s.latency_key = m.latency_key AND s.declared)
ORDER BY m.subject, m.latency_key, m.round
"""


def round_moments(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return for each round that was measured here how its inputs' latencies spread, and how long it took."""
    return fetch_named(reader, _ROUND_MOMENTS)


# DISTINCT, because several strategies may share one accuracy.
_FAILED_ACCURACIES = f"""
SELECT DISTINCT a.subject, a.operator, e.launcher, e.scale, a.provider, a.status, a.reason, a.started_at
FROM accuracy a JOIN environment e ON e.id = a.environment_id
JOIN strategy s ON s.accuracy_key = a.key AND s.environment_id = a.environment_id AND s.declared
WHERE a.status = 'failed'
  AND NOT EXISTS (SELECT 1 FROM (SELECT key FROM accuracy WHERE {ACCURACY_COUNTS}) known WHERE known.key = a.key)
ORDER BY a.started_at
"""


def failed_accuracies(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return accuracies of declared strategies whose attempts failed without a later success."""
    return fetch_named(reader, _FAILED_ACCURACIES)


def last_accuracy_failure(reader: Reader, accuracy_key: str) -> str | None:
    """Return why the most recent attempt at an accuracy failed; None when there was none."""
    query = "SELECT reason FROM accuracy WHERE key = :key AND status = 'failed' ORDER BY id DESC LIMIT 1"
    reason = fetch_value(reader, query, key=accuracy_key)
    return None if reason is None else str(reason)


def environment_settings(reader: Reader) -> Mapping[str, Setting]:
    """Return by key the settings of the environments that have one."""
    rows = fetch_stored(reader, "environment", columns=("key", "details"))
    settings = {row.key: setting_of(row.details if isinstance(row.details, dict) else {}) for row in rows}
    return {key: setting for key, setting in settings.items() if setting is not None}


def coverage(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return per subject and environment: their names, the launcher, the scale, and counts of what there is."""
    return fetch_named(reader, _COVERAGE)


def troubles(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return attempts at declared strategies that failed, are INVALID or DOUBTFUL and have no valid successor."""
    return fetch_named(reader, _TROUBLES)


def leaderboard(reader: Reader, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the view `leaderboard` by subject, environment and rank; `source` names every imported file."""
    where = "" if subject is None else "WHERE subject = :subject"
    # Ordered again: what a view orders by is no promise to the statement that reads it.
    query = f"SELECT * FROM leaderboard {where} ORDER BY subject, environment, rank, operator, placement"
    return fetch_named(reader, query, **({} if subject is None else {"subject": subject}))


def link_summary(reader: Reader) -> Sequence[Mapping[str, Any]]:
    """Return per link, direction and environment: declared rate, measured rates of what counts, RTT, whether real."""
    query = (
        "SELECT e.launcher, e.scale, l.link, l.direction, l.declared_bit_per_s, COUNT(*) AS probes, "
        "MIN(l.measured_bit_per_s) AS least_bit_per_s, "
        f"{exact_mean('l.measured_bit_per_s', scale='1')} AS mean_bit_per_s, "
        f"MAX(l.measured_bit_per_s) AS most_bit_per_s, {exact_mean('l.rtt_s')} AS mean_rtt_s, "
        # A real link is probed at both moments, as an emulated one, but has no tolerance.
        "MIN(CASE WHEN l.tolerance IS NULL AND l.moment IS NOT NULL THEN 1 ELSE 0 END) AS real FROM link_probe l "
        f"JOIN (SELECT id, environment_id FROM measurement WHERE {MEASUREMENT_COUNTS}) m ON m.id = l.measurement_id "
        "JOIN environment e ON e.id = m.environment_id "
        "GROUP BY e.id, e.launcher, e.scale, l.link, l.direction, l.declared_bit_per_s "
        "ORDER BY e.id, l.link, l.direction DESC, l.declared_bit_per_s"
    )
    return [{**row, "real": bool(row["real"])} for row in fetch_named(reader, query)]


def rankings(reader: Reader) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return by subject, environment, operator and placement the row of the view `ranking`.

    Of the ranking by the median, as last stored; strategies measured since are not in it.
    """
    rows = fetch_named(reader, "SELECT * FROM ranking WHERE percentile = 50")
    return {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in rows}


@dataclass(frozen=True)
class SloStanding:
    """How the strategies of a subject in an environment stand to a declared target.

    Attributes
    ----------
    latency, accuracy : mapping of str to float
        Its limits as declared: seconds by percentile, percent.
    statuses : mapping of str to str
        By `operator@placement`, of the strategies whose estimates keep it: proven, likely, open or estimated.
    recommended : str or None
        The strategy that the answer names.
    """

    latency: Mapping[str, float]
    accuracy: Mapping[str, float]
    statuses: Mapping[str, str]
    recommended: str | None


def slo_standings(reader: Reader) -> Mapping[tuple[str, str], Mapping[str, SloStanding]]:
    """Return by subject and environment the standing to each declared target, by its name, as last answered.

    Answers that rest on older evidence are left out.
    """
    answered = fetch_named(reader, "SELECT slo, subject, environment FROM slo_status WHERE standing = 'current'")
    current = {(row["slo"], row["subject"], row["environment"]) for row in answered}
    keys = _environment_keys(reader)
    targets = {row.name: row for row in fetch_stored(reader, "slo")}
    own = {(row.subject, row.name): row for row in fetch_stored(reader, "subject_slo")}
    standings: dict[tuple[str, str], dict[str, SloStanding]] = {}
    for row in fetch_stored(reader, "analysis_slo", "ORDER BY slo"):
        environment, target = keys.get(row.environment_id), own.get((row.subject, row.slo), targets.get(row.slo))
        if environment is None or target is None or (row.slo, row.subject, environment) not in current:
            continue
        place = row.subject, environment
        best = None if row.operator is None else f"{row.operator}@{row.placement}"
        standings.setdefault(place, {})[row.slo] = SloStanding(target.latency, target.accuracy, row.statuses, best)
    return standings


def output_distances(reader: Reader) -> Mapping[tuple[str, str, str, str], OutputDistance]:
    """Return by subject, environment, operator and placement how far the outputs are from identity's, where known.

    Operators without passes are left out: they are identity, whatever a catalog calls them.
    """
    keys = _environment_keys(reader)
    artifacts = {row.key: row.details for row in fetch_stored(reader, "artifact", columns=("key", "details"))}
    strategies = fetch_stored(reader, "strategy", "WHERE declared")
    distances = {
        (row.subject, keys[row.environment_id], row.operator, row.placement): output_distance(
            artifacts[row.artifact_key] or {}
        )
        for row in strategies
        if row.passes and row.artifact_key in artifacts
    }
    return {name: distance for name, distance in distances.items() if distance is not None}


def _environment_keys(reader: Reader) -> Mapping[int, str]:
    return {row.id: row.key for row in fetch(reader, "SELECT id, key FROM environment")}


def accuracy_remarks(reader: Reader) -> Mapping[tuple[str, str, str, str], str]:
    """Return by subject, environment, operator and placement what keeps an accuracy from saying anything."""
    keys = _environment_keys(reader)
    remarks = {}
    for row in fetch_stored(reader, "accuracy", f"WHERE {ACCURACY_COUNTS} AND class_counts IS NOT NULL ORDER BY id"):
        primary = row.miou_pct if row.metric_primary == "miou" else row.top1_pct
        if primary is not None and row.class_counts is not None:
            remarks[row.key] = chance_remark(row.metric_primary, primary, row.items, row.class_counts)
    strategies = fetch(
        reader, "SELECT subject, environment_id, operator, placement, accuracy_key FROM strategy WHERE declared"
    )
    return {
        (row.subject, keys[row.environment_id], row.operator, row.placement): remark
        for row in strategies
        if (remark := remarks.get(row.accuracy_key))
    }


def family_members(reader: Reader) -> Mapping[str, frozenset[tuple[str, str, str]]]:
    """Return by family the subject, environment and `operator@placement` that it compares, as last stored."""
    families: dict[str, set[tuple[str, str, str]]] = {}
    for row in fetch_named(reader, "SELECT subject, environment, family, left_strategy, right_strategy FROM pairwise"):
        members = families.setdefault(row["family"], set())
        members |= {(row["subject"], row["environment"], row[side]) for side in ("left_strategy", "right_strategy")}
    return {family: frozenset(members) for family, members in families.items()}


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
