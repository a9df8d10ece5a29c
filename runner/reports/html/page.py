"""The whole report as one page that needs nothing else: no network, no script.

The conditions under which the numbers hold, the links and the verdicts are written here; subjects have a section each.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.analysis import SubjectResult
from catalog.evidence.strategy_evidence import EnvironmentEvidence, Origin
from catalog.units import counted, duration, rate, size
from runner.reports.html.markup import CSS, Child, Html, Ids, details, joined, patterns, table, tag
from runner.reports.html.operator_sentences import study_accuracies
from runner.reports.html.report_data import EnvironmentReport, Report, answers_section, limits_in_words
from runner.reports.html.sentences import codes_of
from runner.reports.html.setting_sweeps import sweep_section
from runner.reports.html.study_tables import (
    FOOTNOTE,
    accuracy_table,
    effect_tables,
    graph_table,
    median_table,
    ratio_table,
    wilcoxon_table,
)
from runner.reports.html.subject_section import subject_section
from runner.reports.html.summary import QuestionSummary, summarise


def title(environment: EnvironmentEvidence) -> str:
    """Return an environment's heading: `docker on h`, `phone, imported`."""
    setting = "" if environment.setting is None else f", {environment.setting}"
    if environment.origin is not None:
        return f"{environment.host}{setting}, imported from {environment.origin.name}"
    emulated = "" if environment.scale == "1" else f", emulated at {environment.scale}"
    return f"{environment.launcher} on {environment.host}{emulated}{setting}"


def conditions(report: EnvironmentReport) -> Html:
    """List every fact about what was measured, how, and where."""
    return tag("dl", (joined(tag("dt", name), tag("dd", value)) for name, value in _facts(report)))


def in_short(report: EnvironmentReport) -> str:
    """Summarise in a few sentences what was measured."""
    strategies = [strategy for result in report.results for strategy in result.strategies]
    inputs = _range([strategy.samples.fewest_inputs for strategy in strategies])
    rounds = [len(strategy.evidence.rounds) for strategy in strategies]
    repeated = _range([len(set(strategy.evidence.repetition.tolist())) for strategy in strategies])
    repetitions = "once" if repeated == "1" else f"{repeated} times"
    chosen = {strategy.evidence.inputs_select for strategy in strategies}
    how = {
        "systematic": "drawn for each round, spread by size",
        "random": "chosen at random",
        "largest": "the largest of the data set",
    }
    # Several, where strategies were imported from files that chose their inputs in different ways.
    select = " or ".join(sorted(how.get(name or "", "chosen in an unknown way") for name in chosen))
    text = (
        f"End-to-end latencies of a single stream of requests, one at a time, on unloaded tiers. {inputs} inputs "
        f"({select}) in {_range(rounds)} {'round' if max(rounds) == 1 else 'rounds'}, each input {repetitions} a round."
    )
    # How rounds differ is what an interval rests on; one round does not show it.
    if min(rounds) < 2:
        text += " One round alone supports description, not decisions."
    doubtful = sum(row["verdict"] == "DOUBTFUL" for row in report.verdicts)
    if doubtful:
        text += f" {doubtful} of the {len(report.verdicts)} measurements are DOUBTFUL; the reasons are at the end."
    if report.environment.origin is not None:
        return f"Imported, not measured here. {text}"
    if report.environment.scale != "1":
        text += f" Emulated at {report.environment.scale}: budgets are judged on the emulation only."
    if report.environment.launcher == "process":
        text += " Tiers are processes with links paced in user space, not containers."
    return f"Measured. {text}"


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _facts(report: EnvironmentReport) -> Iterator[tuple[str, str]]:
    where, settings = report.environment, report.results[0].settings
    # --environment takes the beginning of a key.
    yield "Environment", f"{where.key[:16]}, {where.provenance}"
    if where.setting is not None:
        yield "Setting", str(where.setting)
    if where.origin is None:
        yield "Launcher", f"{where.launcher}, {where.engine}, scale {where.scale}"
        yield (
            "Host",
            (
                f"{where.host}: {where.cpu_model}, {where.cpu_count} CPUs, {size(where.memory_bytes)}, "
                f"kernel {where.kernel}"
            ),
        )
        yield "Software", f"ONNX Runtime {where.onnxruntime}, Tierwise {where.tierwise}"
    else:
        for origin in _origins(report) or [where.origin]:
            yield "File", f"{origin.name}, SHA-256 {origin.sha256[:16]}…, imported {origin.imported_at}"
    for tier in report.tiers:
        threads = counted(tier["threads"], "thread")
        limits = f"{tier['cpus']:g} CPUs, {size(tier['memory_bytes'])}, {threads}, {tier['provider']}"
        yield f"Tier {tier['tier']}", limits
    rows = [row for result in report.results for strategy in result.strategies for row in strategy.evidence.rounds]
    yield "From, to", f"{min(row.started_at for row in rows)}, {max(row.finished_at for row in rows)}"
    yield (
        "Question",
        (
            f"p{settings.percentile:g} of latency, equivalent within {100 * settings.equivalent_within:g} %, "
            f"{100 * settings.confidence_level:g} % confidence for all comparisons of a question together, "
            f"{settings.n_resamples} draws of inputs"
        ),
    )
    for slo in report.slos:
        yield f"SLO {slo.name}", limits_in_words(slo)


def _origins(report: EnvironmentReport) -> list[Origin]:
    """Return every file that the page's evidence came from, in the order of import."""
    strategies = [strategy.evidence for result in report.results for strategy in result.strategies]
    origins = {origin.id: origin for row in (*strategies, *report.unmeasured) for origin in row.origins}
    return [origins[identity] for identity in sorted(origins)]


VERDICTS = ("VALID", "DOUBTFUL", "INVALID", "failed")


def links_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return declared beside measured payload rates, by link and direction."""
    heads = ("link", "direction", "declared", "measured, mean", "deviation", "tolerance", "RTT", "probes")
    cells = (
        [
            row["link"],
            row["direction"],
            "real link" if row["real"] else rate(row["declared_bit_per_s"]),
            rate(row["mean_bit_per_s"]),
            " to ".join(f"{deviation:+.1f}" for deviation in _deviations_pct(row)) + " %",
            "–" if row["tolerance_pct"] is None else f"{row['tolerance_pct']:g} %",
            duration(row["rtt_s"]),
            str(row["probes"]),
        ]
        for row in rows
    )
    return table(
        "Links of the evidence that counts, probed before and after each measurement", heads, cells, texts=(0, 1)
    )


def _deviations_pct(row: Mapping[str, Any]) -> list[float]:
    """Return how far the least and the most were from the declared rate; of a real link, from its mean."""
    usual = row["mean_bit_per_s"] / row["declared_bit_per_s"] if row["real"] else 1.0
    return [100 * ((1 + row[f"{name}_pct"] / 100) / usual - 1) for name in ("least", "most")]


def verdict_section(rows: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """Yield the count of measurements by verdict and subject, and every one that is not valid with its reason."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["subject"], Counter())[_verdict(row)] += 1
    cells = ([subject, *(str(by_verdict[name]) for name in VERDICTS)] for subject, by_verdict in counts.items())
    yield table("Measurements by verdict", ("subject", *VERDICTS), cells)
    # Folded, because a busy machine may have doubted hundreds.
    doubted = [row for row in rows if _verdict(row) != "VALID"]
    if doubted:
        listed = (
            [
                f"{row['subject']}/{row['operator']}@{row['placement']} round {row['round']}",
                _verdict(row),
                row["reason"] or "–",
            ]
            for row in doubted
        )
        yield details(
            f"{counted(len(doubted), 'measurement')} not valid, and why",
            table("Not valid", ("measurement", "verdict", "reason"), listed, texts=(0, 1, 2)),
        )


def _verdict(row: Mapping[str, Any]) -> str:
    return "failed" if row["status"] != "complete" else str(row["verdict"])


def unmeasured_list(rows: Sequence[tuple[str, str]]) -> Html | None:
    """List the declared strategies without evidence here, each with the reason."""
    if not rows:
        return None
    items = (tag("li", f"{name}: {reason}") for name, reason in rows)
    return details(f"{len(rows)} declared strategies without evidence here", tag("ul", items))


@dataclass(frozen=True)
class _Section:
    """A section behind the first page, folded on the screen."""

    id: str
    heading: str
    hint: str
    body: Html


def render_report(report: Report, *, made_at: datetime, pictures: Mapping[str, Html] | None = None) -> str:
    """Return a page of a report.

    Parameters
    ----------
    report : Report
    made_at : datetime
        Shown at the top.
    pictures : mapping of subject to Html, optional
        Of the models (`model_pictures`).

    Returns
    -------
    str
        An HTML document, UTF-8.
    """
    # One source for the whole page, because an id may occur once in a document.
    ids = Ids()
    identities = [ids.new("environment", str(number)) for number, _ in enumerate(report.environments, 1)]
    name = "Tierwise report"
    return "<!DOCTYPE html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            # Without it a phone lays the page out as for a desktop and shrinks it.
            tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            tag("title", name),
            # As markup: within <style> a browser decodes no entities.
            tag("style", Html(CSS)),
        ),
        tag(
            "body",
            # Once for the whole page: the figures of all subjects refer to these fills by id.
            patterns(),
            tag("h1", name),
            tag("p", f"Made {made_at:%Y-%m-%d %H:%M} UTC. {_left_out(report)}", class_="muted"),
            _contents(report.environments, identities),
            tag(
                "main",
                (
                    _environment(*pair, ids, pictures or {})
                    for pair in zip(report.environments, identities, strict=True)
                ),
                _sweeps(report, ids),
            ),
        ),
        lang="en",
    )


def _sweeps(report: Report, ids: Ids) -> Html | None:
    """Return the families over a setting, folded; None where nothing was measured at several values of one."""
    if not report.sweeps:
        return None
    subjects = counted(len({sweep.subject for sweep in report.sweeps}), "subject")
    settings = counted(len({sweep.setting for sweep in report.sweeps}), "setting")
    section = tag(
        "details",
        tag("summary", tag("h3", "Over settings"), " ", tag("span", f"{settings}, {subjects}", class_="hint")),
        sweep_section(report.sweeps, ids),
    )
    return tag("div", section, class_="behind")


def _left_out(report: Report) -> str:
    if not report.left_out:
        return ""
    names = ", ".join(f"{title(environment)} ({environment.key[:12]})" for environment in report.left_out)
    besides = ", but for the section over settings," if report.sweeps else " and"
    return (
        f"Evidence of other environments is not in this report{besides} never mixed with it: {names}; "
        "choose with --environment."
    )


def _environment(report: EnvironmentReport, id_: str, ids: Ids, pictures: Mapping[str, Html]) -> Html:
    subjects = {result.subject: ids.new("subject", result.subject) for result in report.results}
    behind = (
        tag(
            "details",
            tag("summary", tag("h3", section.heading), " ", tag("span", section.hint, class_="hint")),
            # Inside: a browser unfolds what is around the target of a link, and not the target itself.
            tag("div", section.body, id=section.id),
        )
        for section in _sections_behind(report, subjects, ids, pictures)
    )
    return tag(
        "section",
        tag("h2", title(report.environment), id=id_),
        tag("p", in_short(report)),
        tag("h3", "What to deploy"),
        answers_section(report.answers, subjects),
        tag("h3", "What it rests on"),
        tag("div", behind, class_="behind"),
    )


def _contents(environments: Sequence[EnvironmentReport], identities: Sequence[str]) -> Html | None:
    """Return links to the environments; None for one, whose first page begins at once."""
    if len(environments) < 2:
        return None
    links = (
        tag("li", tag("a", title(report.environment), href=f"#{id_}"))
        for report, id_ in zip(environments, identities, strict=True)
    )
    return tag("nav", tag("ul", links), aria_label="Contents")


def _sections_behind(
    report: EnvironmentReport, subjects: Mapping[str, str], ids: Ids, pictures: Mapping[str, Html]
) -> Iterator[_Section]:
    yield _Section(ids.new("summary"), "In words", "what each operator and each tier changes", _summary(report))
    for result in report.results:
        id_ = subjects[result.subject]
        body = subject_section(result, report, id_=id_, ids=ids, pictures=pictures.get(result.subject))
        yield _Section(
            id_, result.subject, f"{counted(len(result.strategies), 'strategy')}: figures, ranks, every pair", body
        )
    yield _Section(ids.new("effects"), "Effect sizes", "as in the study's tables", _effects(report))
    yield _Section(ids.new("accuracies"), "Accuracies", "with drops and their intervals", _accuracies(report))
    yield _Section(ids.new("conditions"), "Conditions", "machine, tiers, inputs, time", conditions(report))
    checks = f"{counted(len(report.verdicts), 'measurement')}, and why some are doubted"
    yield _Section(ids.new("checks"), "Links and verdicts", checks, _checks(report))


def _summary(report: EnvironmentReport) -> Html:
    return joined(
        _undecided(report),
        (_question(question, report.results) for question in summarise(report.results, report.causes)),
    )


def _undecided(report: EnvironmentReport) -> Html | None:
    """Say once, before all sentences, that nothing is decided; None if something is."""
    pairs = [pair for result in report.results for family in result.families for pair in family.pairs]
    refusals = {pair.decided.refusal.reason for pair in pairs if pair.decided.refusal}
    if not pairs or any(pair.decided.refusal is None for pair in pairs):
        return None
    text = (
        f"Nothing is decided: {'; '.join(sorted(refusals))}. The sentences describe medians, and say what the study's "
        "own tests of the pooled samples find."
    )
    return tag("p", text)


_UNANSWERED = "Nothing answers it: fewer than two of its strategies were measured in all rounds."


def _question(summary: QuestionSummary, results: Sequence[SubjectResult]) -> Html:
    heading = f"{summary.question}: {summary.title}" if summary.question else summary.title
    others = details(
        counted(len(summary.others), "more comparison"),
        tag("ul", (tag("li", other) for other in summary.others), class_="findings"),
    )
    return joined(
        tag("h4", heading),
        tag("div", (tag("p", answer) for answer in summary.answers), class_="answer") if summary.answers else None,
        None if summary.answers or summary.findings else tag("p", _UNANSWERED),
        tag("ul", (tag("li", finding) for finding in summary.findings), class_="findings")
        if summary.findings
        else None,
        others if summary.others else None,
        details(
            "Why: what was measured of it", tag("ul", (tag("li", text) for text in summary.reasons), class_="findings")
        )
        if summary.reasons
        else None,
        _by_subject(summary, results),
    )


def _by_subject(summary: QuestionSummary, results: Sequence[SubjectResult]) -> Html | None:
    """Return the medians and ratios of each subject, folded: the numbers that the sentences put together."""
    if not summary.pairs:
        return None
    tasks = {result.subject: result.strategies[0].evidence.task for result in results}
    return details(
        "Medians and ratios, subject by subject",
        joined(median_table(summary.operators, results), ratio_table(summary.pairs, tasks)),
    )


def _effects(report: EnvironmentReport) -> Html:
    evidence = [*(s.evidence for result in report.results for s in result.strategies), *report.unmeasured]
    codes = codes_of(evidence)
    matrices = list(effect_tables(report.results, codes))
    if not matrices:
        return tag("p", "There are no two strategies to compare.")
    legend = codes.legend(dict.fromkeys(f"{strategy.operator}@{strategy.placement}" for strategy in evidence))
    return joined(tag("p", FOOTNOTE), tag("p", legend, class_="muted"), tag("div", matrices, class_="matrices"))


def _accuracies(report: EnvironmentReport) -> Html:
    table, accuracies = accuracy_table(report.results), study_accuracies(report.results)
    sizes = graph_table(report.results)
    if table is None:
        return joined(sizes, tag("p", "No accuracies are known."))
    return joined(table, sizes, wilcoxon_table(accuracies) if accuracies else None)


def _checks(report: EnvironmentReport) -> Html:
    reasons = [
        (f"{strategy.subject}/{strategy.operator}@{strategy.placement}", strategy.reason or "not measured yet")
        for strategy in report.unmeasured
    ]
    no_links: Child = tag("p", "No link was probed.", class_="muted")
    return joined(
        links_table(report.links) if report.links else no_links,
        verdict_section(report.verdicts),
        unmeasured_list(reasons),
    )
