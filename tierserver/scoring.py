"""Accuracy of a part, item by item: hits for classification, pixels per class for segmentation."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierserver.errors import CommandError, TierError
from tierserver.messages import Evaluate, EvaluateResult, ItemScore
from tierserver.pipeline import Arrays, ServedPart, Tier
from tierserver.protocol import Tensor

IGNORED_LABEL = 255
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class Items:
    """A validation set: encoded images one after the other, and labels [n] or masks [n, H, W]."""

    item_id: tuple[str, ...]
    image: memoryview
    offset: NDArray[np.int64]
    label: NDArray[np.int64] | None
    mask: NDArray[np.uint8] | None

    def encoded(self, index: int) -> memoryview:
        return self.image[int(self.offset[index]) : int(self.offset[index + 1])]


@dataclass(frozen=True)
class Overlap:
    """Pixels per class: in both maps, and in either."""

    intersection_px: NDArray[np.int64]
    union_px: NDArray[np.int64]


def evaluate(tier: Tier, command: Evaluate, on_progress: Callable[[int, int], None]) -> EvaluateResult:
    """Score every item through the part's own pre- and post-processing (and its next part, if it has one)."""
    part, items = tier.find(command.model).part, read_items(command.items_file)
    total, reported_s = len(items.item_id), time.monotonic()
    scores: list[ItemScore] = []
    for index, item_id in enumerate(items.item_id):
        try:
            scores.append(_score(items, index, _outputs(part, items.encoded(index)), command.k))
        except TierError as error:
            raise CommandError(f"item {item_id!r}: {error}") from error
        if time.monotonic() - reported_s >= _PROGRESS_S or index + 1 == total:
            reported_s = time.monotonic()
            on_progress(index + 1, total)
    return EvaluateResult(_trimmed(scores))


def hits(classes: NDArray[np.int64], label: int, k: int) -> tuple[bool, bool]:
    """Return whether the label is the first class, and whether it is among the first k."""
    return bool(classes[0] == label), bool(label in classes[:k])


def overlap(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Overlap:
    """Count intersections and unions for each of 256 classes; pixels whose truth is 255 do not count."""
    if predicted.shape != truth.shape:
        raise CommandError(f"the label map is {list(predicted.shape)}, the mask {list(truth.shape)}; they must agree")
    counted = truth != IGNORED_LABEL
    seen, true = predicted[counted], truth[counted]
    both = np.bincount(true[seen == true], minlength=256)
    either = np.bincount(seen, minlength=256) + np.bincount(true, minlength=256) - both
    return Overlap(both, either)


def read_items(path: str) -> Items:
    """Read and check an items file (.npz)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
        items = Items(
            item_id=tuple(map(str, arrays["item_id"])),
            image=np.ascontiguousarray(arrays["image"], np.uint8).data,
            offset=arrays["offset"].astype(np.int64),
            label=arrays["label"].astype(np.int64) if "label" in arrays else None,
            mask=arrays.get("mask"),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(
            f"{path} is not an items file: {error}; it needs item_id, image, offset, label|mask"
        ) from error
    truth = items.label if items.label is not None else items.mask
    count = len(items.item_id)
    if truth is None or len(truth) != count or items.offset.shape != (count + 1,) or count == 0:
        raise CommandError(f"{path}: {count} item_id need {count + 1} offsets and {count} of label or mask")
    if items.offset[0] < 0 or (np.diff(items.offset) < 0).any() or items.offset[-1] > len(items.image):
        raise CommandError(f"{path}: offsets must rise and stay within the {len(items.image)} bytes of image")
    return items


def _outputs(part: ServedPart, encoded: memoryview) -> Arrays:
    return part.run((Tensor("image", None, (encoded,)),)).outputs


def _score(items: Items, index: int, outputs: Arrays, k: int) -> ItemScore:
    item_id = items.item_id[index]
    if items.label is not None:
        if "classes" not in outputs or len(outputs["classes"]) < k:
            raise CommandError(f"labels need a top_k post-processing with k >= {k}; outputs are {sorted(outputs)}")
        top1, top5 = hits(outputs["classes"], int(items.label[index]), k)
        return ItemScore(item_id, top1=top1, top5=top5)
    if items.mask is None or "labels" not in outputs:
        raise CommandError(f"masks need a label_map post-processing; outputs are {sorted(outputs)}")
    pixels = overlap(outputs["labels"], items.mask[index])
    return ItemScore(item_id, intersections=_ints(pixels.intersection_px), unions=_ints(pixels.union_px))


def _ints(counts: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(counts.tolist())


def _trimmed(scores: list[ItemScore]) -> tuple[ItemScore, ...]:
    """Drop the classes above the highest that any item has, in truth or prediction."""
    unions = [score.unions for score in scores if score.unions is not None]
    if not unions:
        return tuple(scores)
    size = 1 + max(index for union in unions for index, count in enumerate(union) if count or index == 0)
    return tuple(
        ItemScore(score.item_id, intersections=(score.intersections or ())[:size], unions=(score.unions or ())[:size])
        for score in scores
    )
