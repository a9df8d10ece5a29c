"""`runner init`: a commented catalog to start from, written without a question."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from catalog.declaration import parse_catalog
from runner.commands.first_catalog import INPUTS, OwnModel, embedded_catalog, own_catalog
from runner.commands.schema import SCHEMA_NAME, write_schema
from runner.commands.terminal import err, example
from runner.errors import OperatorError, RunnerError, SubjectError
from runner.graph import analyse
from runner.operators.prospects import look_ahead
from runner.settings import RunnerSettings
from runner.subjects.first_guess import guess_subject
from runner.subjects.folders import images_in

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where to write the catalog")]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="An ONNX file of your own to write it for", show_default=False)
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="With --model: a folder of images, or a .npz of tensors", show_default=False),
]
_DEFAULT_DATA = {"images": "images", "tensors": "tensors.npz"}


def init(output: OutputOption = Path("strategies.yaml"), model: ModelOption = None, data: DataOption = None) -> None:
    """Write a commented catalog and its schema; what exists is left alone."""
    if data is not None and model is None:
        raise typer.BadParameter("it goes with --model", param_hint="--data")
    own = None if model is None else _look_at(model, data, output)
    text = embedded_catalog() if own is None else own_catalog(own)
    parse_catalog(text, output)
    _write(text, output)
    write_schema(output.parent / SCHEMA_NAME)
    option = "" if output == Path("strategies.yaml") else f" -c {output}"
    lines = [f"written: {output} and {output.parent / SCHEMA_NAME}", "next:"]
    if own is not None and data is None:
        lines.append(f"  put data at {output.parent / own.data}, or name yours in {output}")
    commands = {
        "runner doctor": "what this host can do",
        f"runner plan{option}": "what would be measured, and how long it takes",
        f"runner fill-catalog{option}": "measure it",
        "recommender": "answer questions about it",
    }
    width = max(map(len, commands))
    lines += [f"  {command:{width}}  {does}" for command, does in commands.items()]
    err.print("\n".join(lines), highlight=False, soft_wrap=True)


def _look_at(model: Path, data: Path | None, output: Path) -> OwnModel:
    """Read the model and whatever of its data is named."""
    if not model.is_file():
        raise SubjectError(f"there is no model file {model}; allowed: an ONNX file")
    guess = guess_subject(model, kept=RunnerSettings().workdir / "models")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.stem).strip("-._")[:63] or "mine"
    return OwnModel(
        name,
        _from(output.parent, model),
        _DEFAULT_DATA[guess.feeds] if data is None else _from(output.parent, data, mark=False),
        guess,
        _refusals(model),
        INPUTS if data is None or guess.feeds == "tensors" else _timed(data),
    )


def _refusals(model: Path) -> dict[str, str]:
    """By pass; none for a model that only the passes' own messages can explain."""
    try:
        return look_ahead(analyse(model)).refusals
    except OperatorError:
        return {}


def _timed(folder: Path) -> int:
    """As many inputs as the folder has pictures, within the default."""
    found = len(images_in(folder))
    if found < 2:
        raise SubjectError(f"{folder} holds {found} picture(s); allowed: a folder with at least two image files")
    return min(INPUTS, found)


def _from(directory: Path, path: Path, *, mark: bool = True) -> str:
    """The path as the catalog file's directory sees it."""
    if path.is_absolute():
        return str(path)
    relative = os.path.relpath(path, directory)
    return relative if not mark or relative.startswith("..") else f"./{relative}"


def _write(text: str, output: Path) -> None:
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunnerError(
            f"{output} exists and is left alone; choose another name with --output, or check it with: "
            f"runner validate -c {output}"
        ) from None
    except OSError as error:
        raise RunnerError(f"cannot write {output}: {error.strerror}; choose another place with --output") from error


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog=example("runner init", "runner init -o mine.yaml", "runner init --model my.onnx --data photos"))(
        init
    )
