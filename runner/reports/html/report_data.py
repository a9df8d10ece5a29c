"""From the evidence to the content of a report: one environment at a time, never mixed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.queries import Reader
from catalog.evidence.reading import (
    Breakdown,
    input_sizes,
    link_checks,
    mean_breakdowns,
    provider_nodes,
    race_departures,
    round_verdicts,
    tier_costs,
    tier_limits,
)
from catalog.evidence.strategy_evidence import (
    EnvironmentEvidence,
    SloEvidence,
    StrategyEvidence,
    environment_standing,
    preferred_environment,
)
from catalog.validity import without_names_in
from recommender.answer.respond import respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.schemas import RecommendRequest
from runner.errors import RunnerError
from runner.reports.html.first_page import SloAnswer
from runner.reports.html.reasons import MeasuredCauses
from runner.reports.html.setting_sweeps import SettingSweep, setting_sweeps


@dataclass(frozen=True, eq=False)
class EnvironmentReport:
    """All subjects measured in one environment: the answers, the analyses, links, tiers, verdicts and costs.

    `departures` are the strategies that left the last race of their subject and were not measured since.
    """

    environment: EnvironmentEvidence
    answers: tuple[SloAnswer, ...]
    results: tuple[SubjectResult, ...]
    unmeasured: tuple[StrategyEvidence, ...]
    slos: tuple[SloEvidence, ...]
    causes: MeasuredCauses
    costs: tuple[Mapping[str, Any], ...]
    links: tuple[Mapping[str, Any], ...]
    verdicts: tuple[Mapping[str, Any], ...]
    departures: tuple[Mapping[str, Any], ...] = ()

    @property
    def breakdowns(self) -> Mapping[str, Breakdown]:
        """Mean latencies by part, by latency key."""
        return self.causes.breakdowns

    @property
    def tiers(self) -> Sequence[Mapping[str, Any]]:
        """The limits of each computing tier, the smallest first."""
        return self.causes.tiers


@dataclass(frozen=True)
class Report:
    """The content of one page, and the environments with evidence that it does not show.

    `sweeps` are families over a setting, which may reach over all environments.
    """

    environments: tuple[EnvironmentReport, ...]
    left_out: tuple[EnvironmentEvidence, ...]
    sweeps: tuple[SettingSweep, ...] = ()


def gather_report(
    database: Database,
    *,
    environment: str | None = None,
    subject: str | None = None,
    settings: AnalysisSettings | None = None,
) -> Report:
    """Analyse the evidence that a page will show.

    Parameters
    ----------
    database : Database
    environment : str, optional
        The beginning of a key, a launcher (`docker`, `process`, `imported`), or `all`; by default the
        one that an answer would rest on, too (`catalog.evidence.strategy_evidence`).
    subject : str, optional
        Only this subject.
    settings : AnalysisSettings, optional

    Raises
    ------
    RunnerError
        Without evidence, or for an environment that is not there.
    """
    with database.reading() as reader:
        return _gathered(reader, load(database, subject=subject), environment, subject, settings or AnalysisSettings())


def _gathered(
    reader: Reader, answering: Evidence, environment: str | None, subject: str | None, settings: AnalysisSettings
) -> Report:
    evidence = strategy_evidence(reader, subject=subject)
    groups: dict[str, list[StrategyEvidence]] = {}
    for strategy in evidence:
        groups.setdefault(strategy.environment.key, []).append(strategy)
    measured = [members for members in groups.values() if any(member.measured for member in members)]
    if not measured:
        what = f"of {subject} " if subject else ""
        raise RunnerError(
            f"no evidence {what}to report yet; `runner status` lists what there is, fill it with: runner fill-catalog"
        )
    chosen = _chosen(measured, environment)
    costs = tier_costs(reader, subject=subject)
    return Report(
        tuple(_report(reader, answering, members, costs, settings) for members in chosen),
        # Named on the page, so that the shown environment is not taken for everything that was measured.
        tuple(members[0].environment for members in measured if members not in chosen),
        setting_sweeps(evidence, adjustment=settings.adjustment),
    )


def _chosen(measured: Sequence[list[StrategyEvidence]], environment: str | None) -> list[list[StrategyEvidence]]:
    if environment is None:
        # The rule of the answers, so that a report and a recommendation rest on the same environment.
        preferred = preferred_environment([environment_standing(members) for members in measured])
        return [members for members in measured if members[0].environment.key == preferred.key]
    chosen = [members for members in measured if environment == "all" or _matches(members[0].environment, environment)]
    if not chosen:
        names = ", ".join(
            f"{members[0].environment.key[:12]} ({members[0].environment.launcher})" for members in measured
        )
        raise RunnerError(f"no environment {environment!r} with evidence; there are {names}, or all")
    return chosen


def _matches(environment: EnvironmentEvidence, choice: str) -> bool:
    return environment.key.startswith(choice) or environment.launcher == choice


def _report(
    reader: Reader,
    answering: Evidence,
    members: Sequence[StrategyEvidence],
    costs: Sequence[Mapping[str, Any]],
    settings: AnalysisSettings,
) -> EnvironmentReport:
    environment = members[0].environment
    subjects: dict[str, list[StrategyEvidence]] = {}
    for member in members:
        subjects.setdefault(member.subject, []).append(member)
    # A subject without a measurement has nothing to analyse; its strategies are among the unmeasured.
    measured = {name: rows for name, rows in subjects.items() if any(strategy.measured for strategy in rows)}
    answers = tuple(_answers(answering, environment.key, list(measured)))
    slos: list[SloEvidence] = []
    for answer in answers:
        # Two catalogs may declare other limits under one name.
        slos += [] if answer.slo is None or answer.slo in slos else [answer.slo]
    return EnvironmentReport(
        environment=environment,
        answers=answers,
        results=tuple(analyse_subject(strategies, settings) for strategies in measured.values()),
        unmeasured=tuple(member for member in members if not member.measured),
        slos=tuple(slos),
        causes=MeasuredCauses(
            mean_breakdowns(reader, members),
            input_sizes(reader, environment.id),
            provider_nodes(reader, environment.id),
            tier_limits(reader, environment.id),
        ),
        costs=tuple(row for row in costs if row["environment"] == environment.key),
        links=link_checks(reader, environment.key),
        # The query gives the rounds of every subject, and a report may be of one.
        verdicts=tuple(_unnamed(row) for row in round_verdicts(reader, environment.id) if row["subject"] in subjects),
        departures=tuple(_departures(reader, members)),
    )


def _departures(reader: Reader, members: Sequence[StrategyEvidence]) -> Iterator[Mapping[str, Any]]:
    """Yield who left the race of these strategies, by subject and rounds; not who was measured after all."""
    departures = race_departures(reader)
    for member in members:
        row = departures.get((member.subject, member.environment.key, member.operator, member.placement))
        if row is not None and len(member.rounds) <= row["rounds"]:
            yield row


def _answers(evidence: Evidence, environment: str, subjects: Sequence[str]) -> Iterator[SloAnswer]:
    """Yield what `runner slo` answers, from this environment; of a subject without SLOs the fastest strategy."""
    for name in (*sorted(evidence.slos), None):
        for subject in subjects:
            slos = evidence.slos_of(subject)
            if name in slos or (name is None and not slos):
                request = RecommendRequest(subject=subject, environment=environment, slo=name)
                yield SloAnswer(None if name is None else slos[name], subject, respond(evidence, request))


def _unnamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove from the reason what else ran on the machine: a report is handed on."""
    load = row["host_load"]
    load = json.loads(load) if isinstance(load, str) else load  # SQLite keeps JSON as text
    return {**row, "reason": row["reason"] and without_names_in(row["reason"], load)}
