"""What the commands of this package share: where they print, and the options that all of them have."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

# A pipe has no width of its own; our tables fit 100 columns.
out = Console(width=None if sys.stdout.isatty() else 100)
err = Console(stderr=True, soft_wrap=not sys.stderr.isatty())

DatabaseOption = Annotated[
    str | None, typer.Option("--database", "-d", help="SQLite file or database URL (default tierwise.db)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print the rows as CSV on stdout")]


def example(*commands: str) -> str:
    """The examples at the end of a command's help, each on a line of its own."""
    return "\n\n".join(f"[dim]Example:[/] {command}" for command in commands)


def print_json(value: Any) -> None:
    """Data for other programs."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows for a spreadsheet; the first names the columns."""
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
