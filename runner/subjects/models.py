"""The values of a subject's `model:` besides `builtin:`, and the file behind each.

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

from runner.errors import SubjectError
from runner.study import DUC, EXTRA, RANDOM, TORCHVISION, StudyFile, build, has_torch
from runner.subjects.user_files import user_path

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
