"""`model: ./my.onnx`: the data and the metric of a user's own model, read or guessed from its file unless declared."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from catalog.declaration import PreprocessSpec, SubjectSpec
from catalog.units import size as size_text
from runner.errors import SubjectError
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import read_model
from runner.graph.runtime import Shape
from runner.graph.states import State
from runner.graph.tensor_trial import counts_samples
from runner.subjects.agreement import MOST_JUDGED, AgreeingTensors, AgreementLayout, Predictor
from runner.subjects.dataset import Dataset, Metric, MissingFile, Subject, Task
from runner.subjects.folders import FolderDataset, FolderLayout
from runner.subjects.layouts.own import Images, MaskedImages, check_picture
from runner.subjects.model_interface import (
    AS_THEY_ARE,
    ModelInput,
    ModelOutput,
    OutputMeaning,
    blank_image,
    guess_count,
    guess_output,
    image_settings,
    judging,
    needed_classes,
    next_token,
    read_inputs,
    scored_classes,
    top_scores,
    try_out,
)
from runner.subjects.tensors import SampleAxis, TensorDataset, array_shape, usual_axis
from runner.subjects.user_files import user_path
from tierserver.encoding import write_tensors
from tierserver.messages import Preprocess


@dataclass(frozen=True)
class PictureCheck:
    """A source that builds nothing but checks the pictures; `kept` remembers those that passed.

    `timed` is where pictures are sent from without regard to labels, if that is another layout.
    """

    layout: FolderLayout
    judged: bool
    kept: Path
    timed: FolderLayout | None = None

    def absent(self) -> str | None:
        return None

    def prepare(self) -> None:
        """Decode everything; raise SubjectError for the first file that cannot be used."""
        judged = self.layout.validation()
        pictures = judged if self.timed is None else self.timed.validation()
        if not judged:
            raise SubjectError(f"{self.layout.root} holds no picture that is used; expected {self.layout.expected}")
        labels = self.layout.labels() if self.judged else {}
        # With the time, because a picture that was repaired in place may keep its size.
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in pictures]
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in labels.items()}
        key = hashlib.sha256(json.dumps([self.layout.kind, stats, digests], sort_keys=True).encode()).hexdigest()
        marker = self.kept / "looked-at" / key
        if marker.is_file():
            return
        _check_pictures(pictures)
        # Iterating over the truth is the check: it decodes every mask.
        for _ in self.layout.truth(judged).values if self.judged else ():
            pass
        # A marker says that everything passed.
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


def _check_pictures(pictures: Sequence[Path]) -> None:
    """Raise SubjectError for the files that no tier could decode, all of them at once."""
    unusable: list[SubjectError] = []
    for path in pictures:
        try:
            check_picture(path)
        except SubjectError as error:
            unusable.append(error)
    if unusable:
        more = f" ({len(unusable) - 1} more cannot be used)" if len(unusable) > 1 else ""
        raise SubjectError(f"{unusable[0]}{more}") from unusable[0]


def own_subject(name: str, spec: SubjectSpec, *, base: Path, kept: Path, labels_apart: bool = False) -> Subject:
    """Return a subject from a model file; `kept` is the folder that keeps the answer of its trial run.

    With `labels_apart`, what is timed and calibrated with does not depend on the labels.

    Raises
    ------
    SubjectError
        For a file that is not a model this machine runs, or that does not fit the declared data or pre-processing.
    """
    path = user_path(base, spec.model)
    if isinstance(spec.dataset, str):
        raise SubjectError(
            f"dataset {spec.dataset!r} does not go with your own model; allowed: {{images: DIR, labels: "
            "FILE.csv}}, "
            "{images: DIR, masks: DIR}, {images: DIR}, {tensors: FILE.npz}"
        )
    if not path.is_file():
        # Never read: the source says first that the model is missing.
        nothing = FolderDataset(Images(base), judged=False)
        return Subject(name, spec.task, path, 0, {}, {}, nothing, source=MissingFile(path))
    inputs = read_inputs(path, declared=spec.input)
    if spec.dataset.tensors is not None:
        return _of_tensors(name, spec, path, inputs, base=base, kept=kept, labels_apart=labels_apart)
    return _of_images(name, spec, path, inputs, base=base, kept=kept, labels_apart=labels_apart)


def _of_tensors(
    name: str,
    spec: SubjectSpec,
    path: Path,
    inputs: tuple[ModelInput, ...],
    *,
    base: Path,
    kept: Path,
    labels_apart: bool,
) -> Subject:
    assert not isinstance(spec.dataset, str)
    if spec.task == "segmentation":
        raise SubjectError("task `segmentation` needs images with masks; allowed for tensors: classification, any")
    if spec.preprocess is not None:
        raise SubjectError("tensors go into the model as they are; remove `preprocess`, or give images")
    file = user_path(base, spec.dataset.tensors or "")
    dataset = TensorDataset(file, inputs, labels_apart=labels_apart, declared=spec.dataset.sample_axis)
    # Without a sample there is nothing to try the model with; `absent` says what to do.
    if dataset.absent():
        return Subject(name, spec.task, path, 0, AS_THEY_ARE, AS_THEY_ARE, dataset)
    output = _try_sample(path, dataset, kept)
    judged = _judged_output(path, inputs)
    place: Mapping[str, object] = {} if judged is None else {"output": judged}
    if spec.task == "classification":
        classes = needed_classes(output, path)
        labels = dataset.labels
        if labels is None:
            raise SubjectError(f"{dataset.file} has no array `labels`; add it, or declare `task: any`")
        if labels.min() < 0 or labels.max() >= classes:
            raise SubjectError(
                f"{dataset.file}: labels go from {labels.min()} to {labels.max()}; allowed: 0 to {classes - 1}, the "
                "classes of the model's output"
            )
        return Subject(name, spec.task, path, classes, AS_THEY_ARE, {**top_scores(classes), **place}, dataset)
    use = next_token(inputs, output, spec.output) or judging("any", output, path, spec.output)
    said, post = use.assumption, {**use.postprocess, **(place if use.classes else {})}
    if not use.classes:
        return Subject(name, "any", path, 0, AS_THEY_ARE, post, dataset, metric=None, assumption=said)
    agreeing = AgreeingTensors(dataset, Predictor(path, model_sha256(path), AS_THEY_ARE, post))
    return Subject(name, "any", path, use.classes, AS_THEY_ARE, post, agreeing, metric="agreement", assumption=said)


def _try_sample(path: Path, dataset: TensorDataset, kept: Path) -> ModelOutput:
    """Run the model on the first sample; an error says how the first axis of arrays was read, if that may be wrong."""
    try:
        return try_out(path, dataset.sample(0), kept, output=_judged_output(path, dataset.inputs))
    except SubjectError as error:
        remark = dataset.batch_remark()
        if remark is None:
            raise
        raise SubjectError(f"{error}. {remark}") from error


def _judged_output(path: Path, inputs: Sequence[ModelInput]) -> str | None:
    """Return the first output that is no state; None where it is the first of all."""
    states = {model_input.state.output for model_input in inputs if model_input.state is not None}
    if not states:
        return None
    names = [value.name for value in read_model(path).graph.output]
    judged = next((name for name in names if name not in states), None)
    if judged is None:
        raise SubjectError(
            f"{path.name}: all outputs ({', '.join(names)}) are declared as next values of states; leave that of the "
            "result out of input: states"
        )
    return None if judged == names[0] else judged


def _of_images(
    name: str,
    spec: SubjectSpec,
    path: Path,
    inputs: tuple[ModelInput, ...],
    *,
    base: Path,
    kept: Path,
    labels_apart: bool,
) -> Subject:
    settings = image_settings(path, inputs, spec.preprocess or PreprocessSpec())
    output = try_out(path, blank_image(settings, inputs[0].dtype), kept)
    use = judging(spec.task, output, path, spec.output)
    layout, metric = _layout(spec, path, base, settings, use.classes, use.postprocess, output)
    timed = Images(layout.root) if labels_apart else None
    # A user's folder may hold fewer pictures than a pass calibrates with.
    dataset: Dataset = FolderDataset(
        layout, judged=metric is not None, few=True, timed=timed, at_most=MOST_JUDGED if metric == "agreement" else None
    )
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.to_json().items()}
    task: Task = "any" if metric == "agreement" else spec.task
    source = PictureCheck(layout, judged=metric == "accuracy", kept=kept, timed=timed)
    return Subject(
        name,
        task,
        path,
        use.classes,
        shown,
        use.postprocess,
        dataset,
        source=source,
        metric=metric,
        assumption=use.assumption,
    )


def _layout(
    spec: SubjectSpec,
    path: Path,
    base: Path,
    settings: Preprocess,
    classes: int,
    post: Mapping[str, object],
    output: ModelOutput,
) -> tuple[FolderLayout, Metric]:
    files = spec.dataset
    assert not isinstance(files, str) and files.images is not None
    images = user_path(base, files.images)
    if spec.task == "any":
        if files.labels or files.masks:
            raise SubjectError(
                "task `any` has no accuracy, so its dataset has neither `labels` nor `masks`; remove them"
            )
        if post["kind"] != "top_k":
            return Images(images), None
        return AgreementLayout(Images(images), _predictor(path, settings, post)), "agreement"
    if spec.task == "classification":
        if files.labels is None:
            raise SubjectError(
                "the dataset has no labels; add `labels: FILE.csv`, or declare `task: any` (agreement with identity)"
            )
        return Images(images, user_path(base, files.labels), classes), "accuracy"
    height, width = output.shape[2:4] if post.get("layout", "nchw") == "nchw" else output.shape[1:3]
    if files.masks is None:
        return AgreementLayout(Images(images), _predictor(path, settings, post), (height, width)), "agreement"
    masks = user_path(base, files.masks)
    if files.mask_values is not None and len(files.mask_values) != classes:
        raise SubjectError(
            f"mask_values has {len(files.mask_values)} gray levels; allowed: {classes}, one for each class"
        )
    return MaskedImages(images, masks, classes, height, width, settings, files.mask_values), "accuracy"


def _predictor(path: Path, settings: Preprocess, post: Mapping[str, object]) -> Predictor:
    return Predictor(path, model_sha256(path), settings.to_json(), post)


# Sizes to declare where the model leaves them free, in this order: what most classifiers take, what detectors do, lines
# of text. The user can change it in the catalog.
_USUAL_SIZES = ((224, 224), (320, 320), (640, 640), (48, 320), (32, 320), (28, 28))


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
    meaning, reason
        What an output [1, N] is taken for, and why; empty for other outputs.
    arrays
        The shapes of arrays of N samples, in words, if the inputs are tensors.
    axes
        The axes of samples to declare, by input: those that the inputs' own shapes do not show.
    shapes
        The shapes to declare, by input: those that the model ran on, where neither the file nor the graph fixes one.
    states, past
        Inputs that take what outputs gave at the run before, and whether one of them grows from run to run.
    next_token
        Whether the output is scores of the next token, for each position.
    """

    task: Task
    feeds: Literal["images", "tensors"]
    size: tuple[int, int] | None
    takes: tuple[str, ...]
    gives: str
    meaning: OutputMeaning | None = None
    reason: str = ""
    arrays: tuple[str, ...] = ()
    axes: Mapping[str, SampleAxis] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    states: tuple[State, ...] = ()
    past: bool = False
    next_token: bool = False


def guess_subject(path: Path, *, kept: Path, data: Path | None = None) -> Guess:
    """Read a model file and run it once; `kept` is the folder that keeps the answer.

    Parameters
    ----------
    path
        The model.
    kept
        Where the answer of the trial run is kept.
    data
        A folder of pictures or a file of tensors. Without it, a model that could take pictures is taken to do so, and
        the run is on blanks.

    Raises
    ------
    SubjectError
        For a file that is not a model, one that this machine's runtime does not run, or data that do not fit it.
    """
    guesses = guess_count(path)
    if not guesses:
        return _guess_with(path, read_inputs(path), kept, data)
    obstacle: SubjectError | None = None
    likely = [read_inputs(path, guess=number) for number in range(guesses)]
    if data is not None and data.is_file():
        likely.sort(key=lambda inputs: _has_new_axes(TensorDataset(data, inputs)))
    for inputs in likely:
        try:
            guess = _guess_with(path, inputs, kept, data)
        except SubjectError as error:
            obstacle = obstacle or error
            continue
        # Without an output the model did not run on this shape.
        if guess.gives:
            return guess
    raise SubjectError(
        f"{path.name} has an input without a declared shape and runs on none of the shapes that are usual"
        f"{f' ({obstacle})' if obstacle else ''}; give one input of the right shape as --data FILE.npz, or write a "
        "catalog with input: {shape: [any, 16]}"
    )


def _has_new_axes(dataset: TensorDataset) -> bool:
    """Return whether arrays have an axis more than these inputs, or do not fit them: other shapes are likelier."""
    try:
        return "new" in dataset.axes.values()
    except SubjectError:
        return True


def _guess_with(path: Path, inputs: tuple[ModelInput, ...], kept: Path, data: Path | None) -> Guess:
    """Run a model with these inputs once; see `guess_subject`."""
    if data is not None and data.is_file():
        dataset = TensorDataset(data, inputs)
        return _tensor_guess(path, inputs, _try_sample(path, dataset, kept), dataset.axes)
    sizes = _sizes_to_try(inputs)
    try:
        settings = image_settings(path, inputs, PreprocessSpec(size=sizes[0]))
    except SubjectError:
        # A folder holds pictures, and the reason why the model takes none is in the error.
        if data is not None and data.is_dir():
            raise
        return _tensor_guess(path, inputs, _try_blanks(path, inputs, kept), _first_axes(path, inputs))
    size, settings, output = _try_pictures(path, inputs, settings, sizes, kept)
    plane = f"{settings.layout}, {settings.color}, {settings.height} x {settings.width}"
    guess = _guess(path, output, "images", (f"{_described(inputs[0])} ({plane})",), size)
    return replace(guess, shapes=_chosen(inputs))


def _guess(
    path: Path,
    output: ModelOutput | None,
    feeds: Literal["images", "tensors"],
    takes: tuple[str, ...],
    size: tuple[int, int] | None = None,
) -> Guess:
    width = None if output is None else scored_classes(output)
    if output is None or width is None:
        task: Task = "segmentation" if output is not None and feeds == "images" and _is_map(output) else "any"
        return Guess(task, feeds, size, takes, _shown(output))
    guess = guess_output(path, output.name, width)
    task = "classification" if guess.meaning == "scores" else "any"
    return Guess(task, feeds, size, takes, _shown(output), guess.meaning, guess.reason)


def _tensor_guess(
    path: Path, inputs: tuple[ModelInput, ...], output: ModelOutput | None, axes: Mapping[str, SampleAxis]
) -> Guess:
    unusual = {
        model_input.name: axes[model_input.name]
        for model_input in inputs
        if not model_input.can_be_left_out
        and axes.get(model_input.name, usual_axis(model_input)) != usual_axis(model_input)
    }
    needed = [model_input for model_input in inputs if not model_input.can_be_left_out]
    arrays = tuple(array_shape(model_input, axes.get(model_input.name)) for model_input in needed)
    takes = tuple(map(_described, needed))
    return replace(
        _guess(path, output, "tensors", takes),
        arrays=arrays,
        axes=unusual,
        shapes=_chosen(inputs),
        states=tuple(model_input.state for model_input in inputs if model_input.state is not None),
        past=any(model_input.past is not None for model_input in inputs),
        next_token=output is not None and next_token(inputs, output, None) is not None,
    )


def _described(model_input: ModelInput) -> str:
    """Return an input in words, with what was assumed of it."""
    assumed = f" (the file declares no shape: {model_input.assumed})" if model_input.assumed else ""
    return f"{model_input}{assumed}"


def _chosen(inputs: Sequence[ModelInput]) -> Mapping[str, Shape]:
    """Return the shapes to declare in the catalog."""
    return {model_input.name: model_input.shape for model_input in inputs if model_input.chosen}


def _first_axes(path: Path, inputs: tuple[ModelInput, ...]) -> Mapping[str, SampleAxis]:
    """Return the inputs whose free first axis does not count samples, as runs of the model show."""
    free = [
        model_input.name
        for model_input in inputs
        if model_input.shape and model_input.shape[0] is None and not model_input.can_be_left_out
    ]
    return dict.fromkeys(free, "new") if free and counts_samples(read_model(path)) is False else {}


def _sizes_to_try(inputs: tuple[ModelInput, ...]) -> list[tuple[int, int] | None]:
    """Return sizes to declare if the only input looks like pictures of free size; else None alone."""
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or None not in shape[1:]:
        return [None]
    height, width = shape[1:3] if shape[3] in (1, 3) and shape[1] not in (1, 3) else shape[2:4]
    if None not in (height, width):
        return [None]
    # In order, without those that a fixed side makes equal.
    return list(dict.fromkeys((height or usual[0], width or usual[1]) for usual in _USUAL_SIZES))


def _try_pictures(
    path: Path,
    inputs: tuple[ModelInput, ...],
    settings: Preprocess,
    sizes: Sequence[tuple[int, int] | None],
    kept: Path,
) -> tuple[tuple[int, int] | None, Preprocess, ModelOutput]:
    """Run the model on a blank picture of the first size that it takes; raise SubjectError where it takes none."""
    obstacle: SubjectError | None = None
    for size in sizes:
        sized = settings if size is None else replace(settings, height=size[0], width=size[1])
        try:
            return size, sized, try_out(path, blank_image(sized, inputs[0].dtype), kept)
        except SubjectError as error:
            # The first is the most usual size, so that its message says most.
            obstacle = obstacle or error
    assert obstacle is not None
    if len(sizes) == 1:
        raise obstacle
    tried = ", ".join(f"{size[0]} x {size[1]}" for size in sizes if size)
    raise SubjectError(
        f"{path.name} takes {inputs[0]} and runs on pictures of none of the usual sizes ({tried}; height x width): "
        f"{obstacle}. Give one input of the right shape as --data FILE.npz, or write a catalog with "
        "preprocess: {size: [height, width]}"
    ) from obstacle


def _try_blanks(path: Path, inputs: tuple[ModelInput, ...], kept: Path) -> ModelOutput | None:
    """Return the output for zeros; None if free dimensions leave open whether zeros of size one make sense."""
    _check_size(path, inputs)
    blanks = [
        model_input.first_value(tokens=1)
        if model_input.can_be_left_out
        else np.zeros(tuple(size or 1 for size in model_input.shape), model_input.dtype)
        for model_input in inputs
    ]
    try:
        return try_out(path, write_tensors(blanks), kept, output=_judged_output(path, inputs))
    except SubjectError:
        if all(None not in model_input.shape for model_input in inputs):
            raise
        return None


def _check_size(path: Path, inputs: Sequence[ModelInput]) -> None:
    """Raise SubjectError where the inputs as declared do not fit into this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for model_input in inputs:
        declared = math.prod(length or 1 for length in model_input.shape) * model_input.dtype.itemsize
        if declared > memory:
            raise SubjectError(
                f"{path.name} takes {model_input}: {size_text(declared)} at once; allowed: inputs that fit into this "
                f"machine's memory ({size_text(memory)}). Export it for smaller inputs"
            )


def _is_map(output: ModelOutput) -> bool:
    """Return whether the output may be scores for every pixel."""
    several = sum(size > 1 for size in output.shape) > 1
    return len(output.shape) == 4 and np.dtype(output.dtype).kind == "f" and several


def _shown(output: ModelOutput | None) -> str:
    return f"{output.name}: {output.dtype} {list(output.shape)}" if output else ""
