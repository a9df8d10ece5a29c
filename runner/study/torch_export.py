"""From torchvision's models to ONNX files. The only module of the study that imports torch.

The TorchScript exporter is used: it writes the same graphs without the 0.4 MiB of metadata of the newer one, and
folds BatchNorm into the convolutions, as in the study's files.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torchvision import models

from runner.study.files import RANDOM, Torchvision

OPSET = 17


def export(architecture: Torchvision, weights: str, path: Path, *, dynamic: bool = False, seed: int = 0) -> None:
    """Write a model with published weights (downloaded by torchvision) or random ones; `dynamic`: any image size."""
    model = _model(architecture, weights, seed).eval()
    axes = {"input": {2: "height", 3: "width"}, "output": {2: "height", 3: "width"}} if dynamic else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # that this exporter is the older of the two
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # sizes are constants, which is intended
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, architecture.size_px, architecture.size_px),),
            str(path),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _model(architecture: Torchvision, weights: str, seed: int) -> Any:
    # Before the model is made: its constructor draws the random weights.
    torch.manual_seed(seed)
    options: dict[str, Any] = {"weights": None if weights == RANDOM else weights}
    if architecture.segments:
        # The published weights include an auxiliary head, which training uses and inference does not.
        options |= {"weights_backbone": None, "aux_loss": None if weights != RANDOM else False}
    model = models.get_model(architecture.constructor, **options)
    if architecture.segments:
        model.aux_classifier = None
    if weights == RANDOM:
        _settle(model, architecture.size_px)
    return model


def _settle(model: Any, size_px: int) -> None:
    """Take BatchNorm's statistics from a few random pictures: without them, activations explode over a hundred
    layers."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = None  # the plain average over the batches
    model.train()
    with torch.no_grad():
        model(_pictures(min(size_px, 256)))


def _pictures(size_px: int, count: int = 8) -> Any:
    """Make patches, grain and a brightness for each picture: as varied as normalised photographs."""
    patches = torch.nn.functional.interpolate(torch.randn(count, 3, 8, 8), size=(size_px, size_px), mode="bilinear")
    return patches + 0.2 * torch.randn(count, 3, size_px, size_px) + 0.5 * torch.randn(count, 3, 1, 1)
