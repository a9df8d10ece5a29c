"""`runner sql`: a question to the evidence in SQL, read-only."""

import csv
import re
import sys
from collections.abc import Callable, Sequence
from itertools import count
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.errors import UnitError
from catalog.evidence.database import open_database
from catalog.evidence.user_sql import QueryLimits, QueryResult, printable, read_query
from catalog.units import parse_size, parse_wait
from runner.commands.imported_analyses import analyse_imported, lack_analyses
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, err, example, out, print_json

# In narrower columns every word would be broken, so that a row is shown with a line for each column.
_LEAST_WIDTH = 8
# rich lays out a whole table before it prints the first line.
_SHOWN = 1000
# The views and tables that hold analyses and the answers to SLOs.
_ANALYSED = re.compile(r"\b(?:ranking|pairwise|slo_status|analysis\w*)\b", re.IGNORECASE)
_LIMITS = QueryLimits()
_Number = TypeVar("_Number", int, float)

StatementArgument = Annotated[str, typer.Argument(help="One SELECT; docs/sql.md describes views and tables")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print the result as CSV on stdout")]


def sql(
    statement: StatementArgument,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    max_rows: Annotated[int, typer.Option(min=1, help="Refuse a result of more rows")] = _LIMITS.rows,
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="Refuse a larger result, such as 1g")] = "256m",
    max_time: Annotated[str, typer.Option(metavar="TIME", help="Stop a statement after so long, such as 10m")] = "60s",
) -> None:
    """Query the evidence in SQL, read-only."""
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    limits = QueryLimits(
        max_rows, _parsed(max_size, parse_size, "--max-size"), _parsed(max_time, parse_wait, "--max-time")
    )
    address = database or RunnerSettings().database
    with open_database(address, readonly=True) as opened:
        if _ANALYSED.search(statement) and lack_analyses(opened):
            # The statement never writes; what it reads has to be computed first.
            with open_database(address) as writable:
                analyse_imported(writable)
        raw = read_query(opened, statement, limits)
    result = QueryResult(raw.columns, tuple(tuple(map(printable, row)) for row in raw.rows))
    if as_json:
        names = unique_names(result.columns)
        print_json([dict(zip(names, row, strict=True)) for row in result.rows])
    elif as_csv:
        # The default of `csv` is \r\n, which other command-line tools show as part of the last field.
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(result.rows)
    else:
        out.print(_table(result) if _LEAST_WIDTH * len(result.columns) <= out.width else _by_row(result))
        if len(result.rows) > _SHOWN:
            err.print(f"{_SHOWN} of {len(result.rows)} rows are shown; --csv and --json give all")


def _parsed(text: str, parse: Callable[[object], _Number], option: str) -> _Number:
    try:
        return parse(text)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def unique_names(columns: Sequence[str]) -> list[str]:
    """Return a name for each column; a JSON object holds a name once, where a table may repeat it.

    Examples
    --------
    >>> unique_names(["id", "id", "id_2", "id"])
    ['id', 'id_3', 'id_2', 'id_4']
    """
    names: list[str] = []
    for column in columns:
        numbered = (f"{column}_{number}" for number in count(2))
        # A numbered name may be that of another column.
        names.append(next(name for name in numbered if name not in {*names, *columns}) if column in names else column)
    return names


def _table(result: QueryResult) -> Table:
    table = open_table(edges=False)
    for index, name in enumerate(result.columns):
        numeric = all(isinstance(row[index], int | float | None) for row in result.rows[:_SHOWN])
        table.add_column(Text(name), justify="right" if numeric and result.rows else "left", overflow="fold")
    for row in result.rows[:_SHOWN]:
        # `Text`, because a cell may hold what rich would take for markup.
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _by_row(result: QueryResult) -> Table:
    table = Table.grid(padding=(0, 2))
    for index, row in enumerate(result.rows[:_SHOWN]):
        if index:
            table.add_row("", "")
        for name, value in zip(result.columns, row, strict=True):
            table.add_row(Text(name), Text(_cell(value), overflow="fold"))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(
        epilog=example(
            "runner sql 'SELECT operator, placement, median_latency_s FROM leaderboard'",
            "runner sql 'SELECT * FROM percentiles' --csv > percentiles.csv",
        )
    )(sql)
