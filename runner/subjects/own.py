"""`model: ./my.onnx`: what a model of one's own is fed and judged by, read from the file where nothing is declared."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.declaration import PreprocessSpec, SubjectSpec
from runner.artifacts import file_sha256
from runner.errors import SubjectError
from runner.subjects.agreement import AgreeingTensors, Predicted, Predictor
from runner.subjects.checking import Checked
from runner.subjects.dataset import Dataset, Metric, Subject, Task
from runner.subjects.folders import FolderDataset, Layout
from runner.subjects.images import Images
from runner.subjects.masks import Masked
from runner.subjects.signature import Taken, read_inputs
from runner.subjects.tensors import TensorDataset
from runner.subjects.trial import Given, try_out
from tierserver.errors import RequestError
from tierserver.imaging import MAX_PIXELS, check
from tierserver.messages import Preprocess
from tierserver.tensors import write_tensors

SUFFIX = ".onnx"
_RESIZE = {"stretch": "stretch", "crop": "shorter_side_crop", "pad": "pad"}
_DTYPES = ("float32", "float16", "uint8")
_TENSORS: Mapping[str, object] = {"kind": "tensors"}


@dataclass(frozen=True)
class NotThere:
    """The source of a model whose file is missing."""

    path: Path

    def absent(self) -> str | None:
        return f"there is no model file {self.path}; a relative path starts at the catalog file"

    def prepare(self) -> None:
        """Nothing can be done about it; the reason is `absent`."""


def own_subject(name: str, spec: SubjectSpec, *, base: Path, kept: Path) -> Subject:
    """A subject from a model file; `kept` is where the answer of its trial run stays.

    Raises
    ------
    SubjectError
        For a file that is no model this machine runs, or that does not fit the declared data or pre-processing.
    """
    path = base / Path(spec.model).expanduser()
    if isinstance(spec.dataset, str):
        raise SubjectError(
            f"dataset {spec.dataset!r} does not go with a model of your own; allowed: {{images: DIR, labels: "
            "FILE.csv}}, "
            "{images: DIR, masks: DIR}, {images: DIR}, {tensors: FILE.npz}"
        )
    if not path.is_file():
        nothing = FolderDataset(Images(base), judged=False)
        return Subject(name, spec.task, path, 0, {}, {}, nothing, source=NotThere(path))
    inputs = read_inputs(path)
    if spec.dataset.tensors is not None:
        return _of_tensors(name, spec, path, inputs, base=base, kept=kept)
    return _of_images(name, spec, path, inputs, base=base, kept=kept)


def _of_tensors(
    name: str, spec: SubjectSpec, path: Path, inputs: tuple[Taken, ...], *, base: Path, kept: Path
) -> Subject:
    assert not isinstance(spec.dataset, str)
    if spec.task == "segmentation":
        raise SubjectError("task `segmentation` needs images with masks; allowed for tensors: classification, any")
    if spec.preprocess is not None:
        raise SubjectError("tensors go into the model as they are; remove `preprocess`, or give images")
    dataset = TensorDataset(base / Path(spec.dataset.tensors or "").expanduser(), inputs)
    if dataset.absent():
        return Subject(name, spec.task, path, 0, _TENSORS, _TENSORS, dataset)
    given = try_out(path, dataset.sample(0), kept)
    classes = _classes(given)
    if spec.task == "classification":
        classes = _needed_classes(given, path)
        labels = dataset.labels
        if labels is None:
            raise SubjectError(f"{dataset.file} has no array `labels`; add it, or declare `task: any`")
        if labels.min() < 0 or labels.max() >= classes:
            raise SubjectError(
                f"{dataset.file}: labels go from {labels.min()} to {labels.max()}; allowed: 0 to {classes - 1}, the "
                "classes of the model's output"
            )
        return Subject(name, spec.task, path, classes, _TENSORS, _top(classes), dataset)
    if classes is None:
        return Subject(name, "any", path, 0, _TENSORS, _TENSORS, dataset, metric=None)
    post = _top(classes)
    agreeing = AgreeingTensors(dataset, Predictor(path, file_sha256(path), _TENSORS, post))
    return Subject(name, "any", path, classes, _TENSORS, post, agreeing, metric="agreement")


def _of_images(
    name: str, spec: SubjectSpec, path: Path, inputs: tuple[Taken, ...], *, base: Path, kept: Path
) -> Subject:
    settings = _settings(path, inputs, spec.preprocess or PreprocessSpec())
    given = try_out(path, _blank(settings, inputs[0].dtype), kept)
    classes, post = _judging(spec.task, given, path, _last_kind(path))
    layout, metric = _layout(spec, path, base, settings, classes, post, given)
    dataset: Dataset = FolderDataset(layout, judged=metric is not None, few=True)
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.to_json().items()}
    task: Task = spec.task
    source = Checked(layout, judged=metric == "accuracy", kept=kept)
    return Subject(name, task, path, classes, shown, post, dataset, source=source, metric=metric)


def _layout(
    spec: SubjectSpec,
    path: Path,
    base: Path,
    settings: Preprocess,
    classes: int,
    post: Mapping[str, object],
    given: Given,
) -> tuple[Layout, Metric]:
    files = spec.dataset
    assert not isinstance(files, str) and files.images is not None
    images = base / Path(files.images).expanduser()
    if spec.task == "any":
        if files.labels or files.masks:
            raise SubjectError(
                "task `any` has no accuracy, so its dataset has neither `labels` nor `masks`; remove them"
            )
        if post["kind"] != "top_k":
            return Images(images), None
        shown = settings.to_json()
        return Predicted(Images(images), Predictor(path, file_sha256(path), shown, post)), "agreement"
    if spec.task == "classification":
        if files.labels is None:
            raise SubjectError(
                "the dataset has no labels; add `labels: FILE.csv`, or declare `task: any` (agreement with identity)"
            )
        return Images(images, base / Path(files.labels).expanduser(), classes), "accuracy"
    if files.masks is None:
        raise SubjectError("the dataset has no masks; add `masks: DIR`, or declare `task: any` (latency only)")
    height, width = given.shape[2:4] if post.get("layout", "nchw") == "nchw" else given.shape[1:3]
    masks = base / Path(files.masks).expanduser()
    if files.mask_values is not None and len(files.mask_values) != classes:
        raise SubjectError(
            f"mask_values has {len(files.mask_values)} gray levels; allowed: {classes}, one for each class"
        )
    return Masked(images, masks, classes, height, width, settings, files.mask_values), "accuracy"


def _judging(task: str, given: Given, path: Path, last: str) -> tuple[int, Mapping[str, object]]:
    """How many classes, and what becomes of the output."""
    if task == "classification":
        classes = _needed_classes(given, path)
        return classes, _top(classes)
    if task == "any":
        found = _classes(given)
        return (0, _TENSORS) if found is None else (found, _top(found))
    shape = given.shape
    if len(shape) != 4 or shape[0] != 1:
        raise SubjectError(
            f"{path.name} gives {given.name}: {given.dtype} {list(shape)}; allowed for segmentation: scores for every "
            "pixel as the first output, [1, classes, height, width] or [1, height, width, classes]"
        )
    layout = "nhwc" if shape[3] < min(shape[1], shape[2]) else "nchw"
    classes = shape[3] if layout == "nhwc" else shape[1]
    if classes == 1:
        return 2, {"kind": "label_map", "layout": layout, "threshold": 0.5 if last == "Sigmoid" else 0.0}
    if classes > 255:
        raise SubjectError(f"{path.name} tells {classes} classes apart; allowed for segmentation: 2 to 255")
    return classes, {"kind": "label_map", "layout": layout}


def _classes(given: Given) -> int | None:
    """How many classes an output of scores has, [1, classes] or [1, classes, 1, 1]; None where it is something else."""
    shape = given.shape
    scores = len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in (shape[0], *shape[2:]))
    return shape[1] if scores and np.dtype(given.dtype).kind == "f" else None


def _needed_classes(given: Given, path: Path) -> int:
    found = _classes(given)
    if found is None:
        raise SubjectError(
            f"{path.name} gives {given.name}: {given.dtype} {list(given.shape)}; allowed for classification: scores "
            "[1, classes] as the first output, with two classes or more. Declare `task: any` to measure its latency"
        )
    return found


def _top(classes: int) -> Mapping[str, object]:
    return {"kind": "top_k", "k": min(5, classes)}


def _last_kind(path: Path) -> str:
    """The op_type of the node that makes the first output."""
    from runner.graph import read_model

    graph = read_model(path).graph
    first = graph.output[0].name
    return next((node.op_type for node in graph.node if first in node.output), "")


def _settings(path: Path, inputs: tuple[Taken, ...], spec: PreprocessSpec) -> Preprocess:
    """Pre-processing, from the model's one input and what is declared."""
    taken = inputs[0]
    if len(inputs) != 1 or len(taken.shape) != 4 or taken.shape[0] not in (None, 1) or str(taken.dtype) not in _DTYPES:
        raise SubjectError(
            f"{path.name} takes {'; '.join(map(str, inputs))}; allowed for images: one input [1, channels, height, "
            "width] or "
            f"[1, height, width, channels] of {', '.join(_DTYPES)}. Give the inputs as dataset: {{tensors: FILE.npz}}"
        )
    layout = spec.layout or ("nhwc" if taken.shape[3] in (1, 3) and taken.shape[1] not in (1, 3) else "nchw")
    channels, *plane = (taken.shape[index] for index in ((3, 1, 2) if layout == "nhwc" else (1, 2, 3)))
    if channels not in (None, 1, 3) or (channels == 1 and spec.channel_order):
        raise SubjectError(
            f"{path.name} takes {taken} (read as {layout}); allowed: 1 channel (gray, without channel_order) or 3. "
            "Declare preprocess: {layout: nhwc} or {layout: nchw} if it was read wrongly, or give tensors"
        )
    height, width = _plane(path, taken, plane, spec)
    settings = Preprocess(
        color="gray" if channels == 1 else spec.channel_order or "rgb",
        height=height,
        width=width,
        resize=_RESIZE[spec.resize],  # type: ignore[arg-type]
        shorter_side=spec.shorter_side,
        padding=spec.padding,
        scale=spec.scale if spec.scale is not None else 1 / 255,
        mean=spec.mean,
        std=spec.std,
        layout=layout,
        dtype=str(taken.dtype),  # type: ignore[arg-type]
    )
    try:
        check(settings)
    except RequestError as error:
        raise SubjectError(str(error)) from error
    return settings


def _plane(path: Path, taken: Taken, plane: list[int | None], spec: PreprocessSpec) -> tuple[int, int]:
    """Height and width: the model's, or, where these are free, the declared ones."""
    wanted = spec.size or (plane[0], plane[1])
    height, width = wanted
    if height is None or width is None:
        raise SubjectError(
            f"{path.name} takes {taken}: its height and width are free; declare which to measure, such as "
            "preprocess: {size: [224, 224]}"
        )
    if any(fixed not in (None, want) for fixed, want in zip(plane, wanted, strict=True)):
        raise SubjectError(f"preprocess.size is {list(wanted)}, {path.name} takes {taken}; allowed: its own size")
    if height * width > MAX_PIXELS:
        raise SubjectError(
            f"{path.name} takes {taken}: {height} x {width} pixels; allowed: {MAX_PIXELS}. Export it for a smaller "
            "size, or give the inputs as dataset: {tensors: FILE.npz}"
        )
    return height, width


def _blank(settings: Preprocess, dtype: np.dtype[np.generic]) -> bytes:
    channels = 1 if settings.color == "gray" else 3
    plane = (settings.height, settings.width)
    shape = (1, channels, *plane) if settings.layout == "nchw" else (1, *plane, channels)
    return write_tensors([np.zeros(shape, dtype)])
