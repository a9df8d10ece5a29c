"""The verdicts of stored measurements: every rule over every declared strategy's measurements and between rounds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.evidence.loading import slo_evidence, subject_slo_evidence
from catalog.evidence.lookups import StoredMeasurement, stored_measurements
from catalog.evidence.queries import Reader
from catalog.evidence.records import Verdict
from catalog.validity import DEFAULTS, Finding, Thresholds, judge_strategy, reason, worst

if TYPE_CHECKING:
    from sqlmodel import Session as SqlSession


@dataclass(frozen=True)
class JudgedMeasurement:
    """A measurement with the findings of today's rules; `replaced` if a later one of its round took its place."""

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
    reader: Reader, *, subject: str | None = None, thresholds: Thresholds = DEFAULTS
) -> tuple[JudgedMeasurement, ...]:
    """Apply all rules to all measurements of the strategies declared now."""
    measurements = stored_measurements(reader, subject=subject)
    own = (slo for slos in subject_slo_evidence(reader).values() for slo in slos.values())
    percentiles = {percentile for slo in (*slo_evidence(reader), *own) for percentile in slo.latency_s}
    findings = _judged(measurements, percentiles, thresholds)
    present = {
        (measurement.record.latency_key, measurement.record.round): measurement.id for measurement in measurements
    }
    # Of several attempts at a round the last one that counts stands; without one, the last attempt.
    present |= {
        (measurement.record.latency_key, measurement.record.round): measurement.id
        for measurement in measurements
        if measurement.counts
    }
    return tuple(
        JudgedMeasurement(
            measurement,
            findings[measurement.id],
            replaced=present[measurement.record.latency_key, measurement.record.round] != measurement.id,
        )
        for measurement in measurements
    )


def _judged(
    measurements: Sequence[StoredMeasurement], percentiles: Iterable[float], thresholds: Thresholds
) -> dict[int, tuple[Finding, ...]]:
    """Return the findings by measurement: those of a strategy are judged together."""
    strategies: dict[str, list[StoredMeasurement]] = defaultdict(list)
    for measurement in measurements:
        strategies[measurement.record.latency_key].append(measurement)
    by_measurement: dict[int, tuple[Finding, ...]] = {}
    for members in strategies.values():
        records = [member.record for member in members]
        judged = judge_strategy(records, percentiles=percentiles, thresholds=thresholds)
        by_measurement |= {member.id: findings for member, findings in zip(members, judged, strict=True)}
    return by_measurement


def store_verdicts(session: "SqlSession", judged: Iterable[JudgedMeasurement]) -> int:
    """Store the verdicts that differ from the stored ones; return how many were changed."""
    from catalog.evidence.writing import judge_again

    changed = 0
    for measurement in judged:
        record, verdict, reason = measurement.stored.record, measurement.verdict, measurement.reason
        # A failed measurement has no samples to judge; its stored reason is the error.
        if measurement.failed or (verdict, reason) == (record.verdict, record.reason):
            continue
        broken = [finding.to_json() for finding in measurement.findings if finding.verdict != "VALID"]
        changed += judge_again(session, measurement.stored.id, verdict=verdict, reason=reason, findings=broken)
    return changed


@dataclass(frozen=True)
class RuleSummary:
    """One rule over all measurements; `worst` is the finding that is farthest off, `measurement` names its owner."""

    rule: str
    counts: Mapping[Verdict, int]
    worst: Finding
    measurement: str


def summarise(judged: Iterable[JudgedMeasurement]) -> tuple[RuleSummary, ...]:
    """Count the verdicts of each rule and pick its worst finding."""
    grouped: dict[str, list[tuple[Finding, JudgedMeasurement]]] = defaultdict(list)
    for measurement in judged:
        for finding in measurement.findings:
            grouped[finding.rule].append((finding, measurement))
    summaries = []
    for rule, pairs in grouped.items():
        # One verdict for a measurement and a rule, however many links or tiers the rule found something about.
        verdicts = [
            worst(finding for finding, owner in pairs if owner is measurement) for measurement in _owners(pairs)
        ]
        counts: dict[Verdict, int] = {name: verdicts.count(name) for name in ("VALID", "DOUBTFUL", "INVALID")}
        finding, owner = max(pairs, key=lambda pair: _badness(pair[0]))
        summaries.append(RuleSummary(rule, counts, finding, owner.name))
    return tuple(summaries)


def _owners(pairs: Sequence[tuple[Finding, JudgedMeasurement]]) -> list[JudgedMeasurement]:
    # By identity: the records hold lists, which cannot be hashed.
    return list({id(owner): owner for _, owner in pairs}.values())


def _badness(finding: Finding) -> tuple[int, float]:
    """Return a sort key: the verdict first, then the figure; `inputs` is the one rule where less is worse."""
    order = ("VALID", "DOUBTFUL", "INVALID").index(finding.verdict)
    return order, -finding.figure / finding.threshold if finding.rule == "inputs" else abs(finding.figure)
