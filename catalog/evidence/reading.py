"""Reading evidence in bulk, as arrays: what the recommender ranks."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlmodel import Session, select

from catalog.evidence.tables import Accuracy, Artifact, Environment, Strategy


@dataclass(frozen=True, eq=False)
class Round:
    """One valid round of one strategy: latencies [n] in seconds, their inputs, bytes sent up each link per sample."""

    round: int
    verdict: str
    inputs_select: str
    finished_at: str
    latency_s: NDArray[np.float64]
    input_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StrategyEvidence:
    """A declared strategy with all its valid evidence."""

    strategy: Strategy
    environment: Environment
    artifact: Artifact | None
    accuracy: Accuracy | None
    identity_accuracy: Accuracy | None
    rounds: tuple[Round, ...]
    sent_bytes: float | None

    @property
    def drop_pp(self) -> float | None:
        """Accuracy lost against identity on the same provider; negative for a gain."""
        if self.accuracy is None or self.identity_accuracy is None:
            return None
        return self.identity_accuracy.accuracy_pct - self.accuracy.accuracy_pct


_SAMPLES = text(
    "SELECT m.latency_key, m.id, m.round, m.verdict, m.inputs_select, m.finished_at, s.latency_s, s.input_id "
    "FROM measurement m JOIN sample s ON s.measurement_id = m.id "
    "WHERE m.status = 'complete' AND m.verdict <> 'INVALID' ORDER BY m.round, s.seq"
)
_SENT = text(
    "SELECT m.latency_key, SUM(l.sent_bytes) * 1.0 / COUNT(DISTINCT s.id) FROM measurement m "
    "JOIN sample s ON s.measurement_id = m.id JOIN sample_link l ON l.sample_id = s.id "
    "WHERE m.status = 'complete' AND m.verdict <> 'INVALID' GROUP BY m.latency_key"
)


def strategy_evidence(session: Session) -> tuple[StrategyEvidence, ...]:
    """Every declared strategy of every environment, with its valid rounds and its accuracy."""
    rounds = _rounds(session)
    sent: Mapping[str, float] = {row[0]: row[1] for row in session.execute(_SENT)}
    environments = {row.id: row for row in session.exec(select(Environment))}
    artifacts = {row.key: row for row in session.exec(select(Artifact))}
    accuracies = {row.key: row for row in session.exec(select(Accuracy))}
    declared = list(session.exec(select(Strategy).where(Strategy.declared)))
    identity = {
        (row.subject, row.environment_id, found.provider): found
        for row in declared
        if not row.passes and (found := accuracies.get(row.accuracy_key)) is not None
    }
    result = []
    for row in declared:
        accuracy = accuracies.get(row.accuracy_key)
        base = identity.get((row.subject, row.environment_id, accuracy.provider)) if accuracy else None
        result.append(
            StrategyEvidence(
                strategy=row,
                environment=environments[row.environment_id],
                artifact=artifacts.get(row.artifact_key),
                accuracy=accuracy,
                identity_accuracy=base,
                rounds=rounds.get(row.latency_key, ()),
                sent_bytes=sent.get(row.latency_key, 0.0),
            )
        )
    return tuple(result)


def _rounds(session: Session) -> dict[str, tuple[Round, ...]]:
    gathered: dict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)
    heads: dict[tuple[str, int], tuple[int, str, str, str]] = {}
    for key, measurement, number, verdict, chosen, finished, latency_s, input_id in session.execute(_SAMPLES):
        gathered[key, measurement].append((latency_s, input_id))
        heads[key, measurement] = (number, verdict, chosen, finished)
    result: dict[str, list[Round]] = defaultdict(list)
    for place, values in gathered.items():
        latencies = np.array([value for value, _ in values], dtype=np.float64)
        result[place[0]].append(Round(*heads[place], latencies, tuple(name for _, name in values)))
    return {key: tuple(sorted(each, key=lambda r: r.round)) for key, each in result.items()}


def coverage(session: Session) -> list[dict[str, object]]:
    """Per subject and environment: strategies declared, strategies with evidence, rounds and samples."""
    counted: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for each in strategy_evidence(session):
        row = counted[each.strategy.subject, each.environment.launcher, each.environment.scale]
        row[0] += 1
        row[1] += bool(each.rounds)
        row[2] += len(each.rounds)
        row[3] += sum(part.latency_s.size for part in each.rounds)
    names = ("subject", "launcher", "scale", "strategies", "with_evidence", "rounds", "samples")
    return [dict(zip(names, (*place, *values), strict=True)) for place, values in counted.items()]


def troubles(session: Session) -> list[dict[str, object]]:
    """Failed and invalid measurements whose round has no valid one since."""
    rows = session.execute(
        text(
            "SELECT m.subject, m.operator, m.placement, m.round, m.status, m.verdict, m.reason, m.log_tail, m.finished_at "
            "FROM measurement m WHERE (m.status = 'failed' OR m.verdict = 'INVALID') AND NOT EXISTS ("
            "SELECT 1 FROM measurement v WHERE v.latency_key = m.latency_key AND v.round = m.round "
            "AND v.status = 'complete' AND v.verdict <> 'INVALID') ORDER BY m.id"
        )
    )
    return [dict(row) for row in rows.mappings()]
