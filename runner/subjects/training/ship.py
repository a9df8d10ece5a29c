"""Cut the shipped slices of Fashion-MNIST, complete the manifests and write the model cards after a training.

    python -m runner.subjects.training.ship --data DIR

Needs no torch: it reads the exported ONNX files and the manifests that ``training`` wrote beside them.
"""

import argparse
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from runner.subjects.embedded.datasets import (
    BUILTIN,
    CANVAS,
    SUBJECTS,
    Garments,
    SubjectFamily,
    canvases_sha256,
    validation_canvases,
)
from runner.subjects.embedded.images import CANVAS_SIDES_PX, CLASSES, PIXELS, POOL, QUALITY, SIZE, TRAINING_CANVASES


@dataclass(frozen=True)
class CardText:
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
DESCRIPTIONS: Mapping[str, CardText] = {
    "fashion-resnet": CardText(
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
    "fashion-resnext": CardText(
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
    "canvas-fcn": CardText(
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
    "canvas-duc": CardText(
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

`python -m runner.subjects.training.train {name}`: {manifest["epochs"]} epochs, cross-entropy, SGD with Nesterov
momentum on one cycle, bfloat16 arithmetic, horizontal flips, seed {manifest["seed"]}; {_minutes(manifest)}.
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


FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


@dataclass(frozen=True)
class Data:
    """Pictures uint8 [n, h, w] and targets int64: labels [n] or masks [n, h, w]."""

    pictures: NDArray[np.uint8]
    targets: NDArray[np.int64]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file: two zero bytes, the type, the rank, big-endian sizes, then the data."""
    raw = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(tuple(sizes))


def load_data(directory: Path, part: str) -> Data:
    """Read the images and labels of "train" or "test"."""
    images, labels = (read_idx(directory / name) for name in FILES[part])
    return Data(images, labels.astype(np.int64))


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def normalise(pictures: NDArray[np.uint8], family: SubjectFamily) -> NDArray[np.float32]:
    """Return what the declared pre-processing makes of pictures that already have the graph's size, [n, 1, h, w]."""
    scaled = (pictures.astype(np.float32) / 255 - family.mean) / family.std
    return scaled[:, None].astype(np.float32)


def score(path: Path, data: Data, family: SubjectFamily) -> dict[str, float]:
    """Return top-1 and top-5, or mIoU, in percent, rounded to four decimals."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = (session.run(None, {"input": item[None]})[0][0] for item in normalise(data.pictures, family))
    if family.task == "segmentation":
        predicted = np.stack([output.argmax(0) for output in outputs])
        return {"miou_pct": round(miou_pct(predicted, data.targets, family.classes), 4)}
    order = np.argsort(-np.stack(list(outputs)), axis=1, kind="stable")[:, :5]
    hits = order == data.targets[:, None]
    return {
        "top1_pct": round(100 * float(hits[:, 0].mean()), 4),
        "top5_pct": round(100 * float(hits.any(1).mean()), 4),
    }


def miou_pct(predicted: NDArray[np.int64], masks: NDArray[np.int64], classes: int) -> float:
    """Average over the classes of summed intersections over summed unions of all items."""
    pairs = np.bincount((masks * classes + predicted).ravel(), minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    intersection = np.diag(confusion)
    return 100 * float((intersection / (confusion.sum(0) + confusion.sum(1) - intersection)).mean())


VALIDATION_IMAGES = 2_000
CALIBRATION_PER_CLASS = 20


def write_slices(source: Path, target: Path) -> None:
    """Write the first 2 000 test images, and the first twenty training images of each class."""
    train, test = load_data(source, "train"), load_data(source, "test")
    _write(target / "fashion_validation.npz", test, np.arange(VALIDATION_IMAGES))
    classes = [np.flatnonzero(train.targets == label)[:CALIBRATION_PER_CLASS] for label in range(10)]
    # Interleaved, so that any prefix of the calibration images holds the classes evenly.
    _write(target / "fashion_calibration.npz", train, np.stack(classes, axis=1).ravel())


def shipped_items(target: Path, *, segmentation: bool) -> Data:
    """Return the validation items that ship, as arrays."""
    with np.load(target / "fashion_validation.npz") as content:
        garments = Garments(content["images"], content["labels"].astype(np.int64))
    if not segmentation:
        return Data(garments.images, garments.labels)
    canvases = validation_canvases(garments)
    masks = np.stack([canvas.mask for canvas in canvases]).astype(np.int64)
    return Data(np.stack([canvas.image for canvas in canvases]), masks)


def complete(name: str, target: Path) -> None:
    """Add the shipped files' hashes and the score on the shipped items to a manifest; write the card."""
    path, family = target / f"{name}.json", SUBJECTS[f"builtin:{name}"]
    manifest = json.loads(path.read_text(encoding="utf-8"))
    files = ("fashion_validation.npz", "fashion_calibration.npz")
    manifest["shipped_sha256"] = {file: sha256(target / file) for file in files}
    items = shipped_items(target, segmentation=family is CANVAS)
    manifest["shipped_items"] = len(items.pictures)
    manifest["shipped_score"] = score(target / f"{name}.onnx", items, family)
    if family is CANVAS:
        garments = shipped_items(target, segmentation=False)
        canvases = validation_canvases(Garments(garments.pictures, garments.targets))
        manifest["validation_canvases_sha256"] = canvases_sha256(canvases)
    weights = onnx.load(target / f"{name}.onnx").graph.initializer
    manifest["parameters"] = int(sum(np.prod(weight.dims) for weight in weights if weight.data_type == 1))
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (target / f"{name}.md").write_text(card(name, manifest), encoding="utf-8")


def _write(path: Path, data: Data, chosen: NDArray[np.int64]) -> None:
    np.savez_compressed(path, images=data.pictures[chosen], labels=data.targets[chosen].astype(np.uint8))


def main() -> None:
    """Ship every trained subject."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the four idx.gz files")
    parser.add_argument("--out", type=Path, default=BUILTIN)
    options = parser.parse_args()
    write_slices(options.data, options.out)
    for model in SUBJECTS:
        complete(model.removeprefix("builtin:"), options.out)


if __name__ == "__main__":
    main()
