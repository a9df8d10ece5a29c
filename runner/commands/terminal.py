"""What the commands of this package share: where they print, their settings, and the options that all of them have."""

import csv
import io
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.console import Console, stdout_width
from catalog.errors import UnitError
from catalog.foreign import printable, printable_json
from catalog.settings_file import named_settings
from catalog.units import parse_percentile
from runner.errors import RunnerError

CatalogOption = Annotated[Path | None, typer.Option("--catalog", "-c", help="Catalog file (default strategies.yaml)")]
LauncherOption = Annotated[str, typer.Option("--launcher", help="auto, docker or process")]
ScaleOption = Annotated[str, typer.Option("--scale", help="Run all CPUs and links at this common factor, e.g. 1/8")]


def percentile_parser(text: str | float) -> float:
    """Read the percentile of an option: `90`, `p90` and `0.9` are p90."""
    try:
        return parse_percentile(text)
    except UnitError as error:
        raise typer.BadParameter(str(error)) from error


def percentile_option(text: str) -> Any:
    """Return the option `--percentile` of a command; its help begins with the text."""
    return typer.Option("--percentile", parser=percentile_parser, metavar="P", help=f"{text}; 90, p90 and 0.9 are p90")


def testbeds_option(text: str, *, panel: str | None = None) -> Any:
    """Return the option `--on`, for testbeds (`separate_names`)."""
    metavar = "TESTBED[,TESTBED]"
    return typer.Option("--on", metavar=metavar, help=text, rich_help_panel=panel, show_default=False)


def scheduler_option(text: str, *, panel: str | None = None) -> Any:
    """Return the option `--scheduler`, for the address of a Dask scheduler."""
    return typer.Option("--scheduler", metavar="URL", help=text, rich_help_panel=panel, show_default=False)


# Our tables fit 100 columns.
out = Console(width=stdout_width(piped=100))
# A log is searched by line, so nothing is wrapped there.
err = Console(stderr=True, soft_wrap=not sys.stderr.isatty())

DatabaseOption = Annotated[
    str | None, typer.Option("--database", "-d", help="SQLite file or database URL (default tierwise.db)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print the rows as CSV on stdout")]


def separate_names(values: Iterable[str] | None) -> list[str]:
    """Return the names in an option that is repeated, or whose names are separated by commas.

    Examples
    --------
    >>> separate_names(["lab-1, lab-2", "phone"]), separate_names(None)
    (['lab-1', 'lab-2', 'phone'], [])
    """
    return [name.strip() for text in values or () for name in text.split(",") if name.strip()]


def example(*commands: str) -> str:
    """Return the examples at the end of a command's help, one per line."""
    return "\n\n".join(f"[dim]Example:[/] {command}" for command in commands)


def print_json(value: Any) -> None:
    """Print a value as JSON for other programs; what a terminal would obey is escaped in it."""
    print(printable_json(json.dumps(value, indent=2, default=str, ensure_ascii=False)))


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV; the keys of the first name the columns, and no rows print nothing."""
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # Another program gets every character; a terminal would obey some.
    sys.stdout.write(printable(text.getvalue()) if sys.stdout.isatty() else text.getvalue())


def nothing_of(subject: str | None, subjects: Collection[str], lack: str) -> RunnerError:
    """Return the error of a command that finds no evidence to show: no such subject, or `lack`."""
    if subject is None or subject in subjects:
        return RunnerError(f"{lack}; measure some with: runner fill-catalog")
    return RunnerError(f"there is no subject {subject!r}; known: {', '.join(sorted(subjects)) or 'none'}")


def print_lacks(lacks: Mapping[str, Sequence[str]]) -> None:
    for title, reasons in lacks.items():
        out.print(title, highlight=False)
        for reason in reasons:
            out.print(f"  - {reason}", soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class RunnerSettings:
    """Defaults of the command line; every one can be set as `TIERWISE_<NAME>` or by an option.

    They are texts and paths, which need no check; the library that checks the settings of the service takes longer to
    import than many commands take.
    """

    catalog: Path = Path("strategies.yaml")
    # A URL may hold a password, and settings are printed in logs and tracebacks.
    database: str = field(default="tierwise.db", repr=False)
    workdir: Path = Path(".tierwise")
    # Of the machine, not of the user: a runner of another user must not measure at the same time.
    locks: Path = Path("/tmp/tierwise-locks")
    base_image: str | None = None
    # A secret, and settings are printed in logs and tracebacks.
    tier_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Put what is set in the place of the defaults."""
        named = named_settings()
        for setting in fields(self):
            if setting.name in named:
                value = named[setting.name]
                # The dataclass is frozen for its users alone.
                object.__setattr__(self, setting.name, Path(value) if isinstance(setting.default, Path) else value)
