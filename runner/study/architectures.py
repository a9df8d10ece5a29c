"""The study's four architectures: constructor, image size and published weights of each, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

RANDOM = "random"
DUC = "duc"


@dataclass(frozen=True)
class Torchvision:
    """A model of torchvision as the study used it; `weights` is the published set."""

    constructor: str
    weights: str
    size_px: int
    segments: bool = False


TORCHVISION: Mapping[str, Torchvision] = {
    model.constructor: model
    for model in (
        Torchvision("wide_resnet101_2", "IMAGENET1K_V2", 224),
        Torchvision("resnext101_64x4d", "IMAGENET1K_V1", 224),
        Torchvision("fcn_resnet101", "COCO_WITH_VOC_LABELS_V1", 640, segments=True),
    )
}


@dataclass(frozen=True)
class StudyFile:
    """A file that the command builds; without a torchvision model it is DUC."""

    torchvision: Torchvision | None = None
    dynamic: bool = False


FILES: Mapping[str, StudyFile] = {
    "resnet": StudyFile(TORCHVISION["wide_resnet101_2"]),
    "resnext": StudyFile(TORCHVISION["resnext101_64x4d"]),
    "fcn": StudyFile(TORCHVISION["fcn_resnet101"]),
    "duc": StudyFile(),
    "fcn-dynamic": StudyFile(TORCHVISION["fcn_resnet101"], dynamic=True),
}
# Any image size is FCN's published form and another graph; the catalog's tiers feed one size.
DEFAULT_FILES = ("resnet", "resnext", "fcn", "duc")
