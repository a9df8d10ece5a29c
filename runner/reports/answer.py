"""The recommender's answer in the terminal: what to use, how sure that is, other strategies and notes."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from catalog.artifact_details import percentage
from catalog.units import counted, duration, duration_range, limit_duration, rate, size
from recommender.answer.wording import cannot_show, chance, how_sure, percentile_name
from recommender.ranking.model import Budgets, Unit
from recommender.schemas import (
    AlternativeOut,
    BudgetsOut,
    NearMissOut,
    ProspectOut,
    RecommendationOut,
    RecommendResponse,
    ShortfallOut,
    StrategyOut,
    UndecidedOut,
)
from recommender.schemas.answer import Status

# From these widths on there is room for one more kind of figure.
_INTERVAL_FROM, _ACCURACY_FROM, _SIZES_FROM, _MEDIAN_FROM = 96, 112, 126, 150
# As wide as the study's longest operator, quantized_early_exit_partition; a longer name breaks before its placement.
_NAME_WIDTH = 30
# If nothing was judged: the relative error of the outputs against identity's.
_DIFFERENCE = "outputs differ"
# A bound beyond so many times the estimate says nothing.
_NO_BOUND = 10
# Before a latency that was not measured.
PREDICTED = "~"
# So many of each kind; --verbose has all.
_SHOWN = 6
_SURE = "how sure"
# By status, readable without colour; a strategy that misses a budget has a cross.
_MARKS = {"proven": ("✓", "green"), "likely": ("≈", "green"), "open": ("?", "yellow"), "estimated": ("·", "yellow")}
_GAPS = {
    "too_thin": "too few inputs",
    "one_round": "one round only",
    "unproven": "",
    "too_few_images": "too few images",
    "items_missing": "accuracy without items",
    "accuracy_missing": "accuracy not known",
    "drop_missing": "drop not known",
    "by_model": "by the model",
}


@dataclass(frozen=True)
class _AnswerRow:
    mark: str
    style: str
    strategy: StrategyOut
    remark: str


def answer_table(answer: RecommendResponse, *, width: int, whole: bool = False) -> Table:
    """Return the recommended strategy first, then the others within the budgets by their status, then near misses."""
    between = ", " if width >= _MEDIAN_FROM else "\n"
    groups = [list(group) for group in _groups(answer, between)]
    rows = [row for group in groups for row in group]
    metric = next((row.strategy.accuracy.metric for row in rows if row.strategy.accuracy), "accuracy")
    headings = _headings(percentile_name(rows[0].strategy.latency.percentile), metric, width, rows, answer.budgets)
    table = Table(width=width, pad_edge=False, box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", width=1)
    table.add_column("strategy", overflow="fold", min_width=_NAME_WIDTH)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold", ratio=1)
    for group in groups:
        for row in group if whole else group[:_SHOWN]:
            figures = _figures(row.strategy, headings, metric)
            # Narrower, the notes below alone say it, once for each operator.
            far = far_outputs(row.strategy) if width >= _ACCURACY_FROM else ""
            remark = Text("; ".join(filter(None, (row.remark, far))))
            table.add_row(Text(row.mark, row.style), Text(_name(row.strategy), row.style), *figures, remark)
        if not whole and len(group) > _SHOWN:
            table.add_row("", Text(f"and {len(group) - _SHOWN} more such (--verbose)", "dim"))
    return table


def shortfall(miss: NearMissOut, *, between: str = ", ") -> str:
    """Return what a near miss lacks, in figures."""
    late, short, over = miss.latency_over_s, miss.accuracy_short_pp, miss.drop_over_pp
    metric = miss.accuracy.metric if miss.accuracy else "accuracy"
    parts = [] if late is None else [f"latency +{duration(late)}"]
    parts += [] if short is None else [f"{metric} -{short:.2f} pp"]
    parts += [] if over is None else [f"drop +{over:.2f} pp"]
    return between.join(parts)


def far_outputs(strategy: StrategyOut) -> str:
    """Return, in few words, how far the outputs are from identity's if that is a warning; else nothing."""
    distance = strategy.distance
    if distance is None or distance.warning is None:
        return ""
    if not distance.finite or distance.relative_error is None:
        return "outputs not finite"
    return f"outputs differ by {percentage(distance.relative_error)}"


def undecided_lacks(undecided: UndecidedOut) -> str:
    """Return what a promise of a strategy lacks; if its items are too few for any strategy, what they can show."""
    for missing in undecided.shortfalls:
        floor = missing.budget == "min_accuracy_pct"
        unit: Unit = "%" if floor else "pp"
        if missing.items is None or missing.best_bound is None:
            continue
        if missing.best_bound < missing.limit if floor else missing.best_bound > missing.limit:
            return cannot_show(missing.items, missing.best_bound, unit)
    bounds = [_bound(missing, undecided) for missing in undecided.shortfalls if (missing.bound_over or 0) > 0]
    return _GAPS.get(undecided.kind, undecided.kind) or ", ".join(bounds)


def _bound(missing: ShortfallOut, undecided: UndecidedOut) -> str:
    """Return the bound that is beyond its budget."""
    if missing.bound is None or (missing.estimate and missing.bound > _NO_BOUND * missing.estimate > 0):
        return f"bound unknown after {counted(undecided.latency.rounds, 'round')}"
    if missing.budget == "max_latency_s":
        return f"bound {duration(missing.bound)}"
    return f"bound {missing.bound:.2f} {'%' if missing.budget == 'min_accuracy_pct' else 'pp'}"


def _headings(percentile: str, metric: str, width: int, rows: Sequence[_AnswerRow], budgets: BudgetsOut) -> list[str]:
    # Without a budget there is nothing to be sure of.
    chosen = [percentile, *([_SURE] if budgets.any_set else [])]
    chosen += ["95 % interval"] if width >= _INTERVAL_FROM else []
    unjudged = not any(row.strategy.accuracy for row in rows) and any(row.strategy.distance for row in rows)
    drops = any(row.strategy.accuracy and row.strategy.accuracy.drop_pp is not None for row in rows)
    # Of the two that say the same, a narrow terminal shows the one that the question is about.
    narrow = ["drop pp"] if drops and budgets.min_accuracy_pct is None else [metric]
    chosen += [_DIFFERENCE] if unjudged else [metric, "drop pp"] if width >= _ACCURACY_FROM else narrow
    chosen += ["size", "sent"] if width >= _SIZES_FROM else []
    return chosen + (["median"] if width >= _MEDIAN_FROM else [])


def _name(strategy: StrategyOut) -> str:
    """Return the name on one line, or broken before the placement."""
    name = f"{strategy.operator} on {strategy.placement}"
    return name if len(name) <= _NAME_WIDTH else f"{strategy.operator}\n  on {strategy.placement}"


def interval(strategy: StrategyOut) -> str:
    """Return `10.2–16.7 ms`; a dash if the evidence is too thin for bounds."""
    low, high = strategy.latency.low_s, strategy.latency.high_s
    return "–" if low is None or high is None else duration_range(low, high)


def _groups(answer: RecommendResponse, between: str) -> Iterator[Iterator[_AnswerRow]]:
    best = answer.recommendation
    if best is not None:
        yield iter([_AnswerRow(*_mark(best), best, _best_remark(answer))])
    # Without a budget all are as good as proven, and a mark would say nothing.
    others = [(_mark(other) if answer.budgets.any_set else (" ", ""), other) for other in answer.alternatives]
    yield (_AnswerRow(*mark, alternative, _relation(alternative)) for mark, alternative in others)
    yield (_AnswerRow(*_mark(undecided), undecided, undecided_lacks(undecided)) for undecided in answer.undecided)
    misses = answer.near_misses
    yield (_AnswerRow("✗", "red", near_miss, shortfall(near_miss, between=between)) for near_miss in misses)


def _mark(prospect: ProspectOut) -> tuple[str, str]:
    """Return the mark of a status, and its style."""
    return _MARKS[prospect.status]


def _best_remark(answer: RecommendResponse) -> str:
    """Return whether the recommended one is the fastest of those within the budgets."""
    best = answer.recommendation
    others = [*answer.alternatives, *answer.undecided]
    assert best is not None
    if best.lacks:
        return "recommended as a risk"
    fastest = all(other.latency.percentile_s >= best.latency.percentile_s for other in others)
    return "recommended; fastest" if fastest else "recommended"


def _relation(alternative: AlternativeOut) -> str:
    """Return `different 1.05–1.26×`, from the interval of the ratio to the fastest."""
    if alternative.ratio_low is None or alternative.ratio_high is None:
        return "the fastest" if alternative.relation == "equivalent" else alternative.relation
    return f"{alternative.relation} {alternative.ratio_low:.2f}–{alternative.ratio_high:.2f}×"


def _figures(strategy: StrategyOut, headings: list[str], metric: str) -> Iterator[str]:
    accuracy = strategy.accuracy
    error = None if strategy.distance is None else strategy.distance.relative_error
    drop = "–" if accuracy is None or accuracy.drop_pp is None else f"{accuracy.drop_pp:.2f}"
    figures = {
        headings[0]: f"{PREDICTED if strategy.latency.predicted else ''}{duration(strategy.latency.percentile_s)}",
        _SURE: _certainty(strategy),
        "95 % interval": interval(strategy),
        "drop pp": drop,
        _DIFFERENCE: "–" if error is None else percentage(error),
        "size": "–" if strategy.size_bytes is None else size(strategy.size_bytes),
        "sent": "–" if strategy.sent_bytes is None else size(round(strategy.sent_bytes)),
        "median": f"{PREDICTED if strategy.latency.predicted else ''}{duration(strategy.latency.median_s)}",
        metric: "–" if accuracy is None else f"{accuracy.accuracy_pct:.2f} %",
    }
    yield from (figures[heading] for heading in headings)


def _certainty(strategy: StrategyOut) -> str:
    """Return the status or its probability; nothing for a strategy that misses a budget."""
    if not isinstance(strategy, ProspectOut):
        return ""
    certain = strategy.status in ("proven", "estimated") or strategy.probability is None
    return strategy.status if certain else chance(strategy.probability or 0.0)


# Narrower, and figures would be cut; wider, and the eye loses the line.
_NARROWEST, _WIDEST = 72, 160
# A note that is longer than so many lines is cut; --verbose has the whole of it.
_NOTE_LINES = 2


class AnswerReport:
    """The whole answer as one renderable, as wide as the terminal within reason; readable without colour."""

    def __init__(
        self,
        answer: RecommendResponse,
        *,
        verbose: bool = False,
        database: str | None = None,
        catalog: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._answer = answer
        self._verbose = verbose
        # The options without which the command would be about other files, or measure elsewhere.
        self._options = "" if catalog is None else f" -c {shlex.quote(str(catalog))}"
        # A URL may hold a password, which no screen shows.
        self._options += "" if database is None or "://" in database else f" -d {shlex.quote(database)}"
        self._options += "".join(f" {shlex.quote(option)}" for option in options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(_NARROWEST, min(options.max_width, _WIDEST))
        answer = self._answer
        yield _verdict(answer, width)
        if answer.to_do is not None and answer.to_do.command is not None:
            # Outside the frame and not wrapped, so that it can be copied.
            yield Text(f"  {answer.to_do.command}{self._options}", style="bold", no_wrap=True, overflow="ignore")
        if any((answer.recommendation, answer.alternatives, answer.near_misses, answer.undecided)):
            yield answer_table(answer, width=width, whole=self._verbose)
        names = frozenset(strategy.operator for strategy in considered(answer))
        notes = [_sentence(note, names) for note in _notes(answer)]
        if notes:
            yield _bullets(notes, width, whole=self._verbose)


# Corners, a dash and a blank on both sides of a title.
_TITLE_FRAME = 6


def _verdict(answer: RecommendResponse, width: int) -> Panel:
    request = _request_text(answer)
    title = f"{answer.subject}: {request}"
    body = Text()
    if len(title) > width - _TITLE_FRAME:
        # The frame would cut it, and the limits stand at its end.
        title = answer.subject
        body.append(f"{request}\n")
    best = answer.recommendation
    if best is not None:
        _append_best(body, answer, best)
    else:
        body.append(_NOTHING.get(answer.status, "no recommendation"), style="bold yellow")
        body.append(f"\n{answer.summary}")
    for relaxation in _relaxations(answer):
        body.append(f"\n{_sentence(relaxation)}", style="bold" if best is None else "")
    body.append(f"\n{_where(answer)}", style="dim")
    border = "yellow" if best is None or _status(answer, best) in ("open", "estimated") else "green"
    return Panel(body, title=Text(title), title_align="left", width=width, border_style=border)


_NOTHING = {"infeasible": "no strategy within the budgets", "unmeasured": "nothing measured to recommend from"}


def _status(answer: RecommendResponse, best: RecommendationOut) -> Status:
    """Return the status that colours a strategy; without a budget nothing about it is in doubt."""
    return best.status if answer.budgets.any_set else "proven"


def _append_best(body: Text, answer: RecommendResponse, best: RecommendationOut) -> None:
    """Append the strategy, how sure it is, why, what would make it sure, and the facts."""
    style = _MARKS[_status(answer, best)][1]
    body.append(f"{best.operator} on {best.placement}", style=f"bold {style}")
    if answer.budgets.any_set:
        body.append(f"   {how_sure(best.status, best.probability)}", style=style)
    body.append(f"\n{_sentence(best.why)}")
    if answer.to_do is not None:
        # The command follows below.
        words = answer.to_do.words.replace(f": `{answer.to_do.command}`", " (the command is below)")
        body.append(f"\n{words}", style="bold")
    for reason in best.not_chosen:
        body.append(f"\n{reason}.")
    if best.quality is not None:
        body.append(f"\n{_sentence(best.quality)}", style="yellow")
    body.append("\n" + "\n".join(_facts(best, answer.budgets)), style="dim")


def _facts(best: RecommendationOut, budgets: BudgetsOut) -> Iterator[str]:
    """Yield a line each for latency with its interval, accuracy, joint confidence, and costs."""
    latency, accuracy = best.latency, best.accuracy
    prefix = "predicted " if latency.predicted else ""
    measured = f"{prefix}{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
    between = "no interval, the evidence is too thin" if latency.low_s is None else f"95 % interval {interval(best)}"
    yield f"{measured} ({between}; {counted(latency.rounds, 'round')} of {counted(latency.inputs, 'input')})"
    if best.next_start_high_s is not None:
        name = percentile_name(latency.percentile)
        yield f"the next start keeps its {name} below {duration(best.next_start_high_s)}, at 95 %"
    if accuracy is not None:
        drop = "" if accuracy.drop_pp is None else f", drop {accuracy.drop_pp:.2f} pp"
        items = counted(accuracy.items, "item") if accuracy.items else "of an unknown number of items"
        yield f"{accuracy.metric} {accuracy.accuracy_pct:.2f} %{drop} ({items})"
    if budgets.any_set and best.status == "proven":
        yield f"all budgets hold with joint confidence {confidence(best.joint_confidence)}"
    sent = "" if best.sent_bytes is None else f", sends {size(round(best.sent_bytes))} per inference"
    if best.size_bytes is not None:
        yield f"model files {size(best.size_bytes)}{sent}"


def confidence(joint: float) -> str:
    """Return four digits, and never a certainty, which no measurement gives."""
    return f"{joint:.4f}" if joint < 0.99995 else "> 0.9999"


def _relaxations(answer: RecommendResponse) -> Iterator[str]:
    """Yield which budget to relax by how much, the cheapest first."""
    cheapest = answer.relaxation
    if cheapest is not None and (answer.recommendation is not None or cheapest.words not in answer.summary):
        # What is not proven then says how sure it is, in parentheses.
        label = "within the budgets" if cheapest.words.endswith(")") else "proven"
        yield f"{label} would be: {cheapest.words}"
    if answer.recommendation is None:
        yield from (f"or: {relaxation.words}" for relaxation in answer.other_relaxations[:2])


def _notes(answer: RecommendResponse) -> Iterator[str]:
    if answer.links:
        yield f"{PREDICTED} before a latency: predicted for the requested links, not measured"
    yield from answer.warnings
    best = answer.recommendation
    # What the estimates lack is said where the strategy is named.
    if best is not None and best.reason is not None and not best.lacks:
        yield f"not proven: {best.reason}"
    elif answer.undecided:
        other = answer.undecided[0]
        yield f"not proven, such as {other.operator} on {other.placement}: {other.reason}"
    if answer.excluded:
        first = answer.excluded[0]
        more = f", and {len(answer.excluded) - 1} more" if len(answer.excluded) > 1 else ""
        yield f"excluded by a constraint: {first.operator} on {first.placement} ({first.reason}){more}"
    yield from _unmeasured(answer)


def _unmeasured(answer: RecommendResponse) -> Iterator[str]:
    """Yield what has no evidence: by name if it could change the answer, else as a number."""
    missing = [strategy for strategy in answer.not_considered if strategy.command is not None]
    # By name only where measuring may pay; the others would bury them.
    could = [strategy for strategy in missing if strategy.could_change_answer]
    if could:
        names = _few([f"{strategy.operator} on {strategy.placement}" for strategy in could])
        yield f"not measured yet, and could change this answer: {names}; `{could[0].command}` measures them"
    if len(missing) > len(could):
        yield f"not measured yet, but could not change this answer: {len(missing) - len(could)} more strategies"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _bullets(notes: Sequence[str], width: int, *, whole: bool) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.width = width
    grid.add_column(width=1)
    grid.add_column(ratio=1)
    room = _NOTE_LINES * (width - 4)
    for note in notes:
        text = note if whole or len(note) <= room else f"{_beginning(note, room - 22)} … (--verbose)"
        grid.add_row(Text("!", style="yellow"), Text(text))
    return grid


def _beginning(note: str, room: int) -> str:
    """Return as many whole words as there is room for, and no parenthesis that does not end.

    Examples
    --------
    >>> _beginning("the bound is 1.44 pp (on its own 1.2 pp), over the limit", 36)
    'the bound is 1.44 pp'
    """
    words = note[:room].rsplit(" ", 1)[0]
    return words[: words.rindex("(")].rstrip() if words.count("(") > words.count(")") else words


def limits_in_words(budgets: BudgetsOut | Budgets) -> str:
    """Return the limits of a question, such as `p90 <= 50 ms, drop <= 1 pp`."""
    limits = [f"{percentile_name(budget.percentile)} <= {limit_duration(budget.max_s)}" for budget in budgets.latency]
    if budgets.min_accuracy_pct is not None:
        limits.append(f"accuracy >= {budgets.min_accuracy_pct:g} %")
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(f"drop <= {budgets.max_accuracy_drop_pp:g} pp")
    return ", ".join(limits) or "no budget"


def _request_text(answer: RecommendResponse) -> str:
    budgets = answer.budgets
    limits = limits_in_words(budgets)
    named = f"SLO {budgets.slo} ({limits})" if budgets.slo else limits
    links = "".join(f"; {link.link} at {rate(link.bit_per_s)}" for link in answer.links)
    return f"{named}; best {budgets.objective}{links}"


def _where(answer: RecommendResponse) -> str:
    environment = answer.environment
    if environment is None:
        return answer.conditions
    emulated = "" if environment.scale == "1" else f", emulated at {environment.scale}"
    return f"{answer.conditions}; launcher {environment.launcher}{emulated}\n{answer.age.words}"


def _sentence(text: str, names: Collection[str] = ()) -> str:
    """Begin with a capital letter, unless the first word is one of the names: those are written as declared."""
    first = text.split(" ", 1)[0].rstrip(":,")
    return text if first in names else text[:1].upper() + text[1:]


def considered(answer: RecommendResponse) -> Iterator[StrategyOut]:
    """Yield every strategy of the answer, in its order."""
    if answer.recommendation is not None:
        yield answer.recommendation
    yield from (*answer.alternatives, *answer.undecided, *answer.near_misses)


def evidence_lines(answer: RecommendResponse) -> Iterator[str]:
    """Yield every id whole on its own line, so that it can be copied: GET /evidence/ID, or `runner sql`."""
    if answer.environment is not None:
        yield "environment"
        yield f"  {answer.environment.key}"
    for strategy in considered(answer):
        yield f"{strategy.operator} on {strategy.placement}: latency, accuracy"
        yield from (
            f"  {identity}" for identity in (strategy.latency_evidence_id, strategy.accuracy_evidence_id) if identity
        )
    if answer.recommendation is not None:
        for file, sha256 in answer.recommendation.artifact_sha256.items():
            yield f"{file}: SHA-256"
            yield f"  {sha256}"
