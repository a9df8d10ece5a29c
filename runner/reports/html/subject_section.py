"""Everything about one subject in one environment: figures first, numbers below them."""

from collections.abc import Iterator

from catalog.analysis import SubjectResult
from runner.reports.html.breakdown_bars import breakdown_bars
from runner.reports.html.drawing import Figure, svg
from runner.reports.html.figures import box_plots
from runner.reports.html.markup import Child, Html, Ids, details, joined, tag
from runner.reports.html.quantile_plots import quantile_plot
from runner.reports.html.rank_diagram import rank_diagram
from runner.reports.html.report_data import EnvironmentReport
from runner.reports.html.subject_tables import (
    breakdown_table,
    costs_table,
    disagreements,
    pair_tables,
    ranking_table,
    spread_table,
)
from runner.reports.html.tradeoff import Tradeoff, tradeoffs
from runner.reports.html.tradeoff_plot import tradeoff_plot
from runner.reports.html.words import METRIC_NAMES
from runner.reports.units import duration, percent


def subject_section(result: SubjectResult, report: EnvironmentReport, *, id_: str, ids: Ids) -> Html:
    """A section with its heading."""
    costs = [row for row in report.costs if row["subject"] == result.subject]
    breakdowns = report.breakdowns
    return tag(
        "section",
        tag("h3", result.subject, id=id_),
        tag("div", _figures(result, report, id_, ids), class_="figures"),
        ranking_table(result),
        tag("h4", "Where the two analyses disagree"),
        disagreements(result),
        tag("h4", "Every pair, as in the paper and decided"),
        pair_tables(result),
        tag("h4", "Spread, normality, variance"),
        spread_table(result),
        details("Q-Q plots of every strategy", _quantiles(result, id_, ids)),
        details("Mean latency by part and tier", breakdown_table(result, breakdowns)) if breakdowns else None,
        details("What each tier pays", costs_table(costs)) if costs else None,
    )


def _figures(result: SubjectResult, report: EnvironmentReport, id_: str, ids: Ids) -> Iterator[Html]:
    whiskers = "whiskers to 1.5 interquartile ranges, outliers as dots, medians at the right (as Figures 4 to 7)"
    yield _figure(box_plots(result), f"by placement: {whiskers}.", ids.new(id_, "boxes"))
    bars = "a bar beside the rows joins, dot by dot, strategies that are not told apart"
    yield _figure(
        rank_diagram(result), f"fastest first, with the range of ranks left open; {bars}.", ids.new(id_, "ranks")
    )
    drawn = list(tradeoffs(result, report.slos))
    for each in drawn:
        yield _figure(tradeoff_plot(each), _told(each), ids.new(id_, "tradeoff"))
    if not drawn:
        yield tag("p", "Accuracies are not known, so latency is not set against accuracy.", class_="muted")
    parts = breakdown_bars(result, report.breakdowns)
    if parts is None:
        yield tag("p", "Parts of the latencies are not known.", class_="muted")
    else:
        told = "shares of the mean latency, which is at the right; thick lines separate tiers and links."
        yield _figure(parts, told, ids.new(id_, "parts"))


def _figure(figure: Figure, told: Child, id_: str) -> Html:
    caption = tag("figcaption", tag("b", figure.title), ": ", told)
    return tag("figure", caption, svg(figure, id_=id_))


def _told(found: Tradeoff) -> Html:
    """The front as a list, since not every point can carry its name."""
    front = "; ".join(
        f"{each.strategy.name} {duration(each.latency_s)} {percent(each.accuracy_pct)}" for each in found.front
    )
    targets = ", ".join(each.name for each in found.regions)
    hatched = f" Dotted: what {targets} ask{'s' if len(found.regions) == 1 else ''} for." if targets else ""
    metric = METRIC_NAMES.get(found.metric, found.metric)
    return joined(f"{metric} over p{found.percentile:g} latency. Pareto front (filled): {front}.{hatched}")


def _quantiles(result: SubjectResult, id_: str, ids: Ids) -> Html:
    cells = (
        tag("figure", svg(quantile_plot(each), id_=ids.new(id_, "qq", each.name)), tag("figcaption", each.name))
        for each in result.strategies
    )
    note = "Order statistics over quantiles of the normal distribution; dashed: least squares."
    return joined(tag("p", note, class_="muted"), tag("div", cells, class_="quantiles"))
