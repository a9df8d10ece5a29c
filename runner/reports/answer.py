"""The recommender's answer in the terminal: what to do, how sure it is, what was considered, what to know."""

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from recommender.answer.wording import duration, percentile_name
from recommender.schemas import BudgetsOut, RecommendationOut, RecommendResponse
from runner.reports.answer_table import PREDICTED, answer_table, interval
from runner.reports.units import rate, size

_NARROWEST, _WIDEST = 72, 140
# A note that is longer than so many lines is cut; --verbose has the whole of it.
_NOTE_LINES = 2


class AnswerReport:
    """The whole answer as one renderable, as wide as the terminal within reason; readable without colour."""

    def __init__(self, answer: RecommendResponse, *, verbose: bool = False) -> None:
        self._answer = answer
        self._verbose = verbose

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(_NARROWEST, min(options.max_width, _WIDEST))
        answer = self._answer
        yield _verdict(answer, width)
        if any((answer.recommendation, answer.alternatives, answer.near_misses, answer.undecided)):
            yield answer_table(answer, width=width, whole=self._verbose)
        notes = list(_notes(answer))
        if notes:
            yield _bullets(notes, width, whole=self._verbose)


def _verdict(answer: RecommendResponse, width: int) -> Panel:
    best = answer.recommendation
    body = Text()
    if best is not None:
        body.append(f"{best.operator} on {best.placement}", style="bold green")
        body.append(f"\n{_sentence(best.why)}\n")
        if best.quality is not None:
            body.append(f"{_sentence(best.quality)}\n", style="yellow")
        body.append("\n".join(_facts(best, answer.budgets)), style="dim")
    else:
        body.append("no recommendation", style="bold yellow")
        body.append(f"\n{answer.summary}")
        for each in _relaxations(answer):
            body.append(f"\n{_sentence(each)}", style="bold")
    return Panel(
        body,
        title=Text(f"{answer.subject}: {_asked(answer)}"),
        title_align="left",
        subtitle=Text(_where(answer)),
        subtitle_align="left",
        width=width,
        border_style="green" if best is not None else "yellow",
    )


def _facts(best: RecommendationOut, budgets: BudgetsOut) -> Iterator[str]:
    """Latency with its interval, accuracy, joint confidence, and what it costs: a line each."""
    latency, known = best.latency, best.accuracy
    known_by = "predicted " if latency.predicted else ""
    measured = f"{known_by}{percentile_name(latency.percentile)} {duration(latency.percentile_s)}"
    between = "no interval, the evidence is too thin" if latency.low_s is None else f"95 % interval {interval(best)}"
    yield f"{measured} ({between}; {latency.rounds} rounds of {latency.inputs} inputs)"
    if known is not None:
        drop = "" if known.drop_pp is None else f", drop {known.drop_pp:.2f} pp"
        yield f"{known.metric} {known.accuracy_pct:.2f} %{drop} ({known.items} items)"
    bounded = budgets.latency or budgets.min_accuracy_pct is not None or budgets.max_accuracy_drop_pp is not None
    if bounded:
        yield f"all budgets hold with joint confidence {confidence(best.joint_confidence)}"
    sent = "" if best.sent_bytes is None else f", sends {size(round(best.sent_bytes))} per inference"
    if best.size_bytes is not None:
        yield f"model files {size(best.size_bytes)}{sent}"


def confidence(joint: float) -> str:
    """Four digits, and never a certainty that no measurement gives."""
    return f"{joint:.4f}" if joint < 0.99995 else "> 0.9999"


def _relaxations(answer: RecommendResponse) -> Iterator[str]:
    """Which budget to relax by how much, the cheapest first."""
    cheapest = answer.relaxation
    if cheapest is not None and cheapest.words not in answer.summary:
        yield f"to make something feasible: {cheapest.words}"
    yield from (f"or: {each.words}" for each in answer.other_relaxations[:2])


def _notes(answer: RecommendResponse) -> Iterator[str]:
    if answer.links:
        yield f"{PREDICTED} before a latency: predicted for the asked links, not measured"
    yield from answer.warnings
    unproven = next((each for each in answer.undecided if each.kind == "unproven"), None)
    if unproven is not None:
        yield f"not proven, such as {unproven.operator} on {unproven.placement}: {unproven.reason}"
    if answer.undecided:
        yield f"to decide more: {answer.undecided[0].to_do}"
    if answer.excluded:
        first = answer.excluded[0]
        more = f", and {len(answer.excluded) - 1} more" if len(answer.excluded) > 1 else ""
        yield f"excluded by a constraint: {first.operator} on {first.placement} ({first.reason}){more}"
    yield from _unmeasured(answer)


def _unmeasured(answer: RecommendResponse) -> Iterator[str]:
    """What has no evidence: by name where it could change the answer, else as a number."""
    missing = [each for each in answer.not_considered if each.command is not None]
    could = [each for each in missing if each.could_change_answer]
    if could:
        names = _few([f"{each.operator} on {each.placement}" for each in could])
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
        text = note if whole or len(note) <= room else f"{note[: room - 22].rsplit(' ', 1)[0]} … (--verbose)"
        grid.add_row(Text("!", style="yellow"), Text(_sentence(text)))
    return grid


def _asked(answer: RecommendResponse) -> str:
    budgets = answer.budgets
    limits = [f"{percentile_name(each.percentile)} <= {duration(each.max_s)}" for each in budgets.latency]
    if budgets.min_accuracy_pct is not None:
        limits.append(f"accuracy >= {budgets.min_accuracy_pct:g} %")
    if budgets.max_accuracy_drop_pp is not None:
        limits.append(f"drop <= {budgets.max_accuracy_drop_pp:g} pp")
    named = f"SLO {budgets.slo} ({', '.join(limits)})" if budgets.slo else ", ".join(limits) or "no budget"
    links = "".join(f"; {each.link} at {rate(each.bit_per_s)}" for each in answer.links)
    return f"{named}; best {budgets.objective}{links}"


def _where(answer: RecommendResponse) -> str:
    it = answer.environment
    if it is None:
        return answer.conditions
    emulated = "" if it.scale == "1" else f", emulated at {it.scale}"
    return f"{answer.conditions}; launcher {it.launcher}{emulated}; {answer.age.words}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
