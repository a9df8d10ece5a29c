"""The command line: the application, and how it ends.

Data goes to stdout, progress and messages to stderr; exit codes are 0 (done), 1 (failed or falls short), 2 (usage).
This module imports no command: `runner --help` and shell completion answer from the table of commands.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from catalog.errors import CatalogError
from recommender.errors import RecommenderError
from runner.commands.table import LazyGroup
from runner.errors import RunnerError, explain

app = typer.Typer(
    cls=LazyGroup,
    help="Measure which operator serves best on which tier.\n\nStart with: runner plan, then runner fill-catalog",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
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
        # Imported here: pydantic-settings costs more than the whole of `runner --help`.
        from catalog.settings_file import VARIABLE

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
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def _print_error(message: str) -> None:
    from rich.markup import escape

    from runner.commands.terminal import err

    err.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)


def log_to_stderr() -> None:
    """Log warnings of ours to stderr, and none that ONNX Runtime's quantizer gives as advice."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # ONNX Runtime's quantizer logs advice through the root logger itself; ours have names of their own.
    logging.getLogger().handlers[0].addFilter(lambda record: record.name != "root")


def main() -> None:
    """Run the command line and exit with its code."""
    log_to_stderr()
    sys.exit(run())
