"""`runner compare`: what changed between two databases, and what did not."""

from collections import Counter
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from catalog.evidence import open_database, store
from catalog.exchange.comparing import LatencyChange, Pairing, StrategyChange, compare_evidence
from runner.commands.terminal import JsonOption, example, out, print_json
from runner.errors import RunnerError
from runner.reports.units import duration, percent, points

_WITHIN = 0.05

FirstArgument = Annotated[str, typer.Argument(metavar="A", help="Database of before: a file or URL")]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help="Database of after")]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject")]


def compare(a: FirstArgument, b: SecondArgument, subject: SubjectOption = None, as_json: JsonOption = False) -> None:
    """Compare two databases strategy by strategy: median, p90 and accuracy, B against A."""
    pairings = compare_evidence(_evidence(a, subject), _evidence(b, subject), within=_WITHIN)
    if not pairings:
        raise RunnerError(f"neither database declares {subject or 'any strategy'}; `runner status` lists what each has")
    if as_json:
        print_json([_json(each) for each in pairings])
        return
    for each in pairings:
        _print(each)


def _evidence(database: str, subject: str | None) -> tuple[store.StrategyEvidence, ...]:
    with open_database(database) as opened, opened.session() as session:
        return store.strategy_evidence(session, subject=subject)


def _print(pairing: Pairing) -> None:
    if pairing.a is None or pairing.b is None:
        only = "A" if pairing.b is None else "B"
        out.print(f"{pairing.subject}: only in {only}, {len(pairing.strategies)} strategies\n")
        return
    out.print(_table(pairing))
    out.print(_summary(pairing), "\n")


def _table(pairing: Pairing) -> Table:
    differs = ", ".join(f"{name} {a} → {b}" for name, (a, b) in pairing.differs.items())
    title = f"{pairing.subject} · {f'other environments: {differs}' if differs else 'the same environment'}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("operator", "placement"):
        table.add_column(name, no_wrap=True)
    for name in ("median B", "× A", "p90 B", "× A", "accuracy B", "pp"):
        table.add_column(name, justify="right")
    table.add_column("change", no_wrap=True)
    for each in pairing.strategies:
        table.add_row(each.operator, each.placement, *_numbers(each), each.change)
    return table


def _numbers(each: StrategyChange) -> list[str]:
    latencies = [text for change in each.latency for text in (duration(change.b_s), _ratio(change))]
    accuracy = each.accuracy
    shown = [percent(accuracy.b_pct), points(accuracy.difference_pp)] if accuracy else ["–"] * 2
    return [*(latencies or ["–"] * 4), *shown]


def _ratio(change: LatencyChange) -> str:
    interval = change.interval
    return f"{change.ratio:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def _summary(pairing: Pairing) -> str:
    counts = Counter(each.change for each in pairing.strategies)
    said = ", ".join(f"{count} {change}" for change, count in counts.most_common())
    moved = sum(each.accuracy is not None and each.accuracy.difference_pp != 0 for each in pairing.strategies)
    judged = [each.latency[-1] for each in pairing.strategies if each.latency]
    how = (
        "" if any(each.interval for each in judged) else f"; point values, unchanged means within {_WITHIN:.0%} at p90"
    )
    return f"{said}; accuracy differs in {moved}{how}"


def _json(pairing: Pairing) -> dict[str, Any]:
    return {
        "subject": pairing.subject,
        "environment_a": pairing.a.key if pairing.a else None,
        "environment_b": pairing.b.key if pairing.b else None,
        "differs": {name: {"a": a, "b": b} for name, (a, b) in pairing.differs.items()},
        "strategies": [_strategy_json(each) for each in pairing.strategies],
    }


def _strategy_json(each: StrategyChange) -> dict[str, Any]:
    latency = [
        {
            "percentile": change.percentile,
            "a_s": change.a_s,
            "b_s": change.b_s,
            "ratio": change.ratio,
            "interval": None if change.interval is None else vars(change.interval),
        }
        for change in each.latency
    ]
    accuracy = None if each.accuracy is None else {**vars(each.accuracy), "difference_pp": each.accuracy.difference_pp}
    names = {"operator": each.operator, "placement": each.placement, "change": each.change}
    return {**names, "latency": latency, "accuracy": accuracy}


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog=example("runner compare before.db after.db --subject fashion-resnet"))(compare)
