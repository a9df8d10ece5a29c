"""From a model file to a proven answer: `python -m benchmarks.first_answer [--launcher docker]` (some minutes).

A classifier of 22 MiB with random weights and 92 pictures of noise stand for what a user brings. In a directory of its
own, `runner init` writes the catalog, `runner recommend` with `--measure` asks for the best strategy within a latency
budget that the model holds on one tier at least, the same question is asked again, and then with labels and a limit of
the drop. For each step the elapsed time is printed, with the goal where there is one; exit code 1 when one is missed.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.console import Console
from rich.table import Table

SIZE_PX, CLASSES, PICTURES = 224, 1000, 92
_LABELS = "labels.csv"


@dataclass(frozen=True)
class Stage:
    """A run of identical bottleneck blocks behind one that halves the resolution."""

    inner: int
    outer: int
    blocks: int
    stride: int


# Together with the last layer 5.8 million weights.
STAGES = (Stage(32, 128, 2, 1), Stage(64, 256, 3, 2), Stage(128, 512, 5, 2), Stage(236, 896, 3, 2))
_STEM = 32


class Classifier:
    """A residual classifier that is written node by node, so that it needs no training framework."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """Return the whole model: pictures of one size to scores of classes."""
        value = self._node("Relu", self._convolution("image", 3, _STEM, kernel=3, stride=2))
        value = self._node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        channels = _STEM
        for stage in STAGES:
            for index in range(stage.blocks):
                value = self._bottleneck(value, channels, stage, stride=stage.stride if index == 0 else 1)
                channels = stage.outer
        value = self._node("Flatten", self._node("GlobalAveragePool", value))
        last = self._weight("last", self._rng.normal(0, channels**-0.5, (channels, CLASSES)))
        self._nodes.append(helper.make_node("MatMul", [value, last], ["scores"]))
        graph = helper.make_graph(
            self._nodes,
            "classifier",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE_PX, SIZE_PX])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _bottleneck(self, value: str, channels: int, stage: Stage, *, stride: int) -> str:
        inner = self._node("Relu", self._convolution(value, channels, stage.inner, kernel=1))
        inner = self._node("Relu", self._convolution(inner, stage.inner, stage.inner, kernel=3, stride=stride))
        # Small, so that the sums along a run of blocks stay in range.
        outer = self._convolution(inner, stage.inner, stage.outer, kernel=1, gain=0.3)
        if channels != stage.outer or stride != 1:
            value = self._convolution(value, channels, stage.outer, kernel=1, stride=stride)
        return self._node("Relu", value, outer, operator="Add")

    def _convolution(
        self, value: str, before: int, after: int, *, kernel: int, stride: int = 1, gain: float = 1.4
    ) -> str:
        spread = gain / (before * kernel * kernel) ** 0.5
        weight = self._weight(f"w{len(self._weights)}", self._rng.normal(0, spread, (after, before, kernel, kernel)))
        bias = self._weight(f"b{len(self._weights)}", np.zeros(after))
        pads = [kernel // 2] * 4
        return self._node("Conv", value, weight, bias, kernel_shape=[kernel, kernel], strides=[stride] * 2, pads=pads)

    def _node(self, op_type: str, *inputs: str, operator: str | None = None, **attributes: object) -> str:
        """Append a node, or the two of a sum with its activation, and return the name of the output."""
        if operator is not None:
            inputs = (self._node(operator, *inputs),)
        output = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=f"n{output}", **attributes))
        return output

    def _weight(self, name: str, values: NDArray[np.float64]) -> str:
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    """Write JPEGs of noise of several sizes, as photos differ, and a file with a label for each."""
    folder.mkdir(parents=True)
    with (folder.parent / _LABELS).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        for number in range(PICTURES):
            side = int(rng.integers(180, 420))
            # Coarse noise under fine noise, so that a JPEG is as large as one of a photo.
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize((side, side))
            fine = rng.integers(-12, 13, (side, side, 3))
            pixels = np.clip(np.asarray(coarse, np.int16) + fine, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=85)
            table.writerow([f"{number:03}.jpg", int(rng.integers(CLASSES))])


@dataclass(frozen=True)
class Step:
    """One command with the goal of its time in seconds, None where it has none."""

    name: str
    arguments: tuple[str, ...]
    goal_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How long a step took, and the status of its answer."""

    step: Step
    elapsed_s: float
    status: str

    @property
    def reached(self) -> bool:
        return self.step.goal_s is None or (self.status == "proven" and self.elapsed_s <= self.step.goal_s)


def main() -> int:
    """Run the steps and print the table."""
    parser = argparse.ArgumentParser(description="From a model file to a proven answer.")
    parser.add_argument("--launcher", default="auto", help="auto, docker or process")
    parser.add_argument("--max-latency", default="150ms", help="the latency budget that is asked for")
    parser.add_argument("--measure", default="10m", help="the longest that a question may measure")
    parser.add_argument("--into", type=Path, help="keep everything in this new directory")
    arguments = parser.parse_args()
    options = ("--launcher", arguments.launcher, "--measure", arguments.measure)
    question = ("recommend", "classifier", "--max-latency", arguments.max_latency, *options)
    with _directory(arguments.into) as directory:
        model = Classifier(np.random.default_rng(1)).model()
        onnx.save(model, directory / "classifier.onnx")
        write_pictures(directory / "photos", np.random.default_rng(2))
        outcomes = [
            _run(Step("init", ("init", "--model", "classifier.onnx", "--data", "photos")), directory),
            _run(Step("the first answer", question, 240.0), directory),
            _run(Step("the same question again", question, 1.0), directory),
        ]
        _add_labels(directory / "strategies.yaml")
        outcomes.append(_run(Step("with labels", (*question, "--max-drop", "100"), 60.0), directory))
    Console(width=100).print(_table(outcomes))
    return 0 if all(outcome.reached for outcome in outcomes) else 1


@contextmanager
def _directory(into: Path | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="first-answer-")) if into is None else into
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory
    finally:
        if into is None:
            shutil.rmtree(directory, ignore_errors=True)


def _run(step: Step, directory: Path) -> Outcome:
    asks = step.arguments[0] == "recommend"
    command = [sys.executable, "-m", "runner", *step.arguments, *(["--json"] if asks else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    begun = time.monotonic()
    done = subprocess.run(command, cwd=directory, env=environment, check=False, stdout=subprocess.PIPE)
    elapsed_s = time.monotonic() - begun
    if asks and done.stdout:
        return Outcome(step, elapsed_s, str(json.loads(done.stdout)["status"]))
    return Outcome(step, elapsed_s, f"exit code {done.returncode}")


def _add_labels(catalog: Path) -> None:
    """Declare the labels as the remarks in the written catalog say."""
    text = catalog.read_text(encoding="utf-8")
    text = text.replace("task: any ", "task: classification ")
    catalog.write_text(text.replace("dataset: {images: photos}", f"dataset: {{images: photos, labels: {_LABELS}}}"))


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("step", "status", pad_edge=False)
    for heading in ("elapsed", "goal"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        goal = "" if outcome.step.goal_s is None else f"{outcome.step.goal_s:.0f} s"
        mark = "" if outcome.reached else " missed"
        table.add_row(outcome.step.name, outcome.status, f"{outcome.elapsed_s:.1f} s", f"{goal}{mark}")
    return table


if __name__ == "__main__":
    sys.exit(main())
