"""`runner init`: a commented catalog to start from, written without a question."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
import yaml

from catalog.declaration import parse_catalog
from catalog.foreign import lack_of
from catalog.units import counted
from runner.commands.progress import shortened
from runner.commands.schema import EDITOR_LINE, SCHEMA_NAME, write_schema
from runner.commands.terminal import RunnerSettings, err, example
from runner.errors import OperatorError, RunnerError, SubjectError
from runner.graph.analysis import analyse
from runner.operators.base import listed
from runner.operators.registry import look_ahead
from runner.subjects.dataset import Task
from runner.subjects.folders import images_in
from runner.subjects.model_interface import spelled
from runner.subjects.own_model import Guess, guess_subject

_CATALOG = """\
{editor_line}
# What to compare, where, and within which budgets. `runner validate` checks this file, `runner plan` shows what
# would be measured and how long it takes, `runner fill-catalog` measures it.
version: 1

subjects:                       # a trained model, its task, and the data it is judged on
{subject}

operators:                      # a pipeline of passes, in order; add your own by name
{remarks}\
  identity: []
  quantized: [static_ptq]       # int8 weights and activations, ranges from calibration data
  early_exit: [{{early_exit: {{blocks: 2}}}}]     # without the last two of a run of identical blocks
  partition: [{{partition: {{balance: size}}}}]   # head and tail of nearly equal size
  quantized_early_exit: [static_ptq, early_exit]
  quantized_early_exit_partition: [static_ptq, early_exit, partition]

tiers:                          # the first is the client's: latency is measured from there
  mobile: {{cpus: 0.5, memory: 512m, provider: cpu}}
  edge:   {{cpus: 1,   memory: 1g,   provider: cpu}}
  cloud:  {{cpus: 2,   memory: 4g,   provider: [cuda, cpu]}}

links:                          # bandwidth for both directions, or up and down; delay where the host can emulate it
  mobile-edge: {{bandwidth: 200mbit}}
  edge-cloud:  {{bandwidth: 10mbit}}

strategies:                     # every listed operator on every listed placement
{strategies}

# Three rounds of every strategy at most, then only of those that can still prove or change an answer to the SLOs.
experiment: {{inputs: {inputs}, select: systematic, seed: 1, rounds: 3, repetitions: 1, race: true}}

slos:                           # budgets by name
{slos}
"""
# The passes of each operator above, by the placements of the strategies.
_OPERATORS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mobile, edge, cloud": {
        "identity": (),
        "quantized": ("static_ptq",),
        "early_exit": ("early_exit",),
        "quantized_early_exit": ("static_ptq", "early_exit"),
    },
    "mobile-edge, edge-cloud, mobile-cloud": {
        "partition": ("partition",),
        "quantized_early_exit_partition": ("static_ptq", "early_exit", "partition"),
    },
}
_EMBEDDED = """\
  fashion-resnet:
    model: builtin:fashion-resnet
    task: classification
    dataset: builtin:fashion"""
_SLOS = """\
  interactive: {latency: {p90: 100ms}, accuracy: {max_drop: 1.0}}
  batch: {latency: {p90: 1s}, accuracy: {max_drop: 0.5}}"""
_OWN_SLOS = """\
  interactive: {latency: {p90: 100ms}}          # with labels or masks also: accuracy: {max_drop: 1.0}
  batch: {latency: {p90: 1s}}"""
# By what the model takes and what its output is fit for: how data with a truth would be declared instead.
_JUDGED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("images", "classification"): (
        "Labels make it an accuracy (top-1, top-5). A line of the file for each picture: cat.jpg,3",
        "task: classification",
        "dataset: {{images: {data}, labels: labels.csv}}",
    ),
    ("images", "segmentation"): (
        "Masks make it an accuracy (mIoU). A mask NAME.png of class numbers for each picture. Without masks, the task",
        "alone times what a segmenter sends, a map of classes; `any` times sending all scores",
        "task: segmentation",
        "dataset: {{images: {data}, masks: masks}}",
    ),
    ("tensors", "classification"): (
        "An array `labels` of class numbers in that file makes it an accuracy (top-1, top-5):",
        "task: classification",
    ),
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]+")
_LONGEST_WORD = 60
# Of more, whose names say what they are, a comment names some.
_MOST_STATES = 4
INPUTS = 30


@dataclass(frozen=True)
class OwnModel:
    """The user's model as the catalog names it.

    `remarks` are refusals by pass; `inputs` is how many inputs there are to time with, at most those of the default.
    `task` is what it is judged as, `any` without a truth to judge by; `labels` is the file of the labels of pictures.
    """

    name: str
    path: str
    data: str
    guess: Guess
    remarks: Mapping[str, str] = field(default_factory=dict)
    inputs: int = INPUTS
    task: Task = "any"
    labels: str | None = None


def embedded_catalog() -> str:
    """Return the catalog of an embedded subject."""
    return _filled(_EMBEDDED, {}, _SLOS, INPUTS)


def own_catalog(model: OwnModel) -> str:
    """Return the catalog of the user's model; without labels it has remarks on how to add them."""
    return _filled("\n".join(_subject(model)), model.remarks, _OWN_SLOS, model.inputs)


def _filled(subject: str, refusals: Mapping[str, str], slos: str, inputs: int) -> str:
    remarks = "".join(f"  # {name} will not apply: {_one_line(text)}\n" for name, text in refusals.items())
    strategies = "\n".join(_strategies(refusals))
    return _CATALOG.format(
        editor_line=EDITOR_LINE, subject=subject, remarks=remarks, strategies=strategies, slos=slos, inputs=inputs
    )


def _strategies(refused: Collection[str]) -> Iterator[str]:
    """Yield the lines of the strategies, without the operators that have a refused pass, which a comment names."""
    left_out: list[str] = []
    for placements, operators in _OPERATORS.items():
        names = [name for name, passes in operators.items() if not set(passes) & set(refused)]
        left_out += [name for name in operators if name not in names]
        if names:
            yield f"  - {{operators: [{', '.join(names)}], placements: [{placements}]}}"
    if left_out:
        yield f"  # left out, as they will not apply (the reasons are above): {', '.join(left_out)}"


def _subject(model: OwnModel) -> list[str]:
    guess, data = model.guess, _quoted(model.data)
    lines = [f"  {_quoted(model.name)}:", f"    model: {_quoted(model.path)}"]
    lines += [f"    # takes {_one_line(model_input)}" for model_input in guess.takes]
    lines += [f"    # gives {_one_line(guess.gives)}: {_fit(guess)}"] if guess.gives else []
    unjudged = model.task == "any"
    agrees = guess.task == "classification" or guess.next_token
    remark = f"                   # {_WITHOUT_TRUTH[agrees]}" if unjudged else ""
    lines += [f"    task: {model.task}{remark}"]
    lines += [_OTHER_MEANING[guess.meaning]] if guess.meaning is not None and unjudged else []
    if guess.feeds == "images":
        labels = "" if model.labels is None else f", labels: {_quoted(model.labels)}"
        lines += [f"    dataset: {{images: {data}{labels}}}   # a folder of pictures as the model will see them"]
    else:
        named = ", ".join(f"{_quoted(name)}: {axis}" for name, axis in guess.axes.items())
        axes = f", sample_axis: {{{named}}}" if named else ""
        lines += [
            f"    dataset: {{tensors: {data}{axes}}}",
            "    # An array for each input, named like it, of N samples:",
        ]
        lines += [f"    #   {_one_line(array)}" for array in guess.arrays]
    lines += list(_input(guess))
    title, *judged = _JUDGED.get((guess.feeds, guess.task), ("",)) if unjudged else ("",)
    lines += [f"    # {title}"] if title else []
    lines += [f"    # {line.format(data=data)}" for line in judged]
    return lines + (list(_preprocess(guess)) if guess.feeds == "images" else [])


def _input(guess: Guess) -> Iterator[str]:
    """Yield the lines about what the file does not say of the inputs: shapes that it lacks, and states."""
    declared: list[str] = []
    if guess.shapes:
        shapes = [f"{_quoted(name)}: {spelled(shape)}" for name, shape in guess.shapes.items()]
        yield "    # Assumed, as the model ran on it; a word stands for any length:"
        declared.append(f"shape: {{{', '.join(shapes)}}}")
    if guess.states:
        pairs = listed(f"{state.input} ({state.output})" for state in guess.states)
        yield "    # States, each with the output that gives its next value. Samples begin with zeros for them,"
        yield f"    # unless the data have arrays of their names: {_one_line(pairs)}"
        named = ", ".join(f"{_quoted(state.input)}: {_quoted(state.output)}" for state in guess.states)
        declared += [f"states: {{{named}}}"] if len(guess.states) <= _MOST_STATES else []
    if guess.past:
        yield "    # `past` is how many tokens came before each sample; a mask and positions follow from it:"
        declared.append("past: 0")
    if declared:
        yield f"    input: {{{', '.join(declared)}}}"


def _fit(guess: Guess) -> str:
    """Say what the output is taken for; of what its shape alone does not say, also why."""
    if guess.next_token:
        return "scores of the next token"
    fit = "values, no scores of classes" if guess.meaning == "values" else _FIT[guess.task]
    return f"{fit} ({guess.reason})" if guess.reason else fit


_OTHER_MEANING = {
    "scores": "    # output: values            # if they are no scores of classes: then it is timed only",
    "values": "    # output: scores            # if they are scores of classes: then agreement is measured, too",
}
_FIT = {
    "classification": "scores of classes",
    "segmentation": "scores for every pixel",
    "any": "neither scores of classes nor a map",
}
_WITHOUT_TRUTH = {
    True: "judged by its agreement with identity, which is not an accuracy",
    False: "timed only: there is no truth to judge by",
}


def _preprocess(guess: Guess) -> list[str]:
    """Return the lines of pre-processing; a size that the model leaves free must be declared."""
    # A model of whole numbers takes pixels as they are.
    pixels = "Pixels as they are" if ": uint8 " in guess.takes[0] else "Pixels / 255"
    if guess.size is not None:
        height, width = guess.size
        return [
            f"    # {pixels}, stretched to a size that the model leaves free; mean, std, resize: docs/own-model.md",
            f"    preprocess: {{size: [{height}, {width}]}}",
        ]
    if pixels == "Pixels as they are":
        return [f"    # {pixels}, stretched to size; resize: crop or pad: docs/own-model.md"]
    return [
        f"    # {pixels}, stretched to size, unless declared. Most of torchvision's networks were trained with",
        "    # preprocess: {resize: crop, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
    ]


def _quoted(text: str) -> str:
    """Return a YAML scalar; a JSON string is one."""
    # Words such as `no` and numbers are names to us and values to YAML.
    return text if _PLAIN_NAME.fullmatch(text) and yaml.safe_load(text) == text else json.dumps(text)


def _one_line(text: str) -> str:
    """Return a text for a comment; exporters make names of hundreds of characters, of which the ends say enough."""
    return " ".join(word if len(word) <= _LONGEST_WORD else shortened(word, _LONGEST_WORD) for word in text.split())


OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where to write the catalog")]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="An ONNX file of your own to write it for", show_default=False)
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="With --model: a folder of images, or a .npz of tensors", show_default=False),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="With --data: a file with the class of each picture, cat.jpg,3", show_default=False),
]
TaskOption = Annotated[
    Task | None,
    typer.Option(
        "--task",
        help="With --data: classification, segmentation or any (default: by whether there are labels)",
        show_default=False,
    ),
]
_DEFAULT_DATA = {"images": "images", "tensors": "tensors.npz"}


def init(
    output: OutputOption = Path("strategies.yaml"),
    model: ModelOption = None,
    data: DataOption = None,
    labels: LabelsOption = None,
    task: TaskOption = None,
) -> None:
    """Write a commented catalog to start from; existing files are kept."""
    if data is not None and model is None:
        raise typer.BadParameter("it goes with --model", param_hint="--data")
    for option, value in (("--labels", labels), ("--task", task)):
        if value is not None and data is None:
            raise typer.BadParameter("it goes with --data", param_hint=option)
    own = None if model is None else own_model(model, data, output, labels=labels, task=task)
    write_catalog(embedded_catalog() if own is None else own_catalog(own), output)
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


def write_catalog(text: str, output: Path) -> None:
    """Write a catalog and its schema; an existing catalog is left alone, which is an error."""
    # What does not parse must not be written.
    parse_catalog(text, output)
    _write(text, output)
    write_schema(output.parent / SCHEMA_NAME)


def own_model(
    model: Path, data: Path | None, output: Path, *, labels: Path | None = None, task: Task | None = None
) -> OwnModel:
    """Read the model and, where its data is named, the data; paths become relative to the catalog file."""
    if not model.is_file():
        raise SubjectError(f"{lack_of('model file', model)}; allowed: an ONNX file")
    guess = guess_subject(model, kept=RunnerSettings().workdir / "models", data=data)
    _check_truth(guess, labels, task)
    # 63 characters are the most that a name in the catalog may have (`catalog.declaration`).
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.stem).strip("-._")[:63] or "mine"
    return OwnModel(
        name,
        _from(output.parent, model),
        _DEFAULT_DATA[guess.feeds] if data is None else _from(output.parent, data, mark=False),
        guess,
        _refusals(model),
        INPUTS if data is None or guess.feeds == "tensors" else _timed(data),
        task=task or ("any" if labels is None else "classification"),
        labels=None if labels is None else _from(output.parent, labels, mark=False),
    )


def _check_truth(guess: Guess, labels: Path | None, task: Task | None) -> None:
    """Raise SubjectError for labels and a task that do not go together, before anything is written."""
    if labels is not None and guess.feeds == "tensors":
        raise SubjectError("--labels goes with a folder of pictures; add an array `labels` to the .npz, and --task")
    if labels is not None and task not in (None, "classification"):
        raise SubjectError(f"--labels goes with --task classification, got {task}")
    if task == "classification" and labels is None and guess.feeds == "images":
        raise SubjectError("--task classification needs --labels FILE: a line for each picture, such as cat.jpg,3")


def _refusals(model: Path) -> dict[str, str]:
    """Return the refusals by pass; none where only a pass itself can explain why the model cannot be read."""
    try:
        return look_ahead(analyse(model)).refusals
    except OperatorError:
        return {}


def _timed(folder: Path) -> int:
    """Return how many inputs to time: the pictures of the folder, at most the default."""
    if not folder.is_dir():
        raise SubjectError(f"{lack_of('folder', folder)}; allowed: a folder with at least two image files, or a .npz")
    count = len(images_in(folder))
    if count < 2:
        raise SubjectError(
            f"{folder} holds {counted(count, 'picture')}; allowed: a folder with at least two image files"
        )
    return min(INPUTS, count)


def _from(directory: Path, path: Path, *, mark: bool = True) -> str:
    """Return the path relative to the directory of the catalog file."""
    if path.is_absolute():
        return str(path)
    # `Path.relative_to` cannot lead upwards before Python 3.12.
    relative = os.path.relpath(path, directory)
    return relative if not mark or relative.startswith("..") else f"./{relative}"


def _write(text: str, output: Path) -> None:
    try:
        # Fails where the file exists, without a moment between the look and the writing.
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
    """Add the command to an application."""
    app.command(epilog=example("runner init", "runner init -o mine.yaml", "runner init --model my.onnx --data photos"))(
        init
    )
