"""The whole report as one page that needs nothing else: no network, no script."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from runner.reports.html.conditions import conditions, in_short, links_table, title, unmeasured_list, verdict_section
from runner.reports.html.markup import CSS, Child, Html, Ids, details, joined, patterns, tag
from runner.reports.html.report_data import EnvironmentReport, Report
from runner.reports.html.sentences import codes_of
from runner.reports.html.study_tables import FOOTNOTE, accuracy_table, effect_tables, study_accuracies, wilcoxon_table
from runner.reports.html.subject_section import subject_section
from runner.reports.html.summary import QuestionSummary, summarise


@dataclass(frozen=True)
class _Section:
    """A section with its place in the table of contents; `inner` are entries below it."""

    id: str
    heading: str
    body: Html
    inner: tuple[tuple[str, str], ...] = ()


def render_report(report: Report, *, made_at: datetime) -> str:
    """Return a page of a report.

    Parameters
    ----------
    report : Report
    made_at : datetime
        Shown at the top.

    Returns
    -------
    str
        An HTML document, UTF-8.
    """
    # One source for the whole page, because an id may occur once in a document.
    ids = Ids()
    sections = [
        (environment, ids.new("environment", str(number)), list(_page_sections(environment, ids)))
        for number, environment in enumerate(report.environments, 1)
    ]
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
            _contents(sections),
            tag("main", (_environment(*section) for section in sections)),
        ),
        lang="en",
    )


def _left_out(report: Report) -> str:
    if not report.left_out:
        return ""
    names = ", ".join(f"{title(environment)} ({environment.key[:12]})" for environment in report.left_out)
    return (
        f"Evidence of other environments is not in this report and never mixed with it: {names}; "
        "choose with --environment."
    )


def _environment(report: EnvironmentReport, id_: str, sections: list[_Section]) -> Html:
    inner = (
        joined(tag("h3", section.heading, id=section.id) if section.heading else None, section.body)
        for section in sections
    )
    return tag("section", tag("h2", title(report.environment), id=id_), inner)


def _contents(sections: list[tuple[EnvironmentReport, str, list[_Section]]]) -> Html:
    def link(id_: str, name: str) -> Html:
        return tag("a", name, href=f"#{id_}")

    def entries(inner: list[_Section]) -> Iterator[Html]:
        for section in inner:
            if section.heading:
                yield tag("li", link(section.id, section.heading))
            for id_, name in section.inner:
                yield tag("li", link(id_, name))

    listed = (
        joined(tag("p", link(id_, title(report.environment))), tag("ul", entries(inner)))
        for report, id_, inner in sections
    )
    return tag("nav", listed, aria_label="Contents")


def _page_sections(report: EnvironmentReport, ids: Ids) -> Iterator[_Section]:
    yield _Section(ids.new("summary"), "In words", _summary(report))
    yield _Section(ids.new("conditions"), "Conditions", conditions(report))
    subjects = [(ids.new("subject", result.subject), result) for result in report.results]
    body = joined(subject_section(result, report, id_=id_, ids=ids) for id_, result in subjects)
    # Without a heading of its own: every subject brings one.
    yield _Section("", "", body, tuple((id_, result.subject) for id_, result in subjects))
    yield _Section(ids.new("effects"), "Effect sizes", _effects(report))
    yield _Section(ids.new("accuracies"), "Accuracies", _accuracies(report))
    yield _Section(ids.new("checks"), "Links and verdicts", _checks(report))


def _summary(report: EnvironmentReport) -> Html:
    return joined(tag("p", in_short(report)), (_question(question) for question in summarise(report.results)))


def _question(summary: QuestionSummary) -> Html:
    heading = f"{summary.question}: {summary.title}" if summary.question else summary.title
    others = details(
        f"{len(summary.others)} more comparisons",
        tag("ul", (tag("li", other) for other in summary.others), class_="findings"),
    )
    return joined(
        tag("h4", heading),
        tag("p", " ".join(summary.answers), class_="answer") if summary.answers else None,
        tag("ul", (tag("li", finding) for finding in summary.findings), class_="findings")
        if summary.findings
        else None,
        others if summary.others else None,
        None if summary.answers or summary.findings else tag("p", "Nothing was measured that answers it."),
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
    if table is None:
        return tag("p", "No accuracies are known.")
    return joined(table, wilcoxon_table(accuracies) if accuracies else None)


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
