"""The embedded subjects by name: the one place that says what `builtin:...` means."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import SubjectError
from runner.subjects.dataset import Dataset, Subject, Task
from runner.subjects.embedded.datasets import CanvasDataset, FashionDataset
from runner.subjects.embedded.images import CLASSES, SIZE

BUILTIN = Path(__file__).parents[1] / "builtin"


@dataclass(frozen=True)
class SubjectFamily:
    """The settings that subjects of one task and dataset share."""

    task: Task
    dataset: str
    classes: int
    size: int
    mean: float
    std: float
    resize: str
    postprocess: Mapping[str, object]

    @property
    def preprocess(self) -> dict[str, object]:
        """The tier server's `Preprocess`."""
        return {
            "color": "gray",
            "height": self.size,
            "width": self.size,
            "resize": self.resize,
            "scale": 1 / 255,
            "mean": [self.mean],
            "std": [self.std],
            "layout": "nchw",
            "dtype": "float32",
        }


FASHION = SubjectFamily(
    task="classification",
    dataset="builtin:fashion",
    classes=10,
    size=28,
    mean=0.2860,  # of the training images
    std=0.3530,
    resize="shorter_side_crop",
    postprocess={"kind": "top_k", "k": 5, "softmax": True},
)
CANVAS = SubjectFamily(
    task="segmentation",
    dataset="builtin:canvas",
    classes=CLASSES,
    size=SIZE,
    mean=0.35,
    std=0.25,
    resize="stretch",
    postprocess={"kind": "label_map"},
)
SUBJECTS: Mapping[str, SubjectFamily] = {
    "builtin:fashion-resnet": FASHION,
    "builtin:fashion-resnext": FASHION,
    "builtin:canvas-fcn": CANVAS,
    "builtin:canvas-duc": CANVAS,
}


def resolve_subject(name: str, model: str, dataset: str, task: str, *, kept: Path | None = None) -> Subject:
    """Resolve an embedded subject; `kept` is a folder that keeps the sizes of its pictures."""
    family = SUBJECTS.get(model)
    if family is None:
        raise SubjectError(f"subject {name}: unknown model {model!r}; allowed: {', '.join(SUBJECTS)}")
    for what, got, allowed in (("dataset", dataset, family.dataset), ("task", task, family.task)):
        if got != allowed:
            raise SubjectError(f"subject {name}: {what} {got!r} does not go with {model}; allowed: {allowed}")
    path = BUILTIN / f"{model.removeprefix('builtin:')}.onnx"
    if not path.is_file():
        raise SubjectError(f"subject {name}: {path.name} is not in this installation; reinstall the package")
    data = _dataset(family, kept)
    return Subject(name, family.task, path, family.classes, family.preprocess, family.postprocess, data)


def builtin_dataset(name: str, *, kept: Path | None = None) -> Dataset | None:
    """Return the embedded dataset with this name, for its pictures alone; None if there is none."""
    # Subjects share families, so any of those with this dataset will do.
    family = next((member for member in SUBJECTS.values() if member.dataset == name), None)
    return None if family is None else _dataset(family, kept)


def manifest(name: str) -> dict[str, object]:
    """Read an embedded subject's manifest."""
    content: dict[str, object] = json.loads((BUILTIN / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _dataset(family: SubjectFamily, kept: Path | None) -> Dataset:
    if family is FASHION:
        return FashionDataset(BUILTIN, kept=kept)
    # Both subjects of canvases are judged on the same ones; either manifest pins them.
    pinned = manifest("canvas-fcn")["validation_canvases_sha256"]
    return CanvasDataset(BUILTIN, str(pinned), kept=kept)
