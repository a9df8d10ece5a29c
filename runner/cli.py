"""The command line: the table of its commands, the application, and how it ends.

Data goes to stdout, progress and messages to stderr; exit codes are 0 (done), 1 (failed or falls short), 2 (usage).
The table has for each command its name, its panel in `--help`, its help line and the module that implements it.
`runner --help` and the completion of command names read it only. A module is imported when its command runs or when the
help of that command is requested, so that no command pays for the libraries of another.
"""

import gc
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from catalog.errors import CatalogError
from catalog.foreign import printable
from catalog.settings_file import VARIABLE
from recommender.errors import RecommenderError
from runner.errors import RunnerError, explain, memory_advice


@dataclass(frozen=True)
class CommandEntry:
    """One command as `runner --help` lists it; `summary` equals the first paragraph of the function's docstring."""

    name: str
    panel: str
    module: str
    summary: str


# `--help` shows panels in the order of their first command, so the table's order is that of a first use.
_START, _MEASURE, _ASK, _EVIDENCE, _MODELS = "Start", "Measure", "Ask", "Evidence", "Models"

COMMANDS = (
    CommandEntry("init", _START, "init", "Write a commented catalog to start from; existing files are kept."),
    CommandEntry(
        "doctor", _START, "doctor", "Show what the machine of the tiers can do, and how to get what it lacks."
    ),
    CommandEntry("schema", _START, "schema", "Print the JSON schema of the catalog file, for editors."),
    CommandEntry("validate", _START, "validate", "Check the catalog file and show each error with its line."),
    CommandEntry("plan", _MEASURE, "plan", "Show what is missing, why, and how long measuring it takes."),
    CommandEntry("fill-catalog", _MEASURE, "fill_catalog", "Measure what is missing and store it."),
    CommandEntry("status", _MEASURE, "status", "Count the evidence, and by kind what is wrong with it."),
    CommandEntry("verify", _MEASURE, "status", "Judge every stored measurement again by every rule."),
    CommandEntry(
        "selftest", _MEASURE, "selftest", "Measure one strategy under several names, as a test of the analysis."
    ),
    CommandEntry("testbed", _MEASURE, "testbed", "Serve a testbed to fills, or list what is served."),
    CommandEntry("clean", _MEASURE, "fill_catalog", "Remove what a killed run left behind."),
    CommandEntry(
        "recommend",
        _ASK,
        "question",
        "Recommend an operator and a placement for given budgets, and say how sure that is.",
    ),
    CommandEntry("slo", _ASK, "slo", "Check every declared SLO against the evidence of every subject."),
    CommandEntry("whatif", _ASK, "whatif", "Predict the latency of every strategy for another link bandwidth."),
    CommandEntry("leaderboard", _ASK, "leaderboard", "Print every strategy with evidence, fastest first."),
    CommandEntry("rank", _ASK, "rank", "Rank strategies; those that share a letter are not shown to differ."),
    CommandEntry("report", _ASK, "report", "Write a report as one self-contained HTML page."),
    CommandEntry("sql", _EVIDENCE, "sql", "Query the evidence in SQL, read-only."),
    CommandEntry("export", _EVIDENCE, "exchange", "Write all evidence to one file that `runner import` reads."),
    CommandEntry("import", _EVIDENCE, "exchange", "Store evidence from files."),
    CommandEntry("forget", _EVIDENCE, "exchange", "Remove the evidence of an imported file."),
    CommandEntry("compare", _EVIDENCE, "compare", "Compare two databases, strategy by strategy."),
    CommandEntry("operators", _MODELS, "operators", "Analyse where a model can be shortened or cut."),
    CommandEntry("apply", _MODELS, "operators", "Apply an operator to a model and write the verified files."),
    CommandEntry("bundle", _MODELS, "bundle", "Write the recommended strategy to a directory, ready to deploy."),
)


class LazyGroup(TyperGroup):
    """The commands of the table: listed without an import, loaded when one is resolved."""

    def __init__(self, **attributes: Any) -> None:
        listed = {
            entry.name: TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel) for entry in COMMANDS
        }
        super().__init__(**{**attributes, "commands": listed})

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters of all commands, whose values have names."""
        parameters = super().get_params(ctx)
        _name_values(parameters)
        return parameters

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Return what the base class returns; its errors can be printed."""
        with _printable_usage():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command as the base class does; its errors of usage can be printed."""
        with _printable_usage():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return what the base class returns, with the loaded command in place of the listed one."""
        name, listed, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in COMMANDS if listed is not None and entry.name == listed.name), None)
        return name, listed if entry is None else load_command(entry), rest


@contextmanager
def _printable_usage() -> Iterator[None]:
    """Leave out of an error of usage what a terminal would obey: it is printed by Typer, and names what was typed."""
    try:
        yield
    except _USAGE_ERROR as error:
        wrong: Any = error
        wrong.message = printable(wrong.message)
        raise


def load_command(entry: CommandEntry) -> Any:
    """Import the module of a command and return the command, with its parameters and its whole help text."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
    import_module(f"runner.commands.{entry.module}").add_to(app)
    # `get_command` would turn an application of one command into that command, without a name.
    command = get_group(app).commands[entry.name]
    for parsed in (command, *getattr(command, "commands", {}).values()):
        # A terminal breaks lines where its width does, not where the source file did.
        parsed.help = _LINE_BREAK.sub(" ", parsed.help or "")
        _name_values(parsed.get_params(typer.Context(parsed)))
    return command


# Typer prints Python's types, such as `list[str]`, and `bool` after a switch, which takes no value.
_VALUES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH", "bool": ""}


def _name_values(parameters: Iterable[Any]) -> None:
    """Name the values of options and arguments as command lines do; those that are named or listed stay."""
    for parameter in parameters:
        described = getattr(parameter, "type_descriptor", None)
        # Typer before 0.29 has other names for types, which need no change.
        if described is None or described.is_choice:
            continue
        name = _VALUES.get(re.sub(r"^list\[(\w+)\]$", r"\1", parameter.bare_type().rpartition(".")[2]))
        if name is None:
            continue
        if parameter.param_type_name == "option":
            parameter.metavar = name if parameter.metavar is None else parameter.metavar
        else:
            # Its metavar is its own name, so that the type beside it has to be printed otherwise.
            parameter.display_type_rich = lambda ctx, name=name: name


# Within a paragraph.
_LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n)")

app = typer.Typer(
    cls=LazyGroup,
    help="Measure which operator serves best on which tier.\n\nStart with: runner init, then runner fill-catalog",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# Typer has Click's classes of its own since a version, so that this one has no fixed place to import it from.
_USAGE_ERROR: type[Exception] = typer.BadParameter.mro()[1]
logger = logging.getLogger(__name__)


@app.callback()
def settings(
    file: Annotated[
        Path | None,
        typer.Option("--settings", help="File of TIERWISE_<NAME>=value lines that only its owner can read"),
    ] = None,
) -> None:
    """Take the settings from a file, so that no password stands on the command line."""
    if file is not None:
        os.environ[VARIABLE] = str(file)


def run(arguments: Callable[[], None] = app) -> int:
    """Run the application and turn the errors of this project into one message and an exit code."""
    try:
        arguments()
    except (RunnerError, CatalogError, RecommenderError) as error:
        _print_error(str(error))
        return 1
    except OSError as error:
        logger.debug("the system refused", exc_info=True)
        _print_error(explain(error))
        return 1
    except UnicodeEncodeError as error:
        logger.debug("a text that no file or engine takes", exc_info=True)
        _print_error(_not_utf8(error))
        return 1
    except (MemoryError, ImportError) as error:
        advice = memory_advice(error)
        if advice is None and isinstance(error, ImportError):
            raise
        _print_error(advice or "there is not enough memory here; end other programs, or use a larger machine")
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def _not_utf8(error: UnicodeEncodeError) -> str:
    """Explain that a name cannot be passed on: its bytes are no UTF-8, which ONNX, JSON and databases require."""
    return (
        f"{error.object!r} cannot be written as {error.encoding}; allowed: names of files and folders in UTF-8. Rename "
        "it, then give the same command again"
    )


def _print_error(message: str) -> None:
    from catalog.console import labelled
    from runner.commands.terminal import err

    err.print(labelled("error:", "red", message), soft_wrap=True)


def log_to_stderr() -> None:
    """Log warnings of ours to stderr, and none that ONNX Runtime's quantizer gives as advice."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger().handlers[0].setFormatter(_PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    # ONNX Runtime's quantizer logs advice through the root logger itself; ours have names of their own.
    logging.getLogger().handlers[0].addFilter(lambda record: record.name != "root")


class _PrintableFormatter(logging.Formatter):
    """Formats a record without what a terminal would obey: a message may name what others wrote."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is escaped: a figure with `±` must not end a command.
            stream.reconfigure(errors="backslashreplace")
    # Modules and rows stay until the command ends: to search them for garbage at every 700 new objects takes a tenth of
    # a short command's time, and frees nothing.
    gc.set_threshold(100_000, 20, 20)
    log_to_stderr()
    sys.exit(run())
