"""What a model of one's own gives: how many classes its first output tells apart, and what becomes of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from runner.errors import SubjectError
from runner.graph import read_model
from runner.subjects.trial import Given

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
