"""Writes the model files of this folder: torchvision's families at a size that a repository can hold.

Random weights, because the tests that read them ask what a network's structure allows, never how well it predicts.
Wants `pip install 'tierwise[torch]'`; nothing else does. Half come from each of torch's two exporters.

    python tests/data/families/export.py
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams

FOLDER = Path(__file__).parent
SIDE = 32


def _mobilenet_v2() -> nn.Module:
    return models.MobileNetV2(num_classes=10, width_mult=0.25, inverted_residual_setting=[[1, 8, 1, 1], [4, 8, 4, 2]])


def _mobilenet_v3() -> nn.Module:
    block = partial(InvertedResidualConfig, kernel=3, use_se=True, activation="HS", dilation=1, width_mult=1.0)
    settings = [block(8, expanded_channels=24, out_channels=16, stride=2)]
    settings += [block(16, expanded_channels=32, out_channels=16, stride=1) for _ in range(3)]
    return models.MobileNetV3(settings, last_channel=32, num_classes=10)


def _shufflenet_v2() -> nn.Module:
    return models.ShuffleNetV2([1, 3, 1], [8, 16, 32, 64, 64], num_classes=10)


def _densenet() -> nn.Module:
    return models.DenseNet(growth_rate=4, block_config=(3, 3), num_init_features=8, bn_size=2, num_classes=10)


def _regnet() -> nn.Module:
    return models.RegNet(BlockParams([1, 4], [8, 16], [4, 8], [1.0, 1.0], [2, 2]), num_classes=10, stem_width=8)


def _efficientnet() -> nn.Module:
    settings = [MBConvConfig(1, 3, 1, 8, 8, 1, 1.0, 1.0), MBConvConfig(4, 3, 2, 8, 16, 3, 1.0, 1.0)]
    return models.EfficientNet(settings, dropout=0.1, num_classes=10)


def _convnext() -> nn.Module:
    return models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 3)], num_classes=10)


def _vit() -> nn.Module:
    return models.VisionTransformer(SIDE, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10)


def _lraspp() -> nn.Module:
    """A segmenter: its head reads two depths of the backbone."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import LRASPP

    backbone = IntermediateLayerGetter(_mobilenet_v3().features, {"0": "low", "4": "high"})
    return _First(LRASPP(backbone, 8, 16, num_classes=4, inter_channels=16))


class _First(nn.Module):
    """The segmenter's map alone, of the mapping that torchvision gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Any) -> Any:
        return self.inner(image)["out"]


# What builds each.
BY_SCRIPT = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3": _mobilenet_v3,
    "shufflenet_v2": _shufflenet_v2,
    "densenet": _densenet,
    "regnet": _regnet,
    "lraspp": _lraspp,
}
BY_EXPORT = {"efficientnet": _efficientnet, "convnext": _convnext, "vit": _vit}
# Exported so that batch and size stay free.
FREE = ("mobilenet_v3",)


def export(name: str, build: Callable[[], nn.Module], *, dynamo: bool) -> None:
    """Write one family's file, without what the exporter says of its own doings."""
    torch.manual_seed(7)
    model = build()
    model.train()
    with torch.no_grad():
        for _ in range(4):  # BatchNorm's statistics, without which activations die out or explode
            model(torch.randn(8, 3, SIDE, SIDE))
    axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}} if name in FREE else None
    path = FOLDER / f"{name}.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            input_names=["input"],
            output_names=["output"],
            opset_version=18 if dynamo else 17,
            dynamic_axes=axes,
            dynamo=dynamo,
            external_data=False,
            verbose=False,
        )
    written = onnx.load(path)
    for node in written.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del written.graph.value_info[:]
    onnx.save(written, path)
    print(f"{path.stat().st_size:8,} bytes  {name}")


if __name__ == "__main__":
    for name, build in (BY_SCRIPT | BY_EXPORT).items():
        export(name, build, dynamo=name in BY_EXPORT)
