"""Declared SLOs against the evidence, as a table: what holds them, or what comes nearest."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from recommender.answer.wording import duration, percentile_name
from recommender.schemas import NearMissOut, RecommendationOut, RecommendResponse, StrategyOut
from runner.reports.answer import confidence
from runner.reports.answer_table import PREDICTED, far_outputs, shortfall, undecided_lacks


def slo_table(rows: Sequence[tuple[str, str, RecommendResponse | None, str | None]]) -> Table:
    """A row for each SLO and subject: the strategy with its joint confidence, or the nearest miss and its shortfall."""
    table = Table(pad_edge=False, box=None, header_style="bold")
    table.add_column("", width=1)
    table.add_column("SLO", overflow="fold")
    table.add_column("subject", overflow="fold")
    table.add_column("strategy, or nearest miss", overflow="fold", ratio=3)
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("lacks", overflow="fold", ratio=2)
    for slo, subject, answer, why_not in rows:
        table.add_row(*_cells(slo, subject, answer, why_not))
    return table


def _cells(slo: str, subject: str, answer: RecommendResponse | None, why_not: str | None) -> tuple[Text, ...]:
    if answer is None:
        return (Text("✗", "red"), Text(slo), Text(subject), Text("–"), Text("–"), Text("–"), Text(why_not or ""))
    best = answer.recommendation
    if best is not None:
        name = Text(f"{best.operator} on {best.placement}", "green")
        remark = Text(_quality(best), "yellow")
        return (Text("✓", "green"), Text(slo), Text(subject), name, _latency(best), _confidence(best), remark)
    undecided = answer.undecided[:1]
    nearest: StrategyOut | None = next(iter((*undecided, *answer.near_misses)), None)
    if nearest is None:
        return (Text("✗", "red"), Text(slo), Text(subject), Text("–"), Text("–"), Text("–"), Text("not measured"))
    lacks = shortfall(nearest) if isinstance(nearest, NearMissOut) else undecided_lacks(undecided[0])
    lacks = "; ".join(filter(None, (lacks, far_outputs(nearest))))
    name = Text(f"{nearest.operator} on {nearest.placement}")
    return (Text("✗", "red"), Text(slo), Text(subject), name, _latency(nearest), Text("–"), Text(lacks))


def _quality(best: RecommendationOut) -> str:
    """Return what is open about the answers: that nobody judged them, that the outputs are far from identity's."""
    open_ = ["quality not measured"] if best.quality is not None and best.accuracy is None else []
    remark = None if best.accuracy is None else best.accuracy.remark
    return "; ".join(filter(None, (*open_, far_outputs(best), remark)))


def _latency(each: StrategyOut) -> Text:
    known_by = PREDICTED if each.latency.predicted else ""
    return Text(f"{percentile_name(each.latency.percentile)} {known_by}{duration(each.latency.percentile_s)}")


def _confidence(best: RecommendationOut) -> Text:
    return Text(confidence(best.joint_confidence))
