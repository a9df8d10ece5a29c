"""Judging what is stored: every rule over every measurement of the declared strategies, rounds compared as well."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session as SqlSession

from catalog.evidence import slo_evidence
from catalog.evidence.reading import StoredMeasurement, judge_again, stored_measurements
from catalog.evidence.records import Verdict
from catalog.validity import DEFAULTS, Finding, Thresholds, judge_measurement, judge_rounds, reason, worst


@dataclass(frozen=True)
class JudgedMeasurement:
    """A measurement with what the rules say now; one that was replaced by a later one of its round is `replaced`."""

    stored: StoredMeasurement
    findings: tuple[Finding, ...]
    replaced: bool

    @property
    def name(self) -> str:
        record = self.stored.record
        return f"{record.subject}/{record.operator}@{record.placement} round {record.round}"

    @property
    def failed(self) -> bool:
        return self.stored.record.status != "complete"

    @property
    def verdict(self) -> Verdict:
        return "INVALID" if self.failed else worst(self.findings)

    @property
    def reason(self) -> str | None:
        return self.stored.record.reason if self.failed else reason(self.findings)

    def to_json(self) -> dict[str, Any]:
        record = self.stored.record
        return {
            "id": self.stored.id,
            "subject": record.subject,
            "operator": record.operator,
            "placement": record.placement,
            "launcher": self.stored.launcher,
            "scale": self.stored.scale,
            "round": record.round,
            "status": record.status,
            "verdict": self.verdict,
            "stored_verdict": record.verdict,
            "replaced": self.replaced,
            "reason": self.reason,
            "findings": [finding.to_json() for finding in self.findings],
        }


def judge_stored(
    session: SqlSession, *, subject: str | None = None, thresholds: Thresholds = DEFAULTS
) -> tuple[JudgedMeasurement, ...]:
    """Apply all rules to all measurements of the strategies declared now."""
    measurements = stored_measurements(session, subject=subject)
    percentiles = {percentile for slo in slo_evidence(session) for percentile in slo.latency_s}
    alone = {
        measurement.id: judge_measurement(measurement.record, percentiles=percentiles, thresholds=thresholds)
        for measurement in measurements
    }
    between = _between_rounds(measurements, alone, thresholds)
    present = {
        (measurement.record.latency_key, measurement.record.round): measurement.id for measurement in measurements
    }
    present |= {
        (measurement.record.latency_key, measurement.record.round): measurement.id
        for measurement in measurements
        if measurement.counts
    }
    return tuple(
        JudgedMeasurement(
            measurement,
            (*alone[measurement.id], *between.get(measurement.id, ())),
            replaced=present[measurement.record.latency_key, measurement.record.round] != measurement.id,
        )
        for measurement in measurements
    )


def _between_rounds(
    measurements: Sequence[StoredMeasurement], alone: Mapping[int, Sequence[Finding]], thresholds: Thresholds
) -> dict[int, tuple[Finding, ...]]:
    """Rounds are compared among those that count, so that one broken round does not accuse the others."""
    rounds: dict[str, list[StoredMeasurement]] = defaultdict(list)
    for measurement in measurements:
        if measurement.counts and worst(alone[measurement.id]) != "INVALID":
            rounds[measurement.record.latency_key].append(measurement)
    found: dict[int, tuple[Finding, ...]] = {}
    for members in rounds.values():
        judged = judge_rounds([member.record for member in members], thresholds=thresholds)
        found |= {each.id: findings for each, findings in zip(members, judged, strict=True)}
    return found


def store_verdicts(session: SqlSession, judged: Iterable[JudgedMeasurement]) -> int:
    """Store the verdicts that are not the stored ones; how many were changed."""
    changed = 0
    for each in judged:
        if each.failed or (each.verdict, each.reason) == (each.stored.record.verdict, each.stored.record.reason):
            continue
        broken = [finding.to_json() for finding in each.findings if finding.verdict != "VALID"]
        changed += judge_again(session, each.stored.id, verdict=each.verdict, reason=each.reason, findings=broken)
    return changed


@dataclass(frozen=True)
class RuleSummary:
    """One rule over all measurements; `worst` is the finding that is farthest off, and `measurement` whose it is."""

    rule: str
    counts: Mapping[Verdict, int]
    worst: Finding
    measurement: str


def summarise(judged: Iterable[JudgedMeasurement]) -> tuple[RuleSummary, ...]:
    """Per rule: how many measurements it calls what, and its worst figure."""
    grouped: dict[str, list[tuple[Finding, JudgedMeasurement]]] = defaultdict(list)
    for each in judged:
        for finding in each.findings:
            grouped[finding.rule].append((finding, each))
    summaries = []
    for rule, pairs in grouped.items():
        verdicts = [worst(finding for finding, owner in pairs if owner is each) for each in _owners(pairs)]
        counts: dict[Verdict, int] = {name: verdicts.count(name) for name in ("VALID", "DOUBTFUL", "INVALID")}
        finding, owner = max(pairs, key=lambda pair: _badness(pair[0]))
        summaries.append(RuleSummary(rule, counts, finding, owner.name))
    return tuple(summaries)


def _owners(pairs: Sequence[tuple[Finding, JudgedMeasurement]]) -> list[JudgedMeasurement]:
    return list({id(owner): owner for _, owner in pairs}.values())


def _badness(finding: Finding) -> tuple[int, float]:
    """Verdict first; `inputs` is the one rule where less is worse."""
    order = ("VALID", "DOUBTFUL", "INVALID").index(finding.verdict)
    return order, -finding.figure / finding.threshold if finding.rule == "inputs" else abs(finding.figure)
