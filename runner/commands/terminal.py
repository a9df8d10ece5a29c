"""What the commands of this package share: where they print, and the options that all of them have."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from catalog.declaration import Catalog, load_catalog
from catalog.evidence import Database, open_database
from runner.launchers import Selection
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.tiers import Scale, check_delays, check_host
from runner.settings import RunnerSettings

CatalogOption = Annotated[Path | None, typer.Option("--catalog", "-c", help="Catalog file (default strategies.yaml)")]


LauncherOption = Annotated[str, typer.Option("--launcher", help="auto, docker or process")]


ScaleOption = Annotated[str, typer.Option("--scale", help="Run all CPUs and links at this common factor, e.g. 1/8")]


def _settings() -> RunnerSettings:
    return RunnerSettings()


def _catalog(path: Path | None) -> tuple[Catalog, Path]:
    chosen = path or _settings().catalog
    return load_catalog(chosen), chosen.resolve().parent


def _database(url: str | None, *, create: bool = False) -> Database:
    return open_database(url or _settings().database, create=create)


def _run_context(catalog: Catalog, base: Path, selection: Selection, scale: str) -> RunContext:
    parsed = Scale.parse(scale)
    host = selection.launcher.host()
    check_host(catalog, host, parsed)
    check_delays(catalog, selection.launcher)
    return RunContext(catalog, base, selection.launcher.name, parsed, _settings().workdir, host=host)


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
