"""`python -m runner.study build DIR`: build the study's ONNX files, to inspect or to try operators on."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from catalog.console import Console, labelled
from catalog.units import duration, size
from runner.errors import RunnerError, SubjectError
from runner.study.files import DEFAULT_FILES, FILES, RANDOM
from runner.study.files import build as build_file

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
err = Console(stderr=True)


class Weights(StrEnum):
    """The origin of a model's weights."""

    RANDOM = "random"
    PRETRAINED = "pretrained"


@app.callback()
def main() -> None:
    """Build the four architectures of the study as ONNX files."""


@app.command(epilog="[dim]Example:[/] python -m runner.study build models duc")
def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go")],
    subjects: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(FILES)}; default: the first 4")] = None,
    weights: Annotated[Weights, typer.Option(help="Random ones need no network")] = Weights.RANDOM,
) -> None:
    """Write SUBJECT.onnx for each subject. All but duc need the extra `torch`."""
    chosen = subjects or list(DEFAULT_FILES)
    unknown = [name for name in chosen if name not in FILES]
    if unknown:
        raise SubjectError(f"unknown subject {unknown[0]!r}; allowed: {', '.join(FILES)}")
    if weights is Weights.PRETRAINED and "duc" in chosen:
        others = " ".join(name for name in chosen if name != "duc") or "resnet resnext fcn"
        raise SubjectError(
            "duc has no pretrained weights to build from: the published file is ResNet101-DUC-7.onnx of the ONNX model "
            f"zoo (in a catalog: `model: study:duc@FILE`). Name the others: {others}"
        )
    for name in chosen:
        started, target, model = time.monotonic(), directory / f"{name}.onnx", FILES[name].torchvision
        build_file(FILES[name], model.weights if model and weights is Weights.PRETRAINED else RANDOM, target)
        took_s = time.monotonic() - started
        err.print(f"{target}: {size(target.stat().st_size)} in {duration(took_s)}")


def run() -> int:
    """Run the command and turn our errors into one message and an exit code."""
    try:
        app()
    except RunnerError as error:
        err.print(labelled("error:", "red", str(error)))
        return 1
    except SystemExit as end:
        # Typer has printed its message already and leaves only the exit code.
        return end.code if isinstance(end.code, int) else 0
    return 0


if __name__ == "__main__":
    sys.exit(run())
