"""A sound project: a model, pictures, labels, a catalog and the evidence that a fill of it left."""

import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.hostile.door import typed

FILL = ("fill-catalog", "--launcher", "process")
CATALOG = """\
version: 1
subjects:
  mine:
    model: ./my.onnx
    task: classification
    dataset: {images: images, labels: labels.csv}
operators: {identity: []}
tiers:
  mobile: {cpus: 0.5, memory: 512m, provider: cpu}
strategies:
  - {operators: [identity], placements: [mobile]}
experiment: {inputs: 5, rounds: 1, warmup: 0}
"""
IMAGES, MASKS, TENSORS = (
    "classification\n    dataset: {images: images, labels: labels.csv}",
    "segmentation\n    dataset: {images: images, masks: masks}",
    "classification\n    dataset: {tensors: data.npz}",
)
_SHAPE = (1, 3, 12, 16)


def model_of(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], **options: object) -> onnx.ModelProto:
    """Return a model with one input `x` and one output `scores`."""
    kind, shape, opset = options.get("kind", TensorProto.FLOAT), options.get("shape", _SHAPE), options.get("opset", 17)
    taken = [helper.make_tensor_value_info("x", kind, shape)]
    scores = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, options.get("gives", (1, 3)))]
    graph = helper.make_graph(nodes, "g", taken, scores, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def classifier(**options: object) -> onnx.ModelProto:
    """Return a model of three classes from the mean of each channel; `op` replaces the mean."""
    channels = options.get("shape", _SHAPE)[1]  # type: ignore[index]
    weights = np.random.default_rng(0).normal(size=(channels, 3)).astype(np.float32)
    nodes = [
        helper.make_node(str(options.get("op", "ReduceMean")), ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"]),
    ]
    return model_of(nodes, [numpy_helper.from_array(weights, "w")], **options)


def segmenter() -> onnx.ModelProto:
    """Return a model of three classes for every pixel."""
    weights = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [helper.make_node("Conv", ["x", "w"], ["scores"])]
    return model_of(nodes, [numpy_helper.from_array(weights, "w")], gives=(1, 3, 12, 16))


def with_masks(folder: Path) -> None:
    """Give the project masks instead of labels."""
    onnx.save(segmenter(), folder / "my.onnx")
    edit(folder, IMAGES, MASKS)


def with_tensors(folder: Path) -> None:
    """Give the project tensors instead of pictures."""
    edit(folder, IMAGES, TENSORS)


def edit(folder: Path, old: str, new: str) -> None:
    """Change the catalog file."""
    path = folder / "strategies.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def evidence(path: Path) -> tuple[object, ...]:
    """Return all that was measured, to see that nothing of it is lost or doubled."""
    connection = sqlite3.connect(path)
    try:
        return tuple(
            connection.execute(query).fetchall()
            for query in (
                "PRAGMA integrity_check",
                "SELECT id, latency_key, round, status, verdict FROM measurement ORDER BY id",
                "SELECT measurement_id, latency_s FROM sample ORDER BY 1, 2",
                "SELECT key, status, top1_pct FROM accuracy ORDER BY 1",
            )
        )
    finally:
        connection.close()


def copy_project(target: Path) -> Path:
    """Copy the sound project, to spoil the copy."""
    shutil.copytree(_sound(), target, dirs_exist_ok=True)
    return target


@functools.cache
def _sound() -> Path:
    """Make the project once per process, with the results of trial runs, so that copies start quickly."""
    holder = tempfile.TemporaryDirectory(prefix="tierwise-sound-")
    _kept.append(holder)
    folder = Path(holder.name)
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    names = [f"{index:02d}.png" for index in range(12)]
    for name in names:
        Image.fromarray(random.integers(0, 255, (10, 20, 3), np.uint8)).save(folder / "images" / name)
        Image.fromarray(random.integers(0, 3, (10, 20), np.uint8)).save(folder / "masks" / name)
    (folder / "labels.csv").write_text("".join(f"{name},{index % 3}\n" for index, name in enumerate(names)))
    values = random.normal(size=(12, *_SHAPE[1:])).astype(np.float32)
    np.savez(folder / "data.npz", x=values, labels=np.arange(12) % 3)
    (folder / "strategies.yaml").write_text(CATALOG)
    onnx.save(classifier(), folder / "my.onnx")
    for change in (with_tensors, with_masks):
        change(folder)
        assert typed(folder, ("validate",)).code == 0
        (folder / "strategies.yaml").write_text(CATALOG)
        onnx.save(classifier(), folder / "my.onnx")
    done = typed(folder, FILL)
    assert done.code == 0, done.err
    return folder


_kept: list[tempfile.TemporaryDirectory[str]] = []
