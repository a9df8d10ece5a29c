"""`runner compare`: what changed between two databases, and what did not."""

from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Table

from catalog.console import open_table
from catalog.errors import DatabaseMissingError, NotADatabaseError
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.soundness import sound_database
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.exchange.compare import LatencyChange, Pairing, StrategyChange, compare_evidence
from catalog.units import counted, duration, points
from runner.commands.terminal import JsonOption, example, out, print_json
from runner.errors import RunnerError
from runner.reports.ranking import folded

# The default that a question has as well.
_MARGIN = 0.05
_ADVICE = "name a database that `runner fill-catalog` or `runner import` has filled: runner compare A B"
# With this, all columns fit 100 characters.
_NAME_WIDTH = 22

FirstArgument = Annotated[str, typer.Argument(metavar="A", help="The earlier database: a file or URL")]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help="The later database")]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject")]


def compare(a: FirstArgument, b: SecondArgument, subject: SubjectOption = None, as_json: JsonOption = False) -> None:
    """Compare two databases, strategy by strategy.

    Shows median, p90 and accuracy of B against A.
    """
    pairings = compare_evidence(_evidence(a, subject), _evidence(b, subject), equivalent_within=_MARGIN)
    if not pairings:
        raise RunnerError(f"neither database declares {subject or 'any strategy'}; `runner status` lists what each has")
    if as_json:
        print_json([_json(pairing) for pairing in pairings])
        return
    for pairing in pairings:
        _print(pairing)


def _evidence(database: str, subject: str | None) -> tuple[StrategyEvidence, ...]:
    try:
        with open_database(database) as opened, sound_database(opened).reading() as reader:
            return strategy_evidence(reader, subject=subject)
    # The error's own advice is for commands that have one database, named by an option.
    except DatabaseMissingError as error:
        raise RunnerError(f"{error.location}: there is no evidence; {_ADVICE}") from error
    except NotADatabaseError as error:
        raise RunnerError(f"{error.location}: this is no database of evidence; {_ADVICE}") from error


def _print(pairing: Pairing) -> None:
    if pairing.a is None or pairing.b is None:
        only = "A" if pairing.b is None else "B"
        out.print(f"{pairing.subject}: only in {only}, {counted(len(pairing.strategies), 'strategy')}\n")
        return
    out.print(_table(pairing))
    out.print(_summary(pairing), "\n")


def _table(pairing: Pairing) -> Table:
    differs = ", ".join(f"{name} {a} → {b}" for name, (a, b) in pairing.differs.items())
    title = f"{pairing.subject} · {f'other environments: {differs}' if differs else 'the same environment'}"
    table = open_table(title=title)
    for name in ("operator", "placement"):
        table.add_column(name, no_wrap=True)
    for name in ("median B", "× A", "p90 B", "× A", "interval", "pp"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("change", no_wrap=True)
    for strategy in pairing.strategies:
        table.add_row(folded(strategy.operator, _NAME_WIDTH), strategy.placement, *_numbers(strategy), strategy.change)
    return table


def _numbers(strategy: StrategyChange) -> list[str]:
    if not strategy.latency:
        return ["–"] * 6
    # Percentiles ascend: the median comes first and p90 last.
    median, last = strategy.latency[0], strategy.latency[-1]
    drop = points(strategy.accuracy.difference_pp) if strategy.accuracy else "–"
    return [duration(median.b_s), f"{median.ratio:.2f}", duration(last.b_s), f"{last.ratio:.2f}", _interval(last), drop]


def _interval(change: LatencyChange) -> str:
    """Return the interval of the ratio; an end that is more than tenfold away is not known."""
    low, high = change.comparison.readable_low, change.comparison.readable_high
    if low is None and high is None:
        return "–"
    return "–".join("?" if end is None else f"{end:.2f}" for end in (low, high))


def _summary(pairing: Pairing) -> str:
    counts = Counter(strategy.change for strategy in pairing.strategies)
    changes = ", ".join(f"{count} {change}" for change, count in counts.most_common())
    moved = sum(
        strategy.accuracy is not None and strategy.accuracy.difference_pp != 0 for strategy in pairing.strategies
    )
    margin = f"{100 * _MARGIN:g} %"
    text = f"{changes}; accuracy differs in {moved}. p90 against A, simultaneous 95 % intervals, margin {margin}"
    refusals = (
        strategy.latency[-1].comparison.refusal for strategy in pairing.strategies if strategy.change == "unresolved"
    )
    # Many pairs are refused for one reason, which is said once.
    return "\n".join([text, *dict.fromkeys(f"unresolved: {refusal.reason}" for refusal in refusals if refusal)])


def _json(pairing: Pairing) -> dict[str, Any]:
    return {
        "subject": pairing.subject,
        "environment_a": pairing.a.key if pairing.a else None,
        "environment_b": pairing.b.key if pairing.b else None,
        "differs": {name: {"a": a, "b": b} for name, (a, b) in pairing.differs.items()},
        "strategies": [_strategy_json(strategy) for strategy in pairing.strategies],
    }


def _strategy_json(strategy: StrategyChange) -> dict[str, Any]:
    change = strategy.accuracy
    accuracy = None if change is None else {**vars(change), "difference_pp": change.difference_pp}
    names = {"operator": strategy.operator, "placement": strategy.placement, "change": strategy.change}
    return {**names, "latency": [_latency_json(latency) for latency in strategy.latency], "accuracy": accuracy}


def _latency_json(change: LatencyChange) -> dict[str, Any]:
    compared = change.comparison
    return {
        "percentile": change.percentile,
        "a_s": change.a_s,
        "b_s": change.b_s,
        "ratio": change.ratio,
        "low": compared.readable_low,
        "high": compared.readable_high,
        "verdict": compared.verdict,
        "equivalent_within": compared.question.equivalent_within,
        "confidence_level": compared.question.confidence_level,
        "comparisons": compared.comparisons,
        "refusal": compared.refusal.reason if compared.refusal else None,
    }


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner compare before.db after.db --subject fashion-resnet"))(compare)
