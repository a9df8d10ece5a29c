"""Train an embedded subject, export it, score the exported file and write down how (needs the extra ``torch``).

    python -m runner.subjects.training.train fashion-resnet --data DIR
    python -m runner.subjects.training.ship --data DIR      # then: slices, pins and cards

DIR holds the four idx.gz files of Fashion-MNIST. The training is plain - cross-entropy, SGD on one cycle, flips -
and nothing in it is chosen by what an operator later does to the model.
"""

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from runner.subjects.embedded.datasets import CANVAS, FASHION, SubjectFamily
from runner.subjects.embedded.images import TEST_CANVASES, TRAINING_CANVASES, compose_canvases
from runner.subjects.training import networks
from runner.subjects.training.ship import FILES, Data, load_data, normalise, score, sha256

logger = logging.getLogger(__name__)

SEED = 20261124
TEST_SEED = 20261125
BATCH = 128
OPSET = 17


@dataclass(frozen=True)
class Recipe:
    """What differs between the subjects."""

    network: Callable[[], nn.Module]
    family: SubjectFamily
    epochs: int

    @property
    def segmentation(self) -> bool:
        return self.family.task == "segmentation"


RECIPES: Mapping[str, Recipe] = {
    "fashion-resnet": Recipe(networks.fashion_resnet, FASHION, 6),
    "fashion-resnext": Recipe(networks.fashion_resnext, FASHION, 4),
    "canvas-fcn": Recipe(networks.canvas_fcn, CANVAS, 12),
    "canvas-duc": Recipe(networks.canvas_duc, CANVAS, 8),
}


def compose_data(garments: Data, *, count: int, seed: int) -> Data:
    """Compose canvases of one part's garments."""
    canvases = list(compose_canvases(garments.pictures, garments.targets, count=count, seed=seed))
    masks = np.stack([canvas.mask for canvas in canvases])
    return Data(np.stack([canvas.image for canvas in canvases]), masks.astype(np.int64))


def train(network: nn.Module, data: Data, recipe: Recipe, epochs: int) -> None:
    """Fit with SGD and Nesterov momentum on one cycle; bfloat16 arithmetic, float32 weights."""
    inputs, targets = torch.from_numpy(normalise(data.pictures, recipe.family)), torch.from_numpy(data.targets)
    # Without the smaller batch at the end, so that the schedule knows its steps.
    steps = len(inputs) // BATCH
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.25)
    network.train().to(memory_format=torch.channels_last)
    for epoch in range(epochs):
        order, total, started = torch.randperm(len(inputs)), 0.0, time.perf_counter()
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            total += _step(network, inputs[chosen], targets[chosen], optimizer)
            schedule.step()
            if step % 50 == 0:
                logger.info("  step %d/%d loss %.4f", step, steps, total / (step + 1))
        took = time.perf_counter() - started
        logger.info("epoch %d/%d: loss %.4f, %.0f s", epoch + 1, epochs, total / steps, took)


def export(network: nn.Module, path: Path, recipe: Recipe) -> None:
    """Write ONNX through the TorchScript exporter: batch 1, constants and batch norms folded."""
    dynamic = {2: "height", 3: "width"}
    torch.onnx.export(
        network.eval().to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 1, recipe.family.size, recipe.family.size),),
        str(path),
        input_names=["input"],
        output_names=["scores"],
        # Segmenters take pictures of any size, classifiers only of the one they were trained with.
        dynamic_axes={"input": dynamic, "scores": dynamic} if recipe.segmentation else None,
        opset_version=OPSET,
        do_constant_folding=True,
        dynamo=False,
    )
    onnx.checker.check_model(str(path), full_check=True)


def _step(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
    # A mask is flipped with its picture; a label has no direction.
    if torch.rand(()) < 0.5:
        inputs, targets = inputs.flip(-1), targets.flip(-1) if targets.ndim > 1 else targets
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(inputs.contiguous(memory_format=torch.channels_last))
    # In float32: bfloat16 keeps 8 bits of a number.
    loss = nn.functional.cross_entropy(scores.float(), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _manifest(name: str, path: Path, data: Path, epochs: int) -> dict[str, object]:
    return {
        "format": 1,
        "subject": name,
        "seed": SEED,
        "epochs": epochs,
        "model_sha256": sha256(path),
        "model_size_bytes": path.stat().st_size,
        "data_sha256": {file: sha256(data / file) for files in FILES.values() for file in files},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    }


def main() -> None:
    """Train one subject and write its ONNX file and manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="directory of the four idx.gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "builtin")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    # Before the network is created, because the seed determines its first weights.
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    recipe, started = RECIPES[options.subject], time.perf_counter()
    epochs = options.epochs or recipe.epochs
    training, test = load_data(options.data, "train"), load_data(options.data, "test")
    if recipe.segmentation:
        training = compose_data(training, count=TRAINING_CANVASES, seed=SEED)
        test = compose_data(test, count=TEST_CANVASES, seed=TEST_SEED)
    network, path = recipe.network(), options.out / f"{options.subject}.onnx"
    train(network, training, recipe, epochs)
    export(network, path, recipe)
    manifest = _manifest(options.subject, path, options.data, epochs)
    manifest["test_items"] = len(test.pictures)
    manifest["score"] = score(path, test, recipe.family)
    manifest["threads"], manifest["wall_time_s"] = options.threads, round(time.perf_counter() - started)
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
