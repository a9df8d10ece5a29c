"""The tables of links, of SLOs, and of verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.units import duration, rate
from catalog.validity.findings import Finding, amount
from recommender.answer.wording import how_sure, percentile_name
from recommender.schemas import NearMissOut, RecommendationOut, RecommendResponse, StrategyOut
from runner.measuring.rejudge import JudgedMeasurement, RuleSummary
from runner.reports.answer import PREDICTED, far_outputs, shortfall, undecided_lacks
from runner.reports.ranking import FoldedName


def links_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per link, direction and environment."""
    table = open_table(title="links of the evidence that counts")
    table.padding = (0, 0, 0, 0)  # nine columns in 80 characters
    # A narrow terminal shows a figure over its unit: cut off, it would say nothing.
    for heading in ("link", "direction", "launcher"):
        table.add_column(heading, no_wrap=True)
    for heading in ("declared", "measured", "least", "most", "RTT", "probes"):
        table.add_column(heading, justify="right", overflow="fold", min_width=len(heading))
    for row in links:
        # Relative, because the tolerance of a link is: both columns can be read against it. A real link has none.
        usual = row["mean_bit_per_s"] if row["real"] else row["declared_bit_per_s"]
        deviations = (row[f"{name}_bit_per_s"] / usual - 1 for name in ("least", "most"))
        table.add_row(
            row["link"],
            row["direction"],
            row["launcher"] if row["scale"] == "1" else f"{row['launcher']} at {row['scale']}",
            "real" if row["real"] else rate(row["declared_bit_per_s"]),
            rate(row["mean_bit_per_s"]),
            *(f"{100 * deviation:+.1f} %" for deviation in deviations),
            duration(row["mean_rtt_s"]),
            str(row["probes"]),
        )
    return table


@dataclass(frozen=True)
class SloRow:
    """One SLO for one subject: the strategy that is sure enough, else the best that the answer has."""

    slo: str
    subject: str
    accepted: RecommendationOut | None
    answer: RecommendResponse | None
    why_not: str | None


def slo_table(rows: Sequence[SloRow]) -> Table:
    """Return a row for each SLO and subject: the strategy and how sure it is, or the nearest and what it lacks."""
    table = Table(pad_edge=False, box=None, header_style="bold")
    table.add_column("", width=1)
    table.add_column("SLO", overflow="fold")
    table.add_column("subject", overflow="fold")
    table.add_column("strategy, or nearest", overflow="fold", min_width=17)
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("how sure", justify="right", no_wrap=True)
    table.add_column("lacks", overflow="fold", ratio=1)
    for row in rows:
        mark = Text("✗", "red") if row.accepted is None else Text("✓", "green")
        table.add_row(mark, Text(row.slo), Text(row.subject), *_cells(row))
    return table


def _cells(row: SloRow) -> tuple[Text, ...]:
    """Return strategy, latency, how sure it is, and what it lacks."""
    answer = row.answer
    if answer is None:
        return Text("–"), Text("–"), Text("–"), Text(row.why_not or "")
    best = row.accepted or answer.recommendation
    if best is not None:
        style = "" if row.accepted is None else "green"
        remark = Text("; ".join(filter(None, (*best.lacks, _quality(best)))), "yellow")
        return _name(best, style), _latency(best), Text(how_sure(best.status, best.probability)), remark
    # Both lists come with the best or nearest first, and what only lacks evidence is nearer than what misses a budget.
    nearest: StrategyOut | None = next(iter((*answer.undecided, *answer.near_misses)), None)
    if nearest is None:
        return Text("–"), Text("–"), Text("–"), Text("not measured")
    lacks = shortfall(nearest) if isinstance(nearest, NearMissOut) else undecided_lacks(answer.undecided[0])
    lacks = "; ".join(filter(None, (lacks, far_outputs(nearest))))
    return _name(nearest), _latency(nearest), Text(_not_held(answer)), Text(lacks)


def _not_held(answer: RecommendResponse) -> str:
    """Say how sure it is that nothing holds."""
    infeasible = answer.infeasible
    return "–" if infeasible is None else f"not: {how_sure(infeasible.status, infeasible.probability)}"


def _name(strategy: StrategyOut, style: str = "") -> Text:
    return Text(f"{strategy.operator} on {strategy.placement}", style)


def _quality(best: RecommendationOut) -> str:
    """Return what is open about the answers: that they were not judged, or are far from identity's."""
    open_ = ["quality not measured"] if best.quality is not None and best.accuracy is None else []
    remark = None if best.accuracy is None else best.accuracy.remark
    return "; ".join(filter(None, (*open_, far_outputs(best), remark)))


def _latency(strategy: StrategyOut) -> Text:
    prefix = PREDICTED if strategy.latency.predicted else ""
    return Text(f"{percentile_name(strategy.latency.percentile)} {prefix}{duration(strategy.latency.percentile_s)}")


_STYLES = {"VALID": "", "DOUBTFUL": "yellow", "INVALID": "red"}


def rules_table(summaries: Sequence[RuleSummary]) -> Table:
    """Return a row per rule: the number of measurements by verdict, and its worst figure."""
    table = open_table(title="rules")
    table.add_column("rule", no_wrap=True)
    for heading in ("valid", "doubtful", "invalid", "limit", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for summary in summaries:
        place = f"{summary.measurement}, {summary.worst.where}" if summary.worst.where else summary.measurement
        # Where a rule finds nothing, the worst of many small figures is of no use to anybody.
        place = "" if summary.worst.verdict == "VALID" else place
        # What some units add in words (`inferences, the last ones still falling`) would take the room of others.
        unit = summary.worst.unit.split()[0].rstrip(",")
        table.add_row(
            Text(summary.rule),
            *(str(summary.counts[name]) for name in ("VALID", "DOUBTFUL", "INVALID")),
            # The unit of a count stands beside the worst one; twice it would take the room of the place.
            amount(summary.worst.threshold, unit) if unit in ("%", "s") else f"{summary.worst.threshold:g}",
            Text(amount(summary.worst.figure, unit), style=_STYLES[summary.worst.verdict]),
            FoldedName(place),
        )
    return table


def broken_table(judged: Sequence[JudgedMeasurement]) -> Table:
    """Return a row per measurement that is not valid, with every rule it breaks."""
    table = open_table(title="not valid")
    table.add_column("measurement", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("why: figure, limit")
    for measurement in judged:
        if measurement.verdict != "VALID":
            why = (
                measurement.reason or ""
                if measurement.failed
                else "\n".join(str(finding) for finding in _broken(measurement))
            )
            verdict = "failed" if measurement.failed else measurement.verdict
            table.add_row(FoldedName(measurement.name), Text(verdict, style=_STYLES[measurement.verdict]), Text(why))
    return table


def advice(judged: Sequence[JudgedMeasurement]) -> Iterator[str]:
    """Yield what to do, once per broken rule."""
    # By rule: its advice is the same for every measurement that breaks it.
    advices = {finding.rule: finding.advice for measurement in judged for finding in _broken(measurement)}
    for rule, what in advices.items():
        yield f"{rule}: {what}"


def _broken(judged: JudgedMeasurement) -> list[Finding]:
    return [finding for finding in judged.findings if finding.verdict != "VALID"]
