"""What a model of one's own takes: read from its file, weights left where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from catalog.declaration import PreprocessSpec
from runner.errors import ModelFileError, SubjectError
from runner.graph import read_model
from runner.subjects.trial import Given
from tierserver.encoding import write_tensors
from tierserver.errors import RequestError
from tierserver.imaging import MAX_PIXELS, check
from tierserver.messages import Preprocess


@dataclass(frozen=True)
class Taken:
    """A graph input; None for a dimension that is free."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def read_inputs(path: Path) -> tuple[Taken, ...]:
    """The inputs of a model; raises SubjectError for a file that is no model, or is one that takes no tensors."""
    try:
        graph = read_model(path).graph
    except ModelFileError as error:
        raise SubjectError(
            f"{error}; allowed: an ONNX file that is whole, with external data (if any) in its own folder. "
            "Export the model again, or copy it again with its data files"
        ) from error
    stored = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_taken(value, path) for value in graph.input if value.name not in stored)
    if not inputs:
        raise SubjectError(f"{path.name} has no inputs; allowed: a model with at least one. Export it with its input")
    return inputs


def _taken(value: onnx.ValueInfoProto, path: Path) -> Taken:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise SubjectError(
            f"{path.name}: the input {value.name!r} has no declared tensor shape; allowed: tensors with a known number "
            "of dimensions. Export the model with a declared input"
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise SubjectError(f"{path.name}: the input {value.name!r} has an unknown type; allowed: numbers") from error
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim
    )
    return Taken(value.name, dtype, shape)


_RESIZE = {"stretch": "stretch", "crop": "shorter_side_crop", "pad": "pad"}
_DTYPES = ("float32", "float16", "uint8")


def image_settings(path: Path, inputs: tuple[Taken, ...], spec: PreprocessSpec) -> Preprocess:
    """Pre-processing, from the model's one input and what is declared; raises SubjectError where they do not fit."""
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


def blank_image(settings: Preprocess, dtype: np.dtype[np.generic]) -> bytes:
    """A black picture as the model takes it, encoded for a trial."""
    channels = 1 if settings.color == "gray" else 3
    plane = (settings.height, settings.width)
    shape = (1, channels, *plane) if settings.layout == "nchw" else (1, *plane, channels)
    return write_tensors([np.zeros(shape, dtype)])


AS_THEY_ARE: Mapping[str, object] = {"kind": "tensors"}


def judging(task: str, given: Given, path: Path) -> tuple[int, Mapping[str, object]]:
    """How many classes, and what becomes of the output."""
    if task == "classification":
        classes = needed_classes(given, path)
        return classes, top_scores(classes)
    if task == "any":
        found = scored_classes(given)
        return (0, AS_THEY_ARE) if found is None else (found, top_scores(found))
    shape = given.shape
    if len(shape) != 4 or shape[0] != 1:
        raise SubjectError(
            f"{path.name} gives {given.name}: {given.dtype} {list(shape)}; allowed for segmentation: scores for every "
            "pixel as the first output, [1, classes, height, width] or [1, height, width, classes]"
        )
    layout = "nhwc" if shape[3] < min(shape[1], shape[2]) else "nchw"
    classes = shape[3] if layout == "nhwc" else shape[1]
    if classes == 1:
        return 2, {"kind": "label_map", "layout": layout, "threshold": 0.5 if _last_kind(path) == "Sigmoid" else 0.0}
    if classes > 255:
        raise SubjectError(f"{path.name} tells {classes} classes apart; allowed for segmentation: 2 to 255")
    return classes, {"kind": "label_map", "layout": layout}


def scored_classes(given: Given) -> int | None:
    """How many classes an output of scores has, [1, classes] or [1, classes, 1, 1]; None where it is something else."""
    shape = given.shape
    scores = len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in (shape[0], *shape[2:]))
    return shape[1] if scores and np.dtype(given.dtype).kind == "f" else None


def needed_classes(given: Given, path: Path) -> int:
    """As above; raises SubjectError where there are none."""
    found = scored_classes(given)
    if found is None:
        raise SubjectError(
            f"{path.name} gives {given.name}: {given.dtype} {list(given.shape)}; allowed for classification: scores "
            "[1, classes] as the first output, with two classes or more. Declare `task: any` to measure its latency"
        )
    return found


def top_scores(classes: int) -> Mapping[str, object]:
    """The tier server's `Postprocess` for scores of classes."""
    return {"kind": "top_k", "k": min(5, classes)}


def _last_kind(path: Path) -> str:
    """The op_type of the node that makes the first output."""
    graph = read_model(path).graph
    first = graph.output[0].name
    return next((node.op_type for node in graph.node if first in node.output), "")
