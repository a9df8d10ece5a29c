"""Cut the shipped slices of Fashion-MNIST, complete the manifests and write the model cards after a training.

    python -m runner.subjects.training.ship --data DIR

Needs no torch: it reads the exported ONNX files and the manifests that ``training`` wrote beside them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from runner.subjects.cards import card
from runner.subjects.dataset import Garments, canvases_sha256, validation_canvases
from runner.subjects.embedded.registry import BUILTIN, CANVAS, SUBJECTS
from runner.subjects.scoring import score
from runner.subjects.sources import Data, load_data, sha256

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
