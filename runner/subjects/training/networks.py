"""The embedded subjects' networks: small residual nets of the families the study partitions and exits early.

torch is an optional extra. Only this module and ``training`` import it, and the product imports neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Stage:
    """One run of bottleneck blocks of which all but the first are identical."""

    channels: int
    bottleneck: int
    blocks: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut (He et al. 2016); ``groups`` makes it ResNeXt's (Xie et al. 2017)."""

    def __init__(self, channels_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        middle, out = stage.bottleneck, stage.channels
        self.body = nn.Sequential(
            *_convolution(channels_in, middle, kernel=1),
            nn.ReLU(inplace=True),
            *_convolution(middle, middle, kernel=3, stride=stride, dilation=stage.dilation, groups=stage.groups),
            nn.ReLU(inplace=True),
            *_convolution(middle, out, kernel=1),
        )
        nn.init.zeros_(self.body[-1].weight)  # each block starts as the identity, which trains deep nets faster
        # Where the shapes differ, the shortcut is a projection (He et al. 2016, option B).
        same = channels_in == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels_in, out, 1, stride))

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.body(features) + self.shortcut(features))


class Classifier(nn.Module):
    """Stem, stages, global average, linear layer."""

    def __init__(self, stages: Sequence[Stage], *, classes: int, width: int = 64) -> None:
        super().__init__()
        self.backbone = nn.Sequential(_stem(width, stride=1), *_stages(width, stages))
        self.head = nn.Linear(stages[-1].channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(self.backbone(image), 1), 1))


class Segmenter(nn.Module):
    """Stem, stages and a head; ``upsample`` brings the head's scores to the input's own size."""

    def __init__(self, stages: Sequence[Stage], head: nn.Module, *, upsample: bool, width: int = 64) -> None:
        super().__init__()
        self.backbone = nn.Sequential(_stem(width, stride=2), *_stages(width, stages))
        self.head = head
        self.upsample = upsample

    def forward(self, image: Tensor) -> Tensor:
        scores = self.head(self.backbone(image))
        if not self.upsample:
            return scores
        return functional.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)


class DenseUpsampling(nn.Module):
    """DUC (Wang et al. 2018): parallel dilated convolutions, summed, whose channels are shuffled into pixels."""

    def __init__(self, channels: int, classes: int, *, factor: int, dilations: Sequence[int] = (1, 2, 3, 4)) -> None:
        super().__init__()
        out = classes * factor * factor
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, features: Tensor) -> Tensor:
        # Not `sum`, which starts from 0 and would leave that addition in the exported graph.
        total = self.branches[0](features)
        for branch in list(self.branches)[1:]:
            total = total + branch(features)
        return self.shuffle(total)


def fashion_resnet() -> nn.Module:
    """Build a ResNet-like classifier, 1x1x28x28 to ten classes."""
    return Classifier([Stage(64, 48, 4), Stage(128, 48, 5, stride=2), Stage(256, 64, 5, stride=2)], classes=10)


def fashion_resnext() -> nn.Module:
    """Build a ResNeXt-like classifier: wider inside than the ResNet, in eight groups."""
    stages = [
        Stage(64, 64, 3, groups=8),
        Stage(128, 96, 4, stride=2, groups=8),
        Stage(256, 128, 5, stride=2, groups=8),
    ]
    return Classifier(stages, classes=10)


def canvas_fcn() -> nn.Module:
    """Build an FCN-like segmenter (Long et al. 2015) with output stride 4 and a chain head, to eleven classes."""
    stages = [Stage(64, 32, 2), Stage(128, 48, 3, stride=2), Stage(192, 48, 5)]
    head = nn.Sequential(*_convolution(192, 48, 3), nn.ReLU(inplace=True), nn.Conv2d(48, 11, 1))
    return Segmenter(stages, head, upsample=True)


def canvas_duc() -> nn.Module:
    """Build a DUC-like segmenter: a dilated last stage and dense upsampling from four parallel branches."""
    stages = [Stage(64, 32, 2), Stage(128, 48, 3, stride=2), Stage(128, 32, 5, dilation=2)]
    return Segmenter(stages, DenseUpsampling(128, 11, factor=4), upsample=False)


def _stem(width: int, *, stride: int) -> nn.Module:
    return nn.Sequential(*_convolution(1, width, 3, stride), nn.ReLU(inplace=True))


def _stages(channels: int, stages: Sequence[Stage]) -> list[nn.Module]:
    built: list[nn.Module] = []
    for stage in stages:
        blocks: list[nn.Module] = []
        for index in range(stage.blocks):
            blocks.append(Bottleneck(channels, stage, stage.stride if index == 0 else 1))
            channels = stage.channels
        built.append(nn.Sequential(*blocks))
    return built


def _convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> list[nn.Module]:
    # Keeps the size of the plane where the stride is 1.
    padding = dilation * (kernel // 2)
    # Without a bias: the norm that follows has a shift of its own.
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding, dilation=dilation, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels_out)]
