"""From the evidence to the content of a report, one environment at a time, never mixed, and its first page.

The first page has what to deploy for each SLO and subject, how sure that is, and what would make it sure. Its every
figure and word is the recommender's, so that the report, `runner slo` and the service say the same.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.analysis import AnalysisSettings, SubjectResult, analyse_subject
from catalog.evidence.database import Database
from catalog.evidence.loading import other_settings, strategy_evidence
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
from catalog.units import duration, limit_duration, points, size
from catalog.validity import without_names_in
from recommender.answer.respond import respond
from recommender.answer.wording import how_sure, percentile_name
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence
from recommender.schemas import NearMissOut, RecommendationOut, RecommendRequest, RecommendResponse, StrategyOut
from runner.errors import RunnerError
from runner.reports.answer import far_outputs, shortfall
from runner.reports.html.markup import Child, Html, joined, tag
from runner.reports.html.reasons import MeasuredCauses
from runner.reports.html.sentences import count
from runner.reports.html.setting_sweeps import SettingSweep, setting_sweeps


@dataclass(frozen=True)
class SloAnswer:
    """The answer for one subject; `slo` is None where none is declared, and the fastest strategy is the answer."""

    slo: SloEvidence | None
    subject: str
    answer: RecommendResponse


ABSENT = "–"
_HEADS = ("subject", "deploy", "latency", "drop, pp", "size", "how sure", "to make it sure")
_WORDS = {"infeasible": "without a strategy", "unmeasured": "not measured"}


def answers_section(answers: Sequence[SloAnswer], subject_ids: Mapping[str, str]) -> Html:
    """Return a sentence that counts the answers, and a table for each SLO with a row for each subject.

    `subject_ids` are the ids of the subjects' sections, which the rows link to.
    """
    by_slo: dict[str, list[SloAnswer]] = {}
    for entry in answers:
        by_slo.setdefault(_caption(entry.slo), []).append(entry)
    tables = (_table(caption, rows, subject_ids) for caption, rows in by_slo.items())
    # Without an SLO nothing was asked that could be proven.
    counted = tag("p", _counted(answers), class_="answer") if any(entry.slo for entry in answers) else None
    return joined(counted, tables)


def limits_in_words(slo: SloEvidence) -> str:
    """Return `p90 at most 100 ms, drop at most 1 pp`: what an SLO demands."""
    limits = [f"p{percentile:g} at most {limit_duration(limit_s)}" for percentile, limit_s in slo.latency_s.items()]
    limits += [f"drop at most {slo.max_drop_pp:g} pp"] if slo.max_drop_pp is not None else []
    limits += [f"accuracy at least {slo.min_pct:g} %"] if slo.min_pct is not None else []
    return ", ".join(limits) or "no limits"


def _caption(slo: SloEvidence | None) -> str:
    return "No SLO is declared: the fastest" if slo is None else f"{slo.name}: {limits_in_words(slo)}"


def _counted(answers: Sequence[SloAnswer]) -> str:
    """Say how many answers are how sure, the surest first."""
    statuses: Counter[str] = Counter(entry.answer.status for entry in answers)
    order = ("proven", "likely", "open", "estimated", "infeasible", "unmeasured")
    listed = ", ".join(
        f"{count(statuses[status])} {_WORDS.get(status, status)}" for status in order if statuses[status]
    )
    questions = f"{count(len(answers))} question{'' if len(answers) == 1 else 's'}"
    return f"Of {questions} (every SLO for every subject): {listed}."


def _table(caption: str, rows: Sequence[SloAnswer], subject_ids: Mapping[str, str]) -> Html:
    head = tag("tr", (tag("th", name, scope="col") for name in _HEADS))
    body = (_row(entry, subject_ids) for entry in rows)
    inner = tag("table", tag("caption", tag("b", caption)), tag("thead", head), tag("tbody", body), class_="answers")
    return tag("div", inner, class_="scroll", tabindex="0")


def _row(entry: SloAnswer, subject_ids: Mapping[str, str]) -> Html:
    cells = _cells(entry)
    link = tag("a", entry.subject, href=f"#{subject_ids[entry.subject]}")
    # On a phone a row becomes a card, whose lines take their names from here.
    labelled = (
        tag("td", tag("div", cell), data_label=name, class_="absent" if cell == ABSENT else None)
        for name, cell in zip(_HEADS[1:], cells, strict=True)
    )
    return tag("tr", tag("th", link, scope="row"), labelled)


def _cells(entry: SloAnswer) -> tuple[Child, ...]:
    """Return what follows the subject: strategy, latency, drop, size, how sure, and what would make it sure."""
    answer = entry.answer
    best = answer.recommendation
    if best is not None:
        name, *figures = _figures(best)
        sure = ABSENT if entry.slo is None else how_sure(best.status, best.probability)
        return (joined(name, _doubts(best)), *figures, sure, _surer(answer))
    nearest: StrategyOut | None = next(iter((*answer.undecided, *answer.near_misses)), None)
    if nearest is None:
        return ("nothing measured", ABSENT, ABSENT, ABSENT, ABSENT, _surer(answer))
    _, *figures = _figures(nearest)
    lacks = f" ({shortfall(nearest)})" if isinstance(nearest, NearMissOut) else ""
    name = joined(tag("b", "none"), f"; nearest {nearest.operator} on {nearest.placement}{lacks}")
    infeasible = answer.infeasible
    # Of what the row says: that no strategy holds.
    sure = ABSENT if infeasible is None else how_sure(infeasible.status, infeasible.probability)
    return (name, *figures, sure, _surer(answer))


def _figures(strategy: StrategyOut) -> Iterator[Child]:
    latency, accuracy = strategy.latency, strategy.accuracy
    yield tag("b", f"{strategy.operator} on {strategy.placement}")
    yield f"{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
    yield ABSENT if accuracy is None or accuracy.drop_pp is None else points(accuracy.drop_pp)
    yield ABSENT if strategy.size_bytes is None else size(strategy.size_bytes)


def _doubts(best: RecommendationOut) -> str | None:
    """Return what a reader must know of its answers before it is deployed."""
    far = far_outputs(best)
    return f" ({far})" if far else None


def _surer(answer: RecommendResponse) -> Child:
    """Say what would make it sure, or what to ask instead, and which strategy is proven already."""
    sentences = [] if answer.to_do is None else [answer.to_do.words]
    # Beside a strategy to deploy, other limits would be another question.
    if answer.recommendation is None and answer.relaxation is not None:
        sentences.append(f"Another limit: {answer.relaxation.words}")
    if answer.proven is not None:
        latency = answer.proven.latency
        figure = f"{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
        sentences.append(f"Proven already: {answer.proven.operator} on {answer.proven.placement}, {figure}")
    return [tag("div", _coded(f"{sentence}.")) for sentence in sentences] or ABSENT


def _coded(words: str) -> Iterator[Child]:
    """Yield words with what stands between backticks as code."""
    for position, piece in enumerate(words.split("`")):
        yield tag("code", piece) if position % 2 else piece


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
        setting_sweeps([*evidence, *other_settings(reader, evidence)], adjustment=settings.adjustment),
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
