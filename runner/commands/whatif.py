"""`runner whatif`: latency against the bandwidth of a link, per strategy, and where the choice changes."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.units import counted, duration, parse_bit_rate, rate
from recommender.answer.wording import output_warnings
from recommender.evidence.snapshots import Snapshots
from recommender.whatif import LinkedStrategy, LinkRate, Prediction, WhatIf, what_if
from recommender.whatif.curves import Curves, latency_curves
from runner.commands.terminal import (
    DatabaseOption,
    JsonOption,
    RunnerSettings,
    err,
    example,
    out,
    percentile_option,
    print_json,
)
from runner.errors import RunnerError
from runner.reports.ranking import FoldedName

# So many rates fit beside the longest names of strategies, by the width of the terminal.
_COLUMNS, _WIDE_COLUMNS, _WIDE = 3, 5, 130
# So many strategies are named where one reason keeps several from a prediction; `--json` has all.
_NAMED = 3
# The numbers; samples and intervals in full are for the code that decides.
_REPORTED = [field.name for field in fields(Prediction) if field.compare]
SubjectArgument = Annotated[str, typer.Argument(help="The model under study")]
LinkOption = Annotated[
    str, typer.Option("--link", help="A link and its rate, or a range of rates, e.g. edge-cloud=1mbit..200mbit")
]
PercentileOption = Annotated[float, percentile_option("Of the latency")]
EnvironmentOption = Annotated[str | None, typer.Option("--environment", help="Key (default: the newest complete one)")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="SVG file to write")]


def whatif(
    subject: SubjectArgument,
    link: LinkOption,
    database: DatabaseOption = None,
    percentile: PercentileOption = 90.0,
    environment: EnvironmentOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the latency of every strategy for another link bandwidth.

    Columns are rates of the link. Predictions are made from the measured parts and carry their interval; strategies
    that do not use the link keep their measured latency.
    """
    name, low, high = _parsed(link)
    parts, warnings = _linked_strategies(database or RunnerSettings().database, subject, environment)
    columns = _WIDE_COLUMNS if out.width >= _WIDE or as_json else _COLUMNS
    try:
        curves = latency_curves(parts, name, low_bit_per_s=low, high_bit_per_s=high, percentile=percentile)
        points = [curves.bit_per_s[round(i * (len(curves.bit_per_s) - 1) / (columns - 1))] for i in range(columns)]
        # Whole bits per second, as rates are declared: what was measured at one is then answered as measured.
        rates = [float(round(point)) for point in points]
        answers = [what_if(parts, {name: LinkRate(rate, rate)}, percentile=percentile) for rate in rates]
    except ValueError as error:
        raise RunnerError(str(error)) from error
    if output is not None:
        _write(curves, output, subject)
    if as_json:
        print_json(_json(subject, curves, rates, answers))
    else:
        _print(subject, curves, rates, answers)
        for carried in {str(strategy.evidence[0].real[name]) for strategy in parts if _is_real(strategy, name)}:
            out.print(f"{name} is a real link: measured {carried}; other rates are predicted from there")
        for warning in warnings:
            out.print(f"! {warning}", highlight=False, markup=False)


def _is_real(strategy: LinkedStrategy, link: str) -> bool:
    return bool(strategy.evidence) and link in strategy.evidence[0].real


def _parsed(text: str) -> tuple[str, float, float]:
    name, equals, rates = text.partition("=")
    first, dots, last = rates.partition("..")
    if not name or not equals:
        raise RunnerError(f"--link {text!r} is no link with its rate; write for example edge-cloud=1mbit..200mbit")
    if not dots:  # one rate: the neighbourhood shows where it lies
        middle = float(parse_bit_rate(first))
        return name, middle / 4, middle * 4
    low, high = float(parse_bit_rate(first)), float(parse_bit_rate(last))
    if low >= high:
        raise RunnerError(f"--link {text!r} goes from {rate(low)} to {rate(high)}; write the lower rate first")
    return name, low, high


def _linked_strategies(
    database: str, subject: str, environment: str | None
) -> tuple[Sequence[LinkedStrategy], Sequence[str]]:
    """Return what predictions start from, and which operators' outputs are far from identity's or not compared."""
    snapshots = Snapshots(database)
    try:
        evidence = snapshots.current()
        selection = evidence.select(subject, environment)
        return evidence.linked_strategies(selection), list(output_warnings(selection.candidates))
    finally:
        # Strategies on links are read at once and kept, so nothing needs the database any more.
        snapshots.close()


def _write(curves: Curves, output: Path, subject: str) -> None:
    if not curves.curves:
        raise RunnerError(f"{subject} has no strategy to draw: {curves.unpredictable[0].reason}")
    # Imported here: a figure takes what draws the figures of a report.
    from runner.reports.whatif_plot import write_svg

    try:
        write_svg(curves, output, subject=subject)
    except OSError as error:
        raise RunnerError(f"{output}: cannot be written: {error.strerror}") from error
    err.print(f"{output}: {len(curves.curves)} curves", soft_wrap=True)


def _print(subject: str, curves: Curves, rates: Sequence[float], answers: Sequence[WhatIf]) -> None:
    out.print(_table(subject, curves, rates, answers))
    for crossing in curves.crossings:
        out.print(
            f"from {rate(crossing.bit_per_s)} on: {crossing.above} instead of {crossing.below} "
            f"({duration(crossing.latency_s)})"
        )
    fastest = curves.fastest(0)
    if fastest is not None and not curves.crossings:
        out.print(f"the fastest is {fastest.name} at every rate shown")
    for line in (*_fastest_by_rate(curves, rates, answers), *_refusals(answers)):
        out.print(line)
    out.print("unloaded, single stream; ± is half the 95 % interval, * was measured and does not use the link")


def _fastest_by_rate(curves: Curves, rates: Sequence[float], answers: Sequence[WhatIf]) -> Iterator[str]:
    """Yield the fastest at each rate where all are known though the curves are not, and at which rates it is open."""
    if curves.complete:
        return
    open_at = []
    for bit_per_s, answer in zip(rates, answers, strict=True):
        if answer.complete:
            best = answer.predictions[0]
            yield f"at {rate(bit_per_s)} the fastest is {best.operator}@{best.placement} ({duration(best.estimate_s)})"
        else:
            open_at.append(rate(bit_per_s))
    if open_at:
        yield f"open at {', '.join(open_at)}: which is the fastest, since not every measured strategy has a prediction"


def _refusals(answers: Sequence[WhatIf]) -> Iterator[str]:
    """Yield a line for each reason, with the strategies that have no prediction for it at one of the rates."""
    names: dict[str, list[str]] = {}
    for refused in dict.fromkeys(refused for answer in answers for refused in answer.unpredictable):
        names.setdefault(refused.reason, []).append(f"{refused.operator}@{refused.placement}")
    nothing_predicted = not any(answer.predictions for answer in answers)
    for reason, strategies in names.items():
        if nothing_predicted and len(names) == 1 and len(strategies) > 1:
            who = f"any of {counted(len(strategies), 'strategy')}"
        else:
            rest = [f"{len(strategies) - _NAMED} more"] if len(strategies) > _NAMED else []
            who = " and ".join(filter(None, (", ".join(strategies[:_NAMED]), *rest)))
        yield f"no prediction for {who}: {reason}"


def _table(subject: str, curves: Curves, rates: Sequence[float], answers: Sequence[WhatIf]) -> Table:
    title = f"{subject}: predicted p{curves.percentile:g} latency against {curves.link}"
    table = open_table(title=title)
    table.add_column("strategy")
    unlinked = {(curve.operator, curve.placement) for curve in curves.curves if not curve.crosses}
    for bit_per_s in rates:
        table.add_column(rate(bit_per_s), justify="right", no_wrap=True)
    columns = [{(one.operator, one.placement): one for one in answer.predictions} for answer in answers]
    fastest = [answer.predictions[0] if answer.complete else None for answer in answers]
    # By the last rate at which a strategy has a latency, which may be the only one.
    last = {name: one.estimate_s for column in columns for name, one in column.items()}
    for name in sorted(last, key=lambda name: last[name]):
        row = [column.get(name) for column in columns]
        cells = [_cell(one, best=one is best) for one, best in zip(row, fastest, strict=True)]
        star = " *" if name in unlinked else ""
        table.add_row(FoldedName(f"{name[0]}@{name[1]}{star}"), *cells)
    return table


def _cell(one: Prediction | None, *, best: bool) -> Text:
    if one is None:
        return Text("–")
    half = "" if one.low_s is None or one.high_s is None else f" ±{(one.high_s - one.low_s) / 2 / one.estimate_s:.0%}"
    shown = f"{duration(one.estimate_s)}{half}"
    return Text(shown, "bold" if best else "")


def _json(subject: str, curves: Curves, rates: Sequence[float], answers: Sequence[WhatIf]) -> dict[str, Any]:
    return {
        "subject": subject,
        "link": curves.link,
        "percentile": curves.percentile,
        "bit_per_s": curves.bit_per_s,
        "curves": [vars(curve) for curve in curves.curves],
        "crossings": [vars(crossing) for crossing in curves.crossings],
        "predictions": [
            {"bit_per_s": bit_per_s, **{name: getattr(prediction, name) for name in _REPORTED}}
            for bit_per_s, answer in zip(rates, answers, strict=True)
            for prediction in answer.predictions
        ],
        "unpredictable": [vars(strategy) for strategy in curves.unpredictable],
    }


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner whatif fashion-resnet --link edge-cloud=1mbit..200mbit -o whatif.svg"))(whatif)
