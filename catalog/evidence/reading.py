"""Queries on the evidence for `plan`, `status` and the leaderboard."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import select, text
from sqlmodel import Session
from sqlmodel import select as select_rows

from catalog.evidence.exact_sums import exact_mean, exact_text
from catalog.evidence.records import (
    LastMeasurement,
    LinkProbeRecord,
    MeasurementRecord,
    RoundLook,
    SampleRecord,
    TierRunRecord,
    Verdict,
)
from catalog.evidence.tables import (
    ACCURACY_COUNTS,
    MEASUREMENT_COUNTS,
    Accuracy,
    AnalysisSlo,
    Artifact,
    Environment,
    LinkProbe,
    Measurement,
    Slo,
    Strategy,
    TierRun,
    column,
    table_of,
)
from catalog.output_distance import OutputDistance, output_distance
from catalog.setting import Setting, setting_of
from catalog.statistics.description import chance_remark


def rounds_done(session: Session, latency_key: str) -> set[int]:
    """Return the rounds with complete evidence that is not INVALID."""
    query = text(f"SELECT round FROM measurement WHERE latency_key = :key AND {MEASUREMENT_COUNTS}")
    return set(session.execute(query, {"key": latency_key}).scalars())


def rounds_with_looks(session: Session, latency_key: str) -> dict[int, RoundLook]:
    """Return the rounds of a key that count, each with the look that it was measured for."""
    query = text(f"SELECT round, look, error_share FROM measurement WHERE {MEASUREMENT_COUNTS} AND latency_key = :key")
    rows = session.execute(query, {"key": latency_key})
    return {number: RoundLook(look=look, error_share=share) for number, look, share in rows}


def declared_subjects(session: Session) -> set[str]:
    """Return the subjects that have declared strategies, in whichever environment."""
    return set(session.execute(text("SELECT DISTINCT subject FROM strategy WHERE declared")).scalars())


def doubtful_rounds(session: Session, latency_key: str) -> dict[int, str]:
    """Return by round why its evidence is DOUBTFUL."""
    query = text(
        "SELECT round, reason FROM measurement "
        f"WHERE latency_key = :key AND {MEASUREMENT_COUNTS} AND verdict = 'DOUBTFUL'"
    )
    return {number: reason or "no reason stored" for number, reason in session.execute(query, {"key": latency_key})}


def accuracy_done(session: Session, accuracy_key: str) -> bool:
    """Tell whether there is a complete accuracy with this key."""
    query = text(f"SELECT 1 FROM accuracy WHERE key = :key AND {ACCURACY_COUNTS}")
    return session.execute(query, {"key": accuracy_key}).first() is not None


def inapplicable_artifacts(session: Session) -> dict[str, str]:
    """Return the reason by artifact key, of the operators that the model does not allow."""
    query = text("SELECT key, reason FROM artifact WHERE status = 'inapplicable'")
    return {key: reason or "" for key, reason in session.execute(query)}


def distance_warnings(session: Session) -> dict[str, str]:
    """Return by artifact key how far its outputs are from identity's, of the artifacts where that is a warning."""
    rows = session.execute(
        select(column(Artifact, "key"), column(Artifact, "details")).where(column(Artifact, "status") == "ready")
    )
    distances = {key: output_distance(details or {}) for key, details in rows}
    return {key: distance.warning for key, distance in distances.items() if distance is not None and distance.warning}


def unequal_compositions(session: Session) -> set[str]:
    """Return keys of artifacts whose parts are not shown to compute, bit for bit, what the uncut model computes."""
    rows = session.execute(
        select(column(Artifact, "key"), column(Artifact, "details")).where(column(Artifact, "status") == "ready")
    )
    proofs = {key: details.get("proof", {}).get("composition") for key, details in rows}
    return {key for key, proof in proofs.items() if proof is not None and not proof.get("bit_identical")}


def race_departures(session: Session) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return the strategies that left the last race, by subject, environment, operator and placement."""
    query = "SELECT e.key AS environment, r.* FROM race_departure r JOIN environment e ON e.id = r.environment_id"
    rows = _rows(session, query)
    return {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in rows}


def inapplicable_strategies(session: Session, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return declared strategies whose operator the model does not allow: subject, operator, placement, reason."""
    where = "" if subject is None else "AND subject = :subject"
    query = (
        # A strategy may be declared in several environments, which are not told apart here.
        "SELECT DISTINCT subject, operator, placement, reason FROM strategy "
        f"WHERE declared AND status = 'inapplicable' {where} ORDER BY subject, operator, placement"
    )
    return _rows(session, query, **({} if subject is None else {"subject": subject}))


def last_measurement(
    session: Session, subject: str, operator: str, placement: str, environment_key: str
) -> LastMeasurement | None:
    """Return the most recent attempt at a strategy in an environment, whatever its keys and outcome."""
    query = text(
        "SELECT m.id FROM measurement m JOIN environment e ON e.id = m.environment_id "
        "WHERE m.subject = :subject AND m.operator = :operator AND m.placement = :placement AND e.key = :environment "
        "ORDER BY m.id DESC LIMIT 1"  # not by the clock, which may have been set back
    )
    values = {"subject": subject, "operator": operator, "placement": placement, "environment": environment_key}
    measurement_id = session.execute(query, values).scalar()
    if measurement_id is None:
        return None
    row = session.get_one(Measurement, measurement_id)
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


def drawing_protocols(session: Session) -> dict[str, Mapping[str, Any]]:
    """Return by subject how its rounds drew their inputs, as last measured; nothing of those that drew none."""
    newest: dict[str, int] = dict(session.execute(text(_DRAWING)).all())
    protocols = {subject: session.get_one(Measurement, identity).protocol for subject, identity in newest.items()}
    return {subject: protocol for subject, protocol in protocols.items() if protocol.get("strata")}


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


def probing_share(session: Session) -> float | None:
    """Return the share of the measurements' time that went into probing links; None where that was not recorded."""
    total_s = probing_s = 0.0
    for started_at, finished_at, spent_s in session.execute(text(_PROBING)):
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


def round_moments(session: Session) -> Sequence[Mapping[str, Any]]:
    """Return for each round that was measured here how its inputs' latencies spread, and how long it took."""
    return _rows(session, _ROUND_MOMENTS)


# DISTINCT, because several strategies may share one accuracy.
_FAILED_ACCURACIES = f"""
SELECT DISTINCT a.subject, a.operator, e.launcher, e.scale, a.provider, a.status, a.reason, a.started_at
FROM accuracy a JOIN environment e ON e.id = a.environment_id
JOIN strategy s ON s.accuracy_key = a.key AND s.environment_id = a.environment_id AND s.declared
WHERE a.status = 'failed'
  AND NOT EXISTS (SELECT 1 FROM (SELECT key FROM accuracy WHERE {ACCURACY_COUNTS}) known WHERE known.key = a.key)
ORDER BY a.started_at
"""


def failed_accuracies(session: Session) -> Sequence[Mapping[str, Any]]:
    """Return accuracies of declared strategies whose attempts failed without a later success."""
    return _rows(session, _FAILED_ACCURACIES)


def last_accuracy_failure(session: Session, accuracy_key: str) -> str | None:
    """Return why the most recent attempt at an accuracy failed; None when there was none."""
    query = text("SELECT reason FROM accuracy WHERE key = :key AND status = 'failed' ORDER BY id DESC LIMIT 1")
    reason = session.execute(query, {"key": accuracy_key}).scalar()
    return None if reason is None else str(reason)


def environment_settings(session: Session) -> Mapping[str, Setting]:
    """Return by key the settings of the environments that have one."""
    rows = session.execute(select(column(Environment, "key"), column(Environment, "details")))
    settings = {key: setting_of(details if isinstance(details, dict) else {}) for key, details in rows}
    return {key: setting for key, setting in settings.items() if setting is not None}


def coverage(session: Session) -> Sequence[Mapping[str, Any]]:
    """Return per subject and environment: their names, the launcher, the scale, and counts of what there is."""
    return _rows(session, _COVERAGE)


def troubles(session: Session) -> Sequence[Mapping[str, Any]]:
    """Return attempts at declared strategies that failed, are INVALID or DOUBTFUL and have no valid successor."""
    return _rows(session, _TROUBLES)


def leaderboard(session: Session, *, subject: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return the view `leaderboard` by subject, environment and rank; `source` names every imported file."""
    where = "" if subject is None else "WHERE subject = :subject"
    # Ordered again: what a view orders by is no promise to the statement that reads it.
    query = f"SELECT * FROM leaderboard {where} ORDER BY subject, environment, rank, operator, placement"
    return _rows(session, query, **({} if subject is None else {"subject": subject}))


def link_summary(session: Session) -> Sequence[Mapping[str, Any]]:
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
    return [{**row, "real": bool(row["real"])} for row in _rows(session, query)]


def rankings(session: Session) -> Mapping[tuple[str, str, str, str], Mapping[str, Any]]:
    """Return by subject, environment, operator and placement the row of the view `ranking`.

    Of the ranking by the median, as last stored; strategies measured since are not in it.
    """
    rows = _rows(session, "SELECT * FROM ranking WHERE percentile = 50")
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


def slo_standings(session: Session) -> Mapping[tuple[str, str], Mapping[str, SloStanding]]:
    """Return by subject and environment the standing to each declared target, by its name, as last answered.

    Answers that rest on older evidence are left out.
    """
    answered = _rows(session, "SELECT slo, subject, environment FROM slo_status WHERE standing = 'current'")
    current = {(row["slo"], row["subject"], row["environment"]) for row in answered}
    names = [column(AnalysisSlo, name) for name in ("slo", "subject", "operator", "placement", "statuses")]
    query = (
        select(*names, column(Environment, "key"), column(Slo, "latency"), column(Slo, "accuracy"))
        .select_from(table_of(AnalysisSlo))
        .join(table_of(Environment), column(Environment, "id") == column(AnalysisSlo, "environment_id"))
        .join(table_of(Slo), column(Slo, "name") == column(AnalysisSlo, "slo"))
        .order_by(column(AnalysisSlo, "slo"))
    )
    standings: dict[tuple[str, str], dict[str, SloStanding]] = {}
    for slo, subject, operator, placement, statuses, environment, latency, accuracy in session.execute(query):
        if (slo, subject, environment) not in current:
            continue
        best = None if operator is None else f"{operator}@{placement}"
        standings.setdefault((subject, environment), {})[slo] = SloStanding(latency, accuracy, statuses, best)
    return standings


def output_distances(session: Session) -> Mapping[tuple[str, str, str, str], OutputDistance]:
    """Return by subject, environment, operator and placement how far the outputs are from identity's, where known.

    Operators without passes are left out: they are identity, whatever a catalog calls them.
    """
    query = (
        select(
            column(Strategy, "subject"),
            column(Environment, "key"),
            column(Strategy, "operator"),
            column(Strategy, "placement"),
        )
        .add_columns(column(Strategy, "passes"), column(Artifact, "details"))
        .select_from(table_of(Strategy))
        .join(table_of(Environment), column(Environment, "id") == column(Strategy, "environment_id"))
        .join(table_of(Artifact), column(Artifact, "key") == column(Strategy, "artifact_key"))
        .where(column(Strategy, "declared"))
    )
    rows = session.execute(query)
    distances = {tuple(name): output_distance(details or {}) for *name, passes, details in rows if passes}
    return {name: distance for name, distance in distances.items() if distance is not None}


def accuracy_remarks(session: Session) -> Mapping[tuple[str, str, str, str], str]:
    """Return by subject, environment, operator and placement what keeps an accuracy from saying anything."""
    measures = ("metric_primary", "top1_pct", "miou_pct", "items", "class_counts")
    query = (
        select(
            column(Strategy, "subject"),
            column(Environment, "key"),
            column(Strategy, "operator"),
            column(Strategy, "placement"),
        )
        .add_columns(*(column(Accuracy, name) for name in measures))
        .select_from(table_of(Strategy))
        .join(table_of(Environment), column(Environment, "id") == column(Strategy, "environment_id"))
        .join(table_of(Accuracy), column(Accuracy, "key") == column(Strategy, "accuracy_key"))
        .where(
            column(Strategy, "declared"),
            column(Accuracy, "status") == "complete",
            column(Accuracy, "class_counts").is_not(None),
        )
    )
    remarks = {}
    for *name, metric, top1_pct, miou_pct, items, class_counts in session.execute(query):
        primary = miou_pct if metric == "miou" else top1_pct
        if primary is not None and (remark := chance_remark(metric, primary, items, class_counts)):
            remarks[tuple(name)] = remark
    return remarks


def family_members(session: Session) -> Mapping[str, frozenset[tuple[str, str, str]]]:
    """Return by family the subject, environment and `operator@placement` that it compares, as last stored."""
    families: dict[str, set[tuple[str, str, str]]] = {}
    for row in _rows(session, "SELECT subject, environment, family, left_strategy, right_strategy FROM pairwise"):
        members = families.setdefault(row["family"], set())
        members |= {(row["subject"], row["environment"], row[side]) for side in ("left_strategy", "right_strategy")}
    return {family: frozenset(members) for family, members in families.items()}


def _rows(session: Session, query: str, **values: object) -> list[Mapping[str, Any]]:
    return [dict(row) for row in session.execute(exact_text(session, query), values).mappings()]


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
    """Return every measurement of a strategy declared now, under its present key, in the order they were taken."""
    query = (
        select_rows(Measurement, Environment)
        .join(Environment, column(Environment, "id") == column(Measurement, "environment_id"))
        .where(
            column(Measurement, "latency_key").in_(
                select_rows(column(Strategy, "latency_key")).where(column(Strategy, "declared"))
            )
        )
        .order_by(column(Measurement, "id"))
    )
    if subject is not None:
        query = query.where(column(Measurement, "subject") == subject)
    rows = session.exec(query).all()
    measurement_ids = {row.id for row, _ in rows}
    runs = _children(session, TierRun, TierRunRecord, measurement_ids)
    probes = _children(session, LinkProbe, LinkProbeRecord, measurement_ids)
    samples = _samples(session, measurement_ids)
    return tuple(
        StoredMeasurement(
            _identity(row.id),
            environment.launcher,
            environment.scale,
            _record(row, runs[_identity(row.id)], probes[_identity(row.id)], samples[_identity(row.id)]),
        )
        for row, environment in rows
    )


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
    # One measurement per key and round may count (unique index); a newer one keeps that place.
    if row.verdict == "INVALID" and verdict != "INVALID":
        same = "latency_key = :key AND round = :round AND id <> :id"
        query = text(f"SELECT 1 FROM measurement WHERE {same} AND {MEASUREMENT_COUNTS}")
        values = {"key": row.latency_key, "round": row.round, "id": measurement_id}
        if session.execute(query, values).first() is not None:
            return False
    row.sqlmodel_update({"verdict": verdict, "reason": reason, "findings": [dict(finding) for finding in findings]})
    session.add(row)
    session.flush()
    return True


def _record(
    row: Measurement, runs: list[TierRunRecord], probes: list[LinkProbeRecord], samples: list[SampleRecord]
) -> MeasurementRecord:
    # The row has more columns than the record, such as its own number.
    recorded = {item.name for item in fields(MeasurementRecord)}
    values = {name: value for name, value in row.model_dump().items() if name in recorded}
    values |= {
        "started_at": datetime.fromisoformat(row.started_at),
        "finished_at": datetime.fromisoformat(row.finished_at),
        "tier_runs": runs,
        "link_probes": probes,
        "samples": samples,
    }
    return MeasurementRecord(**values)


def _children(
    session: Session, table: Any, record: Callable[..., _Record], measurement_ids: set[int | None]
) -> dict[int, list[_Record]]:
    children: dict[int, list[_Record]] = defaultdict(list)
    for row in session.exec(select_rows(table).order_by(table.id)):
        if row.measurement_id in measurement_ids:
            values = row.model_dump(exclude={"id", "measurement_id"})
            children[row.measurement_id].append(record(**values))
    return children


def _samples(session: Session, measurement_ids: set[int | None]) -> dict[int, list[SampleRecord]]:
    samples: dict[int, list[SampleRecord]] = defaultdict(list)
    names = "seq, input_id, repetition, latency_s, transmission_s, stratum"
    query = f"SELECT measurement_id, {names} FROM sample ORDER BY 1, 2"
    for measurement_id, *values in session.execute(text(query)):
        if measurement_id in measurement_ids:
            samples[measurement_id].append(SampleRecord(*values))
    return samples


def _identity(value: int | None) -> int:
    # None is the type of rows that are not stored yet.
    assert value is not None
    return value
