"""From the evidence to what a report shows: one environment at a time, never mixed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from catalog.evidence.environment_rows import link_checks, round_verdicts, tier_limits
from catalog.validity import without_names_in
from runner.errors import RunnerError


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
        links=link_checks(session, environment.key),
        verdicts=tuple(_unnamed(row) for row in round_verdicts(session, environment.id) if row["subject"] in subjects),
        tiers=tier_limits(session, environment.id),
    )


def _unnamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A report is handed on: its reasons do not name what else ran on the machine."""
    load = row["host_load"]
    load = json.loads(load) if isinstance(load, str) else load  # SQLite keeps JSON as text
    return {**row, "reason": row["reason"] and without_names_in(row["reason"], load)}
