"""A first guess of a model's task and data, from its file and one trial run, before anything is declared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from catalog.declaration import PreprocessSpec
from runner.errors import SubjectError
from runner.subjects.dataset import Task
from runner.subjects.model_interface import ModelInput, blank_image, image_settings, read_inputs, scored_classes
from runner.subjects.trial import ModelOutput, try_out
from tierserver.encoding import write_tensors

# The size of a side that the model leaves free: the catalog declares it, and the user can change it.
_USUAL_SIDE = 224


@dataclass(frozen=True)
class Guess:
    """A model's likely task and data.

    Attributes
    ----------
    task
        What its output is fit for; `any` if it is neither scores of classes nor a map of them.
    feeds
        Whether its one input takes pictures.
    size
        Height and width to declare, if the model leaves one free.
    takes, gives
        Inputs and first output, in words; `gives` is empty if the trial did not get that far.
    """

    task: Task
    feeds: Literal["images", "tensors"]
    size: tuple[int, int] | None
    takes: tuple[str, ...]
    gives: str


def guess_subject(path: Path, *, kept: Path) -> Guess:
    """Read a model file and run it once on blanks; `kept` is the folder that keeps the answer.

    Raises
    ------
    SubjectError
        For a file that is not a model, or one that this machine's runtime does not run.
    """
    inputs = read_inputs(path)
    size = _free_size(inputs)
    try:
        settings = image_settings(path, inputs, PreprocessSpec(size=size))
    except SubjectError:
        output = _try_tensors(path, inputs, kept)
        task: Task = "classification" if output and scored_classes(output) else "any"
        return Guess(task, "tensors", None, tuple(map(str, inputs)), _shown(output))
    output = try_out(path, blank_image(settings, inputs[0].dtype), kept)
    plane = f"{settings.layout}, {settings.color}, {settings.height} x {settings.width}"
    return Guess(_task(output), "images", size, (f"{inputs[0]} ({plane})",), _shown(output))


def _free_size(inputs: tuple[ModelInput, ...]) -> tuple[int, int] | None:
    """Return a size to declare if the only input looks like pictures of free size."""
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or None not in shape[1:]:
        return None
    height, width = shape[1:3] if shape[3] in (1, 3) and shape[1] not in (1, 3) else shape[2:4]
    return (height or _USUAL_SIDE, width or _USUAL_SIDE) if None in (height, width) else None


def _try_tensors(path: Path, inputs: tuple[ModelInput, ...], kept: Path) -> ModelOutput | None:
    """Return the output for zeros; None if free dimensions leave open whether zeros of size one make sense."""
    blanks = [np.zeros(tuple(size or 1 for size in model_input.shape), model_input.dtype) for model_input in inputs]
    try:
        return try_out(path, write_tensors(blanks), kept)
    except SubjectError:
        if all(None not in model_input.shape for model_input in inputs):
            raise
        return None


def _task(output: ModelOutput) -> Task:
    if scored_classes(output):
        return "classification"
    maps = len(output.shape) == 4 and np.dtype(output.dtype).kind == "f" and sum(size > 1 for size in output.shape) > 1
    return "segmentation" if maps else "any"


def _shown(output: ModelOutput | None) -> str:
    return f"{output.name}: {output.dtype} {list(output.shape)}" if output else ""
