"""The model cards' text, filled from the manifests so that a card cannot state another number than was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.subjects.embedded.images import CLASSES, SIZE, TRAINING_CANVASES
from runner.subjects.pictures import CANVAS_SIDES_PX, PIXELS, POOL, QUALITY


@dataclass(frozen=True)
class Description:
    """The sentences of a card that no manifest holds."""

    what: str
    architecture: str
    items: str
    inputs: str
    preprocessing: str
    limits: str


_INPUTS = f"A pool of {POOL} JPEG files, quality {QUALITY}, composed from the validation garments: "
_FASHION_ITEMS = "The first 2 000 of the 10 000 official test images ship as validation items."
_FASHION_INPUTS = (
    f"{_INPUTS}RGB, {PIXELS[0] / 1e6:g} to {PIXELS[1] / 1e6:g} megapixel with log-uniform area in seven aspect "
    "ratios, one garment in the middle of a textured background."
)
_FASHION_PREPROCESSING = "decode, gray, shorter side to 28, centre crop 28x28, (pixel / 255 - 0.286) / 0.353."
_FASHION_LIMITS = (
    "Garment photographs of 28 pixels only; the latency pictures exercise decoding and resizing and are not what "
    "accuracy is judged on."
)
_CANVAS_ITEMS = (
    f"Trained on {TRAINING_CANVASES:,} canvases composed from the training images. The 2 000 validation canvases are "
    "composed at run time from the 2 000 shipped test images with a fixed seed; the hash of their pixels and labels is "
    "pinned in the manifest and checked. The score on 1 000 canvases is on canvases composed from all 10 000 test "
    "images."
)
_CANVAS_INPUTS = (
    f"{_INPUTS}square grayscale canvases of {CANVAS_SIDES_PX[0]} to {CANVAS_SIDES_PX[1]} pixels a side, log-uniform; "
    "the garments grow with the canvas."
)
_CANVAS_PREPROCESSING = f"decode, gray, stretch to {SIZE}x{SIZE}, (pixel / 255 - 0.35) / 0.25."
_CANVAS_LIMITS = (
    "The scenes are composed, not photographed: labels are exact, one to four garments, hardly any overlap. The "
    "garments' classes resemble one another (shirt, coat, pullover), which bounds the score."
)
DESCRIPTIONS: Mapping[str, Description] = {
    "fashion-resnet": Description(
        what="A small ResNet-like classifier of Fashion-MNIST garments, for trying operators and placements.",
        architecture=(
            "Input 1x1x28x28. A 3x3 stem of width 64, then bottleneck stages 64/48 x 4, 128/48 x 5 (stride 2) and "
            "256/64 x 5 (stride 2), channels/inner channels x blocks; the last four blocks are identical. Global "
            "average, one linear layer, ten classes."
        ),
        items=_FASHION_ITEMS,
        inputs=_FASHION_INPUTS,
        preprocessing=_FASHION_PREPROCESSING,
        limits=_FASHION_LIMITS,
    ),
    "fashion-resnext": Description(
        what="A small ResNeXt-like classifier of Fashion-MNIST garments, for trying operators and placements.",
        architecture=(
            "Input 1x1x28x28. A 3x3 stem of width 64, then bottleneck stages 64/64 x 3, 128/96 x 4 (stride 2) and "
            "256/128 x 5 (stride 2), channels/inner channels x blocks, the 3x3 convolutions in eight groups; the last "
            "four blocks are identical. Global average, one linear layer, ten classes."
        ),
        items=_FASHION_ITEMS,
        inputs=_FASHION_INPUTS,
        preprocessing=_FASHION_PREPROCESSING,
        limits=_FASHION_LIMITS,
    ),
    "canvas-fcn": Description(
        what="A small FCN-like segmenter of composed canvases, for trying operators and placements.",
        architecture=(
            f"Input 1x1xHxW (used at {SIZE}x{SIZE}). A 3x3 stem of width 64 and stride 2, then bottleneck stages "
            "64/32 x 2, 128/48 x 3 (stride 2) and 192/48 x 5; the last four blocks are identical. A 3x3 and a 1x1 "
            "convolution, then bilinear upsampling to the input's size: "
            f"{CLASSES} classes, background and ten garments."
        ),
        items=_CANVAS_ITEMS,
        inputs=_CANVAS_INPUTS,
        preprocessing=_CANVAS_PREPROCESSING,
        limits=_CANVAS_LIMITS,
    ),
    "canvas-duc": Description(
        what="A small DUC-like segmenter of composed canvases, for trying operators and placements.",
        architecture=(
            f"Input 1x1xHxW (used at {SIZE}x{SIZE}). A 3x3 stem of width 64 and stride 2, then bottleneck stages "
            "64/32 x 2, 128/48 x 3 (stride 2) and 128/32 x 5 with dilation 2; the last five blocks are identical. "
            "Dense upsampling: four parallel 3x3 convolutions with dilations 1 to 4, summed, their channels shuffled "
            f"into pixels: {CLASSES} classes, background and ten garments."
        ),
        items=_CANVAS_ITEMS,
        inputs=_CANVAS_INPUTS,
        preprocessing=_CANVAS_PREPROCESSING,
        limits=_CANVAS_LIMITS,
    ),
}


def card(name: str, manifest: Mapping[str, Any]) -> str:
    """Return the model card in Markdown."""
    text = DESCRIPTIONS[name]
    return f"""# {name}

{text.what} It is a stand-in that ships with the package, not a model to use for anything else.

## Architecture

{text.architecture} {manifest["parameters"]:,} parameters, {manifest["model_size_bytes"]:,} bytes of ONNX
(opset 17, batch 1, batch norms folded).

## Data and licence

Fashion-MNIST, 60 000 training and 10 000 test images of ten kinds of garments, 28x28, grayscale. Expat (MIT) licence,
copyright 2017 Zalando SE; see NOTICE. {text.items} Training and test garments are disjoint.
200 training images ship for calibration.

## Training

`python -m runner.subjects.training.train {name}`: {manifest["epochs"]} epochs, cross-entropy, SGD with Nesterov momentum on
one cycle, bfloat16 arithmetic, horizontal flips, seed {manifest["seed"]}; {_minutes(manifest)}.
No stochastic depth, and nothing chosen by what an operator later does to the model. Versions and hashes are in
`{name}.json`. The seed fixes the data's order and the first weights; another CPU rounds differently and ends elsewhere.

## Score

| items | {" | ".join(_title(key) for key in manifest["score"])} |
|---|{"---|" * len(manifest["score"])}
| {manifest["test_items"]:,} test items | {_values(manifest["score"])} |
| {manifest["shipped_items"]:,} shipped validation items | {_values(manifest["shipped_score"])} |

Computed in ONNX Runtime on the exported file.

## Pre-processing

{text.preprocessing[0].upper()}{text.preprocessing[1:]}

## Latency inputs

{text.inputs} This range was fixed before anything was measured.

## Limits

{text.limits}
"""


def _minutes(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['wall_time_s'] / 60:.0f} minutes, CPU threads: {manifest['threads']}"


def _title(key: str) -> str:
    return {"top1_pct": "top-1 %", "top5_pct": "top-5 %", "miou_pct": "mIoU %"}[key]


def _values(score: Mapping[str, float]) -> str:
    return " | ".join(f"{value:.2f}" for value in score.values())
