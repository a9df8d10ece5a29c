"""The three architectures of the study that torchvision has, and the weights that were published for them."""

from collections.abc import Mapping
from dataclasses import dataclass

RANDOM = "random"


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
