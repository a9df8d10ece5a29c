"""An answer for the terminal: one panel that says what to do, one table of what was considered, what to know."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from recommender.schemas import BudgetsOut, NearMissOut, RecommendResponse, StrategyOut
from recommender.wording import duration, percentile_name

_NAME_WIDTH = 31
WIDTH = 100
_MIB = 1024 * 1024


def render_answer(answer: RecommendResponse) -> RenderableType:
    """The whole answer as one renderable, at most 100 columns wide; readable without colour."""
    parts: list[RenderableType] = [_verdict(answer)]
    if any((answer.recommendation, answer.alternatives, answer.near_misses, answer.undecided)):
        parts.append(_table(answer))
    notes = list(_notes(answer))
    if notes:
        parts.append(_bullets(notes))
    return Group(*parts)


def _verdict(answer: RecommendResponse) -> Panel:
    best = answer.recommendation
    body = Text()
    if best is not None:
        body.append(f"{best.operator} on {best.placement}", style="bold green")
        body.append(f"\n{_sentence(best.why)}")
    else:
        body.append("no recommendation", style="bold yellow")
        body.append(f"\n{answer.summary}")
    return Panel(
        body,
        title=Text(f"{answer.subject}: {_asked(answer.budgets)}"),
        title_align="left",
        subtitle=Text(_where(answer)),
        subtitle_align="left",
        width=WIDTH,
        border_style="green" if best is not None else "yellow",
    )


def _table(answer: RecommendResponse) -> Table:
    rows = _rows(answer)
    first = rows[0][1]
    metric = next((each.accuracy.metric for _, each, _ in rows if each.accuracy), "accuracy")
    table = Table(width=WIDTH, pad_edge=False, box=None, header_style="bold")
    table.add_column("", width=1)
    table.add_column("strategy", overflow="fold", min_width=_NAME_WIDTH)
    headings = ("median", percentile_name(first.latency.percentile), metric, "drop pp", "size")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", ratio=3)
    for mark, each, remark in rows:
        table.add_row(mark, Text(_name(each)), *_numbers(each), Text(remark, style="dim"))
    return table


def _name(each: StrategyOut) -> str:
    """On one line, or broken before the placement."""
    name = f"{each.operator} on {each.placement}"
    return name if len(name) <= _NAME_WIDTH else f"{each.operator}\n  on {each.placement}"


def _rows(answer: RecommendResponse) -> list[tuple[str, StrategyOut, str]]:
    rows: list[tuple[str, StrategyOut, str]] = []
    if answer.recommendation is not None:
        rows.append(("✓", answer.recommendation, "recommended"))
    rows += [(" ", each, f"{each.latency_ratio:.2f} × latency") for each in answer.alternatives]
    rows += [("?", each, "within, unproven" if each.kind == "unproven" else each.reason) for each in answer.undecided]
    rows += [("✗", each, _short(each)) for each in answer.near_misses]
    return rows


def _short(miss: NearMissOut) -> str:
    """What a near miss lacks, in figures; the panel has the nearest one's in words."""
    parts = [
        f"latency +{duration(miss.latency_over_s)}" if miss.latency_over_s is not None else "",
        f"accuracy -{miss.accuracy_short_pp:.2f} pp" if miss.accuracy_short_pp is not None else "",
        f"drop +{miss.drop_over_pp:.2f} pp" if miss.drop_over_pp is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _size(count: int | None) -> str:
    if count is None:
        return "–"
    return f"{count / _MIB:.2f} MiB" if count >= _MIB else f"{count / 1024:.1f} KiB"


def _numbers(each: StrategyOut) -> Iterator[str]:
    accuracy = each.accuracy
    yield duration(each.latency.median_s)
    yield duration(each.latency.percentile_s)
    yield f"{accuracy.accuracy_pct:.2f} %" if accuracy else "–"
    yield f"{accuracy.drop_pp:.2f}" if accuracy and accuracy.drop_pp is not None else "–"
    yield _size(each.size_bytes)


def _notes(answer: RecommendResponse) -> Iterator[str]:
    yield from answer.warnings
    unproven = next((each for each in answer.undecided if each.kind == "unproven"), None)
    if unproven is not None:
        yield f"unproven, e.g. {unproven.operator} on {unproven.placement}: {unproven.reason}"
    if answer.undecided:
        yield f"to decide more: {answer.undecided[0].to_do}"
    if answer.excluded:
        first = answer.excluded[0]
        more = f", and {len(answer.excluded) - 1} more" if len(answer.excluded) > 1 else ""
        yield f"excluded by a constraint: {first.operator} on {first.placement} ({first.reason}){more}"
    for each in answer.other_relaxations:
        yield f"or: {each.words}"
    yield from _unmeasured(answer)


def _unmeasured(answer: RecommendResponse) -> Iterator[str]:
    """What has no evidence: by name where it could change the answer, else as a number."""
    missing = [each for each in answer.not_considered if each.command is not None]
    could = [each for each in missing if each.could_change_answer]
    if could:
        names = ", ".join(f"{each.operator} on {each.placement}" for each in could[:4])
        more = f" and {len(could) - 4} more" if len(could) > 4 else ""
        yield f"not measured yet, and could change this answer: {names}{more}; `{could[0].command}` measures them"
    if len(missing) > len(could):
        yield f"not measured yet, but could not change this answer: {len(missing) - len(could)} more strategies"


def _bullets(notes: list[str]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.width = WIDTH
    grid.add_column(width=1)
    grid.add_column(ratio=1)
    for note in notes:
        grid.add_row(Text("!", style="yellow"), Text(_sentence(note)))
    return grid


def _asked(budgets: BudgetsOut) -> str:
    limits = [f"{percentile_name(each.percentile)} <= {duration(each.max_s)}" for each in budgets.latency]
    if budgets.min_accuracy_pct is not None:
        limits.append(f"accuracy >= {budgets.min_accuracy_pct:g} %")
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(f"drop <= {budgets.max_accuracy_drop_pp:g} pp")
    named = f"SLO {budgets.slo} ({', '.join(limits)})" if budgets.slo else ", ".join(limits) or "no budget"
    return f"{named}; best {budgets.objective}"


def _where(answer: RecommendResponse) -> str:
    it = answer.environment
    if it is None:
        return answer.conditions
    emulated = "" if it.scale == "1" else f", emulated at {it.scale}"
    return f"{answer.conditions}; launcher {it.launcher}{emulated}; {answer.age.words}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
