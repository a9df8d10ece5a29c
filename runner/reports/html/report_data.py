"""From the evidence to what a report shows: one environment at a time, never mixed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence import (
    EnvironmentEvidence,
    SloEvidence,
    StrategyEvidence,
    slo_evidence,
    strategy_evidence,
    tier_costs,
)
from catalog.evidence.breakdown import Breakdown, mean_breakdowns
from catalog.evidence.environment_choice import environment_standing, preferred_environment
from catalog.validity import without_names_in
from runner.errors import RunnerError

_LINKS = """
SELECT link, direction, declared_bit_per_s, AVG(measured_bit_per_s) AS mean_bit_per_s, MIN(deviation_pct) AS least_pct,
       MAX(deviation_pct) AS most_pct, MIN(tolerance_pct) AS tolerance_pct, AVG(rtt_s) AS rtt_s, COUNT(*) AS probes
FROM link_check WHERE environment = :environment AND verdict <> 'INVALID'
GROUP BY link, direction, declared_bit_per_s ORDER BY link, direction DESC
"""
_VERDICTS = """
SELECT subject, operator, placement, round, status, verdict, reason, host_load FROM measurement
WHERE environment_id = :environment AND latency_key IN (SELECT latency_key FROM strategy WHERE declared)
ORDER BY subject, operator, placement, round, id
"""
_TIERS = """
SELECT DISTINCT t.tier, t.cpus, t.memory_bytes, t.threads, t.provider
FROM tier_run t JOIN measurement m ON m.id = t.measurement_id
WHERE m.environment_id = :environment AND m.status = 'complete' AND t.provider <> 'none' ORDER BY t.cpus, t.tier
"""


@dataclass(frozen=True, eq=False)
class EnvironmentReport:
    """All subjects measured in one environment, analysed, with what surrounds them."""

    environment: EnvironmentEvidence
    results: tuple[SubjectResult, ...]
    unmeasured: tuple[StrategyEvidence, ...]
    slos: tuple[SloEvidence, ...]
    breakdowns: Mapping[str, Breakdown]
    costs: tuple[Mapping[str, Any], ...]
    links: tuple[Mapping[str, Any], ...]
    verdicts: tuple[Mapping[str, Any], ...]
    tiers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Report:
    """What one page shows, and which environments have evidence that it does not show."""

    environments: tuple[EnvironmentReport, ...]
    left_out: tuple[EnvironmentEvidence, ...]


def gather_report(
    session: Session,
    *,
    environment: str | None = None,
    subject: str | None = None,
    settings: AnalysisSettings | None = None,
) -> Report:
    """Analyse what a page is to show.

    Parameters
    ----------
    session : Session
    environment : str, optional
        The beginning of a key, a launcher (`docker`, `process`, `imported`), or `all`; by default the
        one that an answer would rest on, too (`catalog.evidence.environment_choice`).
    subject : str, optional
        Only this subject.
    settings : AnalysisSettings, optional

    Raises
    ------
    RunnerError
        Without evidence, or for an environment that is not there.
    """
    evidence = strategy_evidence(session, subject=subject)
    groups: dict[str, list[StrategyEvidence]] = {}
    for each in evidence:
        groups.setdefault(each.environment.key, []).append(each)
    measured = [members for members in groups.values() if any(member.measured for member in members)]
    if not measured:
        what = f"of {subject} " if subject else ""
        raise RunnerError(
            f"no evidence {what}to report yet; `runner status` lists what there is, fill it with: runner fill-catalog"
        )
    chosen = _chosen(measured, environment)
    costs = tier_costs(session, subject=subject)
    slos = slo_evidence(session)
    return Report(
        tuple(_report(session, members, costs, slos, settings or AnalysisSettings()) for members in chosen),
        tuple(members[0].environment for members in measured if members not in chosen),
    )


def _chosen(measured: Sequence[list[StrategyEvidence]], wanted: str | None) -> list[list[StrategyEvidence]]:
    if wanted is None:
        preferred = preferred_environment([environment_standing(members) for members in measured])
        return [members for members in measured if members[0].environment.key == preferred.key]
    found = [members for members in measured if wanted == "all" or _matches(members[0].environment, wanted)]
    if not found:
        known = ", ".join(
            f"{members[0].environment.key[:12]} ({members[0].environment.launcher})" for members in measured
        )
        raise RunnerError(f"no environment {wanted!r} with evidence; there are {known}, or all")
    return found


def _matches(environment: EnvironmentEvidence, wanted: str) -> bool:
    return environment.key.startswith(wanted) or environment.launcher == wanted


def _report(
    session: Session,
    members: Sequence[StrategyEvidence],
    costs: Sequence[Mapping[str, Any]],
    slos: Sequence[SloEvidence],
    settings: AnalysisSettings,
) -> EnvironmentReport:
    environment = members[0].environment
    subjects: dict[str, list[StrategyEvidence]] = {}
    for member in members:
        subjects.setdefault(member.subject, []).append(member)
    return EnvironmentReport(
        environment=environment,
        results=tuple(
            analyse_subject(own, settings) for own in subjects.values() if any(each.measured for each in own)
        ),
        unmeasured=tuple(member for member in members if not member.measured),
        slos=tuple(slos),
        breakdowns=mean_breakdowns(session, members),
        costs=tuple(row for row in costs if row["environment"] == environment.key),
        links=_rows(session, _LINKS, environment=environment.key),
        verdicts=tuple(
            _unnamed(row) for row in _rows(session, _VERDICTS, environment=environment.id) if row["subject"] in subjects
        ),
        tiers=_rows(session, _TIERS, environment=environment.id),
    )


def _rows(session: Session, query: str, **values: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(row) for row in session.execute(text(query), values).mappings())


def _unnamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A report is handed on: its reasons do not name what else ran on the machine."""
    load = row["host_load"]
    load = json.loads(load) if isinstance(load, str) else load  # SQLite keeps JSON as text
    return {**row, "reason": row["reason"] and without_names_in(row["reason"], load)}
