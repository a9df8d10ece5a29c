"""The command line: verbs over one catalog file and one database.

Data goes to stdout, progress and messages to stderr; exit codes are 0 (done), 1 (failed or falls short), 2 (usage).
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from catalog.errors import CatalogError
from catalog.settings_file import VARIABLE
from recommender.errors import RecommenderError
from runner import commands
from runner.commands.terminal import (
    err,
)
from runner.errors import RunnerError, explain

app = typer.Typer(
    help="Measure which operator serves best on which tier.\n\nStart with: runner plan, then runner fill-catalog",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
logger = logging.getLogger(__name__)


@app.callback()
def settings(
    file: Annotated[
        Path | None, typer.Option("--settings", help="File of TIERWISE_<NAME>=value lines, kept from others")
    ] = None,
) -> None:
    """Take the settings from a file, so that no password stands on the command line."""
    if file is not None:
        os.environ[VARIABLE] = str(file)


commands.register(app)


def run(arguments: Callable[[], None] = app) -> int:
    """Run the application and turn our errors into one message and an exit code."""
    try:
        arguments()
    except (RunnerError, CatalogError, RecommenderError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except OSError as error:
        logger.debug("the system refused", exc_info=True)
        err.print(f"[red]error:[/] {escape(explain(error))}", soft_wrap=True)
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def main() -> None:
    """Console entry point."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # ONNX Runtime's quantizer logs advice through the root logger itself; ours have names of their own.
    logging.getLogger().handlers[0].addFilter(lambda record: record.name != "root")
    sys.exit(run())
