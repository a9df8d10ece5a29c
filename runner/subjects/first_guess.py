"""What a first catalog may say of a model before anyone declares anything: from the file, and one trial run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from catalog.declaration import PreprocessSpec
from runner.errors import SubjectError
from runner.subjects.dataset import Task
from runner.subjects.model_interface import Taken, blank_image, image_settings, read_inputs, scored_classes
from runner.subjects.trial import Given, try_out
from tierserver.encoding import write_tensors

# What a side that the model leaves free becomes: the catalog declares it, for the reader to change.
_USUAL_SIDE = 224


@dataclass(frozen=True)
class Guess:
    """A model's likely task and data.

    Attributes
    ----------
    task
        What its output is fit for; `any` where it is neither scores of classes nor a map of them.
    feeds
        Whether its one input takes pictures.
    size
        Height and width to declare, where the model leaves one free.
    takes, gives
        Inputs and first output, in words; `gives` is empty where the trial did not get that far.
    """

    task: Task
    feeds: Literal["images", "tensors"]
    size: tuple[int, int] | None
    takes: tuple[str, ...]
    gives: str


def guess_subject(path: Path, *, kept: Path) -> Guess:
    """Look at a model file and run it once on blanks; `kept` is where the answer stays.

    Raises
    ------
    SubjectError
        For a file that is no model, or one that this machine's runtime does not run.
    """
    inputs = read_inputs(path)
    size = _free_size(inputs)
    try:
        settings = image_settings(path, inputs, PreprocessSpec(size=size))
    except SubjectError:
        given = _try_tensors(path, inputs, kept)
        task: Task = "classification" if given and scored_classes(given) else "any"
        return Guess(task, "tensors", None, tuple(map(str, inputs)), _shown(given))
    given = try_out(path, blank_image(settings, inputs[0].dtype), kept)
    plane = f"{settings.layout}, {settings.color}, {settings.height} x {settings.width}"
    return Guess(_task(given), "images", size, (f"{inputs[0]} ({plane})",), _shown(given))


def _free_size(inputs: tuple[Taken, ...]) -> tuple[int, int] | None:
    """A size to declare, where the only input looks like pictures of no size of their own."""
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or None not in shape[1:]:
        return None
    height, width = shape[1:3] if shape[3] in (1, 3) and shape[1] not in (1, 3) else shape[2:4]
    return (height or _USUAL_SIDE, width or _USUAL_SIDE) if None in (height, width) else None


def _try_tensors(path: Path, inputs: tuple[Taken, ...], kept: Path) -> Given | None:
    """The output for zeros; None where free dimensions leave open whether zeros of size one make sense."""
    blanks = [np.zeros(tuple(size or 1 for size in model_input.shape), model_input.dtype) for model_input in inputs]
    try:
        return try_out(path, write_tensors(blanks), kept)
    except SubjectError:
        if all(None not in model_input.shape for model_input in inputs):
            raise
        return None


def _task(given: Given) -> Task:
    if scored_classes(given):
        return "classification"
    maps = len(given.shape) == 4 and np.dtype(given.dtype).kind == "f" and sum(size > 1 for size in given.shape) > 1
    return "segmentation" if maps else "any"


def _shown(given: Given | None) -> str:
    return f"{given.name}: {given.dtype} {list(given.shape)}" if given else ""
