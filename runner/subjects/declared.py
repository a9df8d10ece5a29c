"""From a subject's declaration to its model and data, checked to fit together.

The values of `model:` besides `builtin:`, and the file behind each:

    torchvision:wide_resnet101_2@IMAGENET1K_V2     published weights, exported once (needs the extra `torch`)
    torchvision:wide_resnet101_2@random            random weights: for latency only
    study:duc                                      ResNet101-DUC-7 with random weights, built once
    study:duc@./ResNet101-DUC-7.onnx               the same architecture from the user's own file

An exported file is kept in the working directory; its bytes, not its name, enter the content keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catalog.declaration import DatasetFiles, SubjectSpec
from runner.errors import SubjectError
from runner.study import DUC, EXTRA, RANDOM, TORCHVISION, StudyFile, build, has_torch
from runner.subjects.dataset import Dataset, Subject, Task
from runner.subjects.embedded.datasets import SUBJECTS, builtin_dataset, resolve_subject
from runner.subjects.folders import FolderDataset, FolderLayout
from runner.subjects.layouts.own import Images
from runner.subjects.layouts.published import Cityscapes, Coco, ImageNet
from runner.subjects.user_files import is_own_model, user_path

# Of ImageNet's training images, by channel, as torchvision's presets have them.
_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_RGB: Mapping[str, object] = {"color": "rgb", "layout": "nchw", "dtype": "float32"}
_NORMALISED: Mapping[str, object] = {**_RGB, "scale": 1 / 255, "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD}


@dataclass(frozen=True)
class SubjectArchitecture:
    """The settings that all weights of an architecture share; the two mappings are the tier server's."""

    task: Literal["classification", "segmentation"]
    datasets: tuple[str, ...]
    classes: int
    labels_px: tuple[int, int]
    preprocess: Mapping[str, object]
    postprocess: Mapping[str, object]


# Shorter side 232, then the central 224: torchvision's preset of both published sets of weights.
_IMAGENET = SubjectArchitecture(
    task="classification",
    datasets=("imagenet", "files"),
    classes=1000,
    labels_px=(0, 0),
    preprocess={**_NORMALISED, "height": 224, "width": 224, "resize": "shorter_side_crop", "shorter_side": 232},
    postprocess={"kind": "top_k", "k": 5, "softmax": True},
)
_FCN = SubjectArchitecture(
    task="segmentation",
    datasets=("coco",),
    classes=21,
    labels_px=(640, 640),
    preprocess={**_NORMALISED, "height": 640, "width": 640, "resize": "stretch"},
    postprocess={"kind": "label_map"},
)
# The model zoo's: 800 x 800, less the image's own mean; the graph labels every second pixel of each direction.
_DUC = SubjectArchitecture(
    task="segmentation",
    datasets=("cityscapes",),
    classes=19,
    labels_px=(400, 400),
    preprocess={**_RGB, "height": 800, "width": 800, "resize": "stretch", "center": True},
    postprocess={"kind": "label_map", "cell": 4, "height": 400, "width": 400},
)
_ARCHITECTURES: Mapping[str, SubjectArchitecture] = {
    "torchvision:wide_resnet101_2": _IMAGENET,
    "torchvision:resnext101_64x4d": _IMAGENET,
    "torchvision:fcn_resnet101": _FCN,
    f"study:{DUC}": _DUC,
}
KNOWN_MODELS = (
    *(f"torchvision:{name}@{model.weights}" for name, model in TORCHVISION.items()),
    f"torchvision:NAME@{RANDOM}",
    f"study:{DUC}",
    f"study:{DUC}@FILE",
)


@dataclass(frozen=True)
class ArchitectureFile:
    """An ONNX file of a known architecture that exists or can be built; without `file` it is the user's own."""

    architecture: SubjectArchitecture
    path: Path
    weights: str
    file: StudyFile | None

    @property
    def random(self) -> bool:
        """Return whether the weights are random, so that accuracy means nothing."""
        return self.weights == RANDOM

    def absent(self) -> str | None:
        """Return why the model cannot be read yet, or None."""
        if self.path.is_file():
            return None
        if self.file is None:
            return f"there is no model file {self.path}"
        torch = "" if self.file.torchvision is None or has_torch() else f", but {EXTRA}"
        return f"the model {self.path} has not been built yet; the first fill does{torch}"

    def prepare(self) -> None:
        """Build the file if it is missing; raise SubjectError if that is not possible."""
        if self.file is not None and not self.path.is_file():
            build(self.file, self.weights, self.path)


def find_model(reference: str, *, base: Path, built: Path) -> ArchitectureFile | None:
    """Return the model that a reference names, or None if the reference is unknown.

    `base` is where relative paths start, `built` the folder of built files.
    """
    name, _, weights = reference.partition("@")
    architecture = _ARCHITECTURES.get(name)
    if architecture is None:
        return None
    short = name.partition(":")[2]
    if short == DUC:
        # Random weights are built here; any other text is the path of the user's file.
        if weights in ("", RANDOM):
            return ArchitectureFile(architecture, built / f"{DUC}@{RANDOM}.onnx", RANDOM, StudyFile())
        return ArchitectureFile(architecture, user_path(base, weights), weights, None)
    published = TORCHVISION[short]
    if weights not in (published.weights, RANDOM):
        raise SubjectError(f"unknown weights {weights!r} of {name}; allowed: @{published.weights}, @{RANDOM}")
    return ArchitectureFile(architecture, built / f"{short}@{weights}.onnx", weights, StudyFile(published))


_FOLDERS = ("imagenet:DIR", "coco:DIR", "cityscapes:DIR")


def resolve_declared(name: str, spec: SubjectSpec, *, base: Path, built: Path, labels_apart: bool = False) -> Subject:
    """Resolve a declared subject to model, data and metric; only names are read, no content.

    `base` is the catalog file's directory, where relative paths start; `built` the folder of exported models. With
    `labels_apart`, what is timed and calibrated with does not depend on labels (`select: systematic`).

    Raises
    ------
    SubjectError
        For a model, a dataset or a task that is unknown, or that does not fit the others.
    """
    own = is_own_model(spec.model, base)
    if spec.output is not None and not own:
        raise SubjectError(
            f"subject {name}: `output` is for a model of your own; remove it: that of {spec.model} is known"
        )
    if spec.model in SUBJECTS:
        _check_known_model(name, spec)
        # An embedded model goes with its own dataset only; the refusal shows this text.
        dataset = spec.dataset if isinstance(spec.dataset, str) else "{images: ...}"
        return resolve_subject(name, spec.model, dataset, spec.task, kept=built)
    try:
        if own:
            # Imported here: reading a user's model needs onnx and a runtime, the embedded subjects neither.
            from runner.subjects.own_model import own_subject

            return own_subject(name, spec, base=base, kept=built, labels_apart=labels_apart)
        model = find_model(spec.model, base=base, built=built)
        if model is None:
            raise SubjectError(
                f"unknown model {spec.model!r}; allowed: ./FILE.onnx, {', '.join((*SUBJECTS, *KNOWN_MODELS))}"
            )
        _check_known_model(name, spec)
        data = _Data(base, built, labels_apart)
        return _subject(name, spec, model, data)
    except SubjectError as error:
        raise SubjectError(f"subject {name}: {error}") from error


@dataclass(frozen=True)
class _Data:
    """Where data are looked up, and how."""

    base: Path
    kept: Path
    labels_apart: bool

    def folder(self, layout: FolderLayout, *, judged: bool = True, timed: FolderLayout | None = None) -> FolderDataset:
        return FolderDataset(layout, judged=judged, timed=(timed or layout) if self.labels_apart else None)


def _subject(name: str, spec: SubjectSpec, model: ArchitectureFile, data: _Data) -> Subject:
    architecture = model.architecture
    if spec.task not in (architecture.task, "any"):
        raise SubjectError(f"task {spec.task!r} does not go with {spec.model}; allowed: {architecture.task}, any")
    if model.random and spec.task != "any":
        raise SubjectError(
            f"{spec.model} has random weights, whose accuracy means nothing; declare `task: any` (latency only)"
        )
    dataset = _timed_only(spec, data) if spec.task == "any" else _judged(spec, architecture, data)
    task: Task = "any" if spec.task == "any" else architecture.task
    return Subject(
        name,
        task,
        model.path,
        architecture.classes,
        architecture.preprocess,
        architecture.postprocess,
        dataset,
        source=model,
        metric=None if task == "any" else "accuracy",
    )


def _check_known_model(name: str, spec: SubjectSpec) -> None:
    """Refuse settings that a known model does not take: pre-processing, masks and tensors."""
    if spec.preprocess is not None:
        raise SubjectError(f"subject {name}: {spec.model} has its own pre-processing; remove `preprocess`")
    files = spec.dataset
    if isinstance(files, DatasetFiles) and (files.masks is not None or files.tensors is not None):
        raise SubjectError(f"subject {name}: masks and tensors go with your own model (./FILE.onnx); remove them")


def _timed_only(spec: SubjectSpec, data: _Data) -> Dataset:
    """Return pictures to send, of any origin; their content does not matter."""
    if isinstance(spec.dataset, DatasetFiles):
        if spec.dataset.labels is not None:
            raise SubjectError("task `any` has no accuracy, so its dataset has no labels; remove `labels`")
        return data.folder(Images(_path(data.base, spec.dataset.images or "")), judged=False)
    embedded = builtin_dataset(spec.dataset, kept=data.kept)
    return embedded if embedded is not None else data.folder(_layout(spec.dataset, None, data.base), judged=False)


def _judged(spec: SubjectSpec, architecture: SubjectArchitecture, data: _Data) -> Dataset:
    if isinstance(spec.dataset, str):
        return data.folder(_layout(spec.dataset, architecture, data.base))
    if "files" not in architecture.datasets:
        allowed = ", ".join(f"{kind}:DIR" for kind in architecture.datasets)
        raise SubjectError(f"{spec.model} is judged on masks, which a file of labels cannot hold; allowed: {allowed}")
    if spec.dataset.labels is None:
        raise SubjectError("the dataset has no labels; add `labels: FILE.csv`, or declare `task: any` (latency only)")
    table, images = (_path(data.base, text or "") for text in (spec.dataset.labels, spec.dataset.images))
    return data.folder(Images(images, table, architecture.classes), timed=Images(images))


def _layout(reference: str, architecture: SubjectArchitecture | None, base: Path) -> FolderLayout:
    """Return the layout that a reference names; without an architecture any layout, whose masks are never drawn."""
    kind, _, directory = reference.partition(":")
    allowed = _FOLDERS if architecture is None else tuple(f"{dataset}:DIR" for dataset in architecture.datasets)
    if f"{kind}:DIR" not in allowed or not directory:
        raise SubjectError(
            f"dataset {reference!r} does not go with this model and task; allowed: "
            f"{', '.join(folder for folder in allowed if folder in _FOLDERS)}"
            f"{', builtin:fashion, builtin:canvas, {images: DIR}' if architecture is None else ''}"
        )
    root = _path(base, directory)
    height, width = (1, 1) if architecture is None else architecture.labels_px
    if kind == "imagenet":
        return ImageNet(root)
    return Coco(root, height, width) if kind == "coco" else Cityscapes(root, height, width)


def _path(base: Path, text: str) -> Path:
    return user_path(base, text)
