"""What an answer considered, as one table: a mark, the strategy, its figures, and why it is where it is.

A narrow terminal shows fewer figures; the strategy, its interval and the remark are always there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from catalog.output_distance import percentage
from recommender.answer.wording import cannot_show, duration, percentile_name
from recommender.ranking.model import Unit
from recommender.schemas import (
    AlternativeOut,
    NearMissOut,
    RecommendResponse,
    StrategyOut,
    UndecidedOut,
)
from runner.reports.units import size

# From these widths on there is room for one more kind of figure.
_ACCURACY_FROM, _SIZES_FROM, _MEDIAN_FROM = 96, 116, 126
_NAME_WIDTH = 30
# Where nothing was judged: the relative error of the outputs against identity's.
_DIFFERENCE = "outputs differ"
# Before a latency that was not measured.
PREDICTED = "~"
# So many of each kind; --verbose has all.
_SHOWN = 6
_GAPS = {
    "too_thin": "too few inputs",
    "one_round": "one round only",
    "unproven": "within, unproven",
    "too_few_images": "too few images",
    "items_missing": "accuracy without items",
    "accuracy_missing": "accuracy not known",
    "drop_missing": "drop not known",
}


@dataclass(frozen=True)
class _Row:
    mark: str
    strategy: StrategyOut
    remark: str
    style: str = ""


def answer_table(answer: RecommendResponse, *, width: int, whole: bool = False) -> Table:
    """The recommended first, then what holds the budgets too, what could not be decided, and the near misses."""
    between = ", " if width >= _MEDIAN_FROM else "\n"
    groups = [list(each) for each in _groups(answer, between)]
    rows = [row for group in groups for row in group]
    metric = next((each.strategy.accuracy.metric for each in rows if each.strategy.accuracy), "accuracy")
    headings = _headings(percentile_name(rows[0].strategy.latency.percentile), metric, width, rows)
    table = Table(width=width, pad_edge=False, box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", width=1)
    table.add_column("strategy", overflow="fold", min_width=_NAME_WIDTH)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", ratio=1)
    for group in groups:
        for row in group if whole else group[:_SHOWN]:
            figures = _figures(row.strategy, headings, metric)
            remark = Text("; ".join(filter(None, (row.remark, far_outputs(row.strategy)))))
            table.add_row(Text(row.mark, row.style), Text(_name(row.strategy), row.style), *figures, remark)
        if not whole and len(group) > _SHOWN:
            table.add_row("", Text(f"and {len(group) - _SHOWN} more such (--verbose)", "dim"))
    return table


def shortfall(miss: NearMissOut, *, between: str = ", ") -> str:
    """What a near miss lacks, in figures."""
    late, short, over = miss.latency_over_s, miss.accuracy_short_pp, miss.drop_over_pp
    metric = miss.accuracy.metric if miss.accuracy else "accuracy"
    parts = [] if late is None else [f"latency +{duration(late)}"]
    parts += [] if short is None else [f"{metric} -{short:.2f} pp"]
    parts += [] if over is None else [f"drop +{over:.2f} pp"]
    return between.join(parts)


def far_outputs(strategy: StrategyOut) -> str:
    """Return how far the outputs are from identity's where that is a warning, in few words; else nothing."""
    distance = strategy.distance
    if distance is None or distance.warning is None:
        return ""
    if not distance.finite or distance.relative_error is None:
        return "outputs not finite"
    return f"outputs differ by {percentage(distance.relative_error)}"


def undecided_lacks(each: UndecidedOut) -> str:
    """What keeps a strategy undecided; where its items are too few for any strategy, what they can show."""
    for found in each.shortfalls:
        floor = found.budget == "min_accuracy_pct"
        unit: Unit = "%" if floor else "pp"
        if found.items is None or found.best_bound is None:
            continue
        if found.best_bound < found.limit if floor else found.best_bound > found.limit:
            return cannot_show(found.items, found.best_bound, unit)
    return _GAPS.get(each.kind, each.kind)


def _headings(percentile: str, metric: str, width: int, rows: Sequence[_Row]) -> list[str]:
    chosen = [percentile, "95 % interval"]
    unjudged = not any(row.strategy.accuracy for row in rows) and any(row.strategy.distance for row in rows)
    quality = [_DIFFERENCE] if unjudged else [metric, "drop pp"]
    chosen += quality if width >= _ACCURACY_FROM else []
    chosen += ["size", "sent"] if width >= _SIZES_FROM else []
    return chosen + (["median"] if width >= _MEDIAN_FROM else [])


def _name(each: StrategyOut) -> str:
    """On one line, or broken before the placement."""
    name = f"{each.operator} on {each.placement}"
    return name if len(name) <= _NAME_WIDTH else f"{each.operator}\n  on {each.placement}"


def interval(each: StrategyOut) -> str:
    """`10.2–16.7 ms`, in one unit; a dash where the evidence is too thin for bounds."""
    low, high = each.latency.low_s, each.latency.high_s
    if low is None or high is None:
        return "–"
    factor, unit = (1e3, "ms") if high < 0.9995 else (1.0, "s")
    digits = 2 if high * factor < 10 else 1 if high * factor < 100 else 0
    return f"{low * factor:.{digits}f}–{high * factor:.{digits}f} {unit}"


def _groups(answer: RecommendResponse, between: str) -> Iterator[Iterator[_Row]]:
    best = answer.recommendation
    if best is not None:
        yield iter([_Row("✓", best, _best_remark(answer), "green")])
    yield (_Row(" ", each, _relation(each)) for each in answer.alternatives)
    yield (_Row("?", each, undecided_lacks(each), "yellow") for each in answer.undecided)
    yield (_Row("✗", each, shortfall(each, between=between), "red") for each in answer.near_misses)


def _best_remark(answer: RecommendResponse) -> str:
    """The fastest is the one that nothing is compared with; the recommended one may be another."""
    fastest = all(each.ratio_low is not None or each.relation != "equivalent" for each in answer.alternatives)
    return "recommended; fastest" if fastest else "recommended"


def _relation(each: AlternativeOut) -> str:
    """`different 1.05–1.26×`, as the interval of the ratio to the fastest shows."""
    if each.ratio_low is None or each.ratio_high is None:
        return "the fastest" if each.relation == "equivalent" else each.relation
    return f"{each.relation} {each.ratio_low:.2f}–{each.ratio_high:.2f}×"


def _figures(each: StrategyOut, headings: list[str], metric: str) -> Iterator[str]:
    known = each.accuracy
    error = None if each.distance is None else each.distance.relative_error
    drop = "–" if known is None or known.drop_pp is None else f"{known.drop_pp:.2f}"
    figures = {
        headings[0]: f"{PREDICTED if each.latency.predicted else ''}{duration(each.latency.percentile_s)}",
        "95 % interval": interval(each),
        "drop pp": drop,
        _DIFFERENCE: "–" if error is None else percentage(error),
        "size": "–" if each.size_bytes is None else size(each.size_bytes),
        "sent": "–" if each.sent_bytes is None else size(round(each.sent_bytes)),
        "median": f"{PREDICTED if each.latency.predicted else ''}{duration(each.latency.median_s)}",
        metric: "–" if known is None else f"{known.accuracy_pct:.2f} %",
    }
    yield from (figures[heading] for heading in headings)
