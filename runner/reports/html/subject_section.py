"""The section of one subject in one environment: figures first, numbers below them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalog.analysis import FamilyResult, PairResult, StrategyResult, SubjectResult
from catalog.artifact_details import percentage
from catalog.evidence.reading import Breakdown
from catalog.statistics.comparison import rank_range
from catalog.statistics.intervals import PercentileInterval
from catalog.units import counted, duration, duration_range, percent, points, pvalue, size
from runner.reports.html.figures import (
    Tradeoff,
    box_plots,
    breakdown_bars,
    fastest_first,
    quantile_plot,
    rank_diagram,
    segments,
    tradeoff_plot,
    tradeoffs,
)
from runner.reports.html.markup import Child, Figure, Html, Ids, details, joined, svg, table, tag
from runner.reports.html.report_data import EnvironmentReport
from runner.reports.html.sentences import METRIC_NAMES, listed
from runner.reports.leaderboard import COSTS


def ranking_table(result: SubjectResult) -> Html:
    """Return every strategy, fastest first, with the figures that decide."""
    percentile = result.settings.percentile
    # All strategies of a result have intervals of the same percentiles.
    shown = [interval.percentile for interval in result.strategies[0].intervals]
    level = f"{100 * result.settings.confidence_level:g} %"
    heads = ["strategy", "rank", *(f"p{strategy:g} [{level} interval]" for strategy in shown), "× best"]
    rows = (
        [
            strategy.name,
            rank_range(strategy.rank.rank, strategy.rank.worst_rank, strategies=len(result.strategies)),
            *(interval_cell(interval) for interval in strategy.intervals),
            f"{strategy.ratio_to_best:.2f}",
            _accuracy(strategy),
            # Identity has no drop: drops are counted from it.
            points(strategy.evidence.drop_pp) if strategy.evidence.passes else "–",
            _difference(strategy),
        ]
        for strategy in fastest_first(result)
    )
    caption = f"Ranked by p{percentile:g}; a range of ranks is what the comparisons leave open"
    shown_table = table(caption, [*heads, "accuracy", "drop, points", "outputs differ"], rows)
    return joined(shown_table, doubts(result))


def doubts(result: SubjectResult) -> Html | None:
    """List each operator whose outputs are far from identity's or unknown, and accuracies without meaning."""
    changed = [strategy.evidence for strategy in result.strategies if strategy.evidence.changes_outputs]
    warnings = {
        evidence.operator: distance.warning
        for evidence in changed
        if (distance := evidence.output_distance) is not None and distance.warning is not None
    }
    unknown = dict.fromkeys(
        evidence.operator for evidence in changed if evidence.accuracy is None and evidence.output_distance is None
    )
    items = [tag("li", tag("b", operator), f": {warning}.") for operator, warning in warnings.items()]
    items += [
        tag("li", tag("b", operator), ": neither an accuracy nor the distance of its outputs to identity's is known.")
        for operator in unknown
    ]
    remarks = {
        accuracy.remark: strategy.evidence.operator
        # Reversed, because the last entry stays: of several operators with one remark the first is named.
        for strategy in reversed(result.strategies)
        if (accuracy := strategy.evidence.accuracy) is not None and accuracy.remark is not None
    }
    items += [tag("li", tag("b", operator), f": {remark}.") for remark, operator in remarks.items()]
    return tag("ul", items) if items else None


def interval_cell(interval: PercentileInterval) -> Html:
    """Return `12.1 ms [11.9–12.4 ms]`, or the estimate alone if the evidence is too thin for an interval."""
    bounds = None if interval.refusal else interval.unknown
    if interval.low_s is not None and interval.high_s is not None:
        bounds = duration_range(interval.low_s, interval.high_s)
    if bounds is None:
        return joined(duration(interval.estimate_s))
    # Below its estimate where the page is narrow, or the last column would be cut.
    return joined(duration(interval.estimate_s), " ", tag("span", f"[{bounds}]", class_="interval"))


def _difference(strategy: StrategyResult) -> str:
    """Return the relative error of the outputs against identity's."""
    distance = strategy.evidence.output_distance
    if distance is None or not strategy.evidence.passes:
        return "–"
    return "not finite" if distance.relative_error is None else percentage(distance.relative_error)


def _accuracy(strategy: StrategyResult) -> str:
    accuracy = strategy.evidence.accuracy
    return f"{percent(accuracy.accuracy_pct)} {METRIC_NAMES.get(accuracy.metric, accuracy.metric)}" if accuracy else "–"


def spread_table(result: SubjectResult) -> Html:
    """Return description, normality, and the sources of the variance."""
    heads = (
        "strategy",
        "n",
        "mean",
        "median",
        "IQR",
        "outliers",
        "Shapiro W",
        "p",
        "inputs",
        "rounds",
        "rest",
        "effective n",
    )
    caption = "All samples pooled; shares of the variance of log latency; how many independent samples they are worth"
    return table(caption, heads, map(_spread, result.strategies))


def _spread(strategy: StrategyResult) -> Iterator[str]:
    description, shares = strategy.description, strategy.shares
    yield strategy.name
    yield str(description.count)
    yield from (duration(value) for value in (description.mean, description.median, description.interquartile_range))
    yield str(description.outlier_count)
    if description.normality.not_applicable:
        yield from ("–", description.normality.not_applicable)
    else:
        yield from (f"{description.normality.statistic:.3f}", pvalue(description.normality.pvalue))
    for share in (shares.inputs_share, shares.rounds_share, shares.rest_share):
        yield "–" if share is None else f"{share:.0%}"
    # Samples of one input or one round resemble each other, so many of them are worth fewer independent ones.
    yield "–" if shares.effective_samples is None else f"{shares.effective_samples:.0f}"


def breakdown_table(result: SubjectResult, breakdowns: Mapping[str, Breakdown]) -> Html:
    """Return mean durations by segment and tier, and bytes over each link."""
    rows = []
    for strategy in result.strategies:
        breakdown = breakdowns.get(strategy.evidence.latency_key)
        if breakdown is not None and breakdown.tiers:
            texts = [
                # The rest of the transmission that nothing explains has no tier or link to name.
                f"{segment} {tier} {duration(seconds)}".replace("  ", " ")
                for segment, tier, seconds in segments(breakdown)
            ]
            rows.append([strategy.name, duration(breakdown.latency_s), ", ".join(texts), _sent(strategy)])
    heads = ("strategy", "latency", "parts", "sent")
    return table("Mean latency by part, and mean bytes sent by link", heads, rows, texts=(0, 2))


def _sent(strategy: StrategyResult) -> str:
    links = strategy.evidence.sent_bytes_by_link
    return ", ".join(f"{link} {size(float(sent.mean()))}" for link, sent in links.items()) or "–"


def costs_table(costs: Sequence[Mapping[str, Any]]) -> Html:
    """Return what a strategy costs each tier."""
    heads = ["strategy", "tier", *(cost.heading for cost in COSTS.values())]
    rows = (
        [
            f"{row['operator']}@{row['placement']}",
            row["tier"],
            *(cost.shown(row[cost.field]) for cost in COSTS.values()),
        ]
        for row in costs
    )
    return table("Mean over rounds; peak memory is the highest", heads, rows, texts=(0, 1))


def disagreements(result: SubjectResult) -> Html:
    """Return where the study's tests and the deciding analysis differ, each with its sentence."""
    # Families overlap; a pair that two of them hold is one disagreement.
    pairs = {(p.paper.left, p.paper.right): p for family in result.families for p in family.pairs}
    differing = [pair for pair in pairs.values() if pair.disagreement]
    decided = sum(pair.decided.refusal is None for pair in pairs.values())
    if not decided:
        reasons = sorted({pair.decided.refusal.reason for pair in pairs.values() if pair.decided.refusal})
        return tag(
            "p", f"The deciding analysis decides none of the {counted(len(pairs), 'pair')} ({'; '.join(reasons)})."
        )
    text = (
        f"The study's tests and the analysis that decides disagree on {len(differing)} of {counted(decided, 'pair')}."
    )
    if not differing:
        return tag("p", text)
    items = (
        tag("li", tag("b", f"{pair.paper.left} and {pair.paper.right}"), f": {pair.disagreement}.")
        for pair in differing
    )
    return tag("div", tag("p", text), tag("ul", items))


def departures_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return which strategies a race measured no further: after how many rounds, at which look, why, by how much."""
    heads = ("strategy", "rounds", "look", "why", "at least by")
    cells = (
        [
            f"{row['operator']}@{row['placement']}",
            str(row["rounds"]),
            str(row["look"]),
            f"slower than {row['by_operator']}@{row['by_placement']}"
            if row["reason"] == "beaten"
            else f"beyond every SLO, the nearest {row['slo']}",
            percentage(float(row["margin"])),
        ]
        for row in sorted(rows, key=lambda row: (row["rounds"], row["operator"], row["placement"]))
    )
    return table("Left the race before the others, after so many rounds", heads, cells, texts=(0, 3))


def pair_tables(result: SubjectResult) -> Iterator[Html]:
    """Yield a folded table per family: the paper's test beside the deciding one."""
    compared = [family for family in result.families if len(family.paper.members) > 1]
    for family in compared:
        yield details(f"{family.paper.family.name}: {counted(len(family.pairs), 'pair')}", _pair_table(family, result))
    if names := [family.paper.family.name for family in result.families if family not in compared]:
        yield tag("p", f"Fewer than two strategies of {listed(names)} were measured in all rounds.")


def _pair_table(family: FamilyResult, result: SubjectResult) -> Html:
    test = family.paper.kruskal_wallis
    rejected = "finds a difference" if family.paper.rejected else "finds no difference, so no pair is compared"
    caption = joined(
        f"{family.paper.family.name}. Kruskal-Wallis H {test.statistic:.4g}, {test.degrees_of_freedom} degrees of "
        f"freedom, p {pvalue(test.pvalue)}: {rejected}",
        f"; not measured in all rounds: {', '.join(family.paper.left_out)}" if family.paper.left_out else "",
    )
    adjusted = f"Conover p ({result.settings.adjustment})"
    heads = ("pair", adjusted, "Cliff's delta", "ratio", "verdict", "")
    return table(caption, heads, map(_pair, family.pairs))


def _pair(pair: PairResult) -> Iterator[str]:
    paper, decided = pair.paper, pair.decided
    yield f"{paper.left} : {paper.right}"
    yield pvalue(paper.pvalue)
    yield f"{paper.delta:+.2f} {paper.magnitude}" if paper.significant else f"{paper.delta:+.2f} not significant"
    if decided.low is None or decided.high is None or decided.ratio is None:
        yield "–" if decided.ratio is None else f"{decided.ratio:.3f} [–]"
        yield decided.refusal.reason if decided.refusal else "not decided"
    else:
        ends = ("?" if end is None else f"{end:.3f}" for end in (decided.readable_low, decided.readable_high))
        yield f"{decided.ratio:.3f} [{', '.join(ends)}]"
        yield decided.verdict + (_needed(pair) if decided.needed else "")
    yield "†" if pair.disagreement else ""


def _needed(pair: PairResult) -> str:
    needed = pair.decided.needed
    if needed is None or (needed.rounds is None and needed.inputs is None):
        return ""
    ways = [counted(needed.rounds, "round")] if needed.rounds is not None else []
    ways += [counted(needed.inputs, "input")] if needed.inputs is not None else []
    return f", settled by {' or '.join(ways)}"


def subject_section(
    result: SubjectResult, report: EnvironmentReport, *, id_: str, ids: Ids, pictures: Html | None = None
) -> Html:
    """Return figures first and numbers below them; `pictures` are of the model."""
    costs = [row for row in report.costs if row["subject"] == result.subject]
    left = [row for row in report.departures if row["subject"] == result.subject]
    breakdowns = report.breakdowns
    return joined(
        tag("div", _figures(result, report, id_, ids), class_="figures"),
        ranking_table(result),
        departures_table(left) if left else None,
        tag("h4", "Where the two analyses disagree"),
        disagreements(result),
        tag("h4", "Every pair, as in the paper and decided"),
        pair_tables(result),
        tag("h4", "Spread, normality, variance"),
        spread_table(result),
        details("Q-Q plots of every strategy", _quantiles(result, id_, ids)),
        # Imported latencies may come without their parts.
        details("Mean latency by part and tier", breakdown_table(result, breakdowns)) if breakdowns else None,
        details("What each tier pays", costs_table(costs)) if costs else None,
        details("Where the model is shortened and cut", pictures) if pictures else None,
    )


def _figures(result: SubjectResult, report: EnvironmentReport, id_: str, ids: Ids) -> Iterator[Html]:
    whiskers = "whiskers to 1.5 interquartile ranges, outliers as dots, p50 at the right (as Figures 4 to 7)"
    yield _figure(box_plots(result), f"by placement: {whiskers}.", ids.new(id_, "boxes"))
    bars = "a bar beside the rows joins, dot by dot, strategies that are not shown to differ"
    yield _figure(
        rank_diagram(result), f"fastest first, with the range of ranks left open; {bars}.", ids.new(id_, "ranks")
    )
    slos = [answer.slo for answer in report.answers if answer.subject == result.subject and answer.slo is not None]
    drawn = list(tradeoffs(result, slos))
    for tradeoff in drawn:
        yield _figure(tradeoff_plot(tradeoff), _front_list(tradeoff), ids.new(id_, "tradeoff"))
    # Said rather than left out: a reader would look for the figure.
    if not drawn:
        yield tag("p", "Accuracies are not known, so latency is not set against accuracy.", class_="muted")
    bars_figure = breakdown_bars(result, report.breakdowns)
    if bars_figure is None:
        yield tag("p", "Parts of the latencies are not known.", class_="muted")
    else:
        caption = "shares of the mean latency, which is at the right; thick lines separate tiers and links."
        yield _figure(bars_figure, caption, ids.new(id_, "parts"))


def _figure(figure: Figure, text: Child, id_: str) -> Html:
    caption = tag("figcaption", tag("b", figure.title), ": ", text)
    return tag("figure", caption, svg(figure, id_=id_))


def _front_list(tradeoff: Tradeoff) -> Html:
    """List the front, since not every point can carry its name."""
    front = "; ".join(
        f"{point.strategy.name} {duration(point.latency_s)} {percent(point.accuracy_pct)}" for point in tradeoff.front
    )
    targets = ", ".join(region.name for region in tradeoff.regions)
    hatched = f" Dotted: what {targets} ask{'s' if len(tradeoff.regions) == 1 else ''} for." if targets else ""
    metric = METRIC_NAMES.get(tradeoff.metric, tradeoff.metric)
    return joined(f"{metric} over p{tradeoff.percentile:g} latency. Pareto front (filled): {front}.{hatched}")


def _quantiles(result: SubjectResult, id_: str, ids: Ids) -> Html:
    cells = (
        tag(
            "figure",
            svg(quantile_plot(strategy), id_=ids.new(id_, "qq", strategy.name)),
            tag("figcaption", strategy.name),
        )
        for strategy in result.strategies
    )
    note = "Order statistics over quantiles of the normal distribution; dashed: least squares."
    return joined(tag("p", note, class_="muted"), tag("div", cells, class_="quantiles"))
