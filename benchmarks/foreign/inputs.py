"""Data for a model, as its user would bring them: pictures in a folder, or an archive of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.foreign.models import ForeignModel, Pictures, TensorInput

# A tenth calibrates, so that of ten one does, and enough are left to time five.
SAMPLES = 10
Array = NDArray[np.generic]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class ModelData:
    """A model's data on disk, and the same inputs as arrays.

    `data` is what `runner init` takes; `calibration` is what `runner apply` takes.
    """

    data: Path
    calibration: Path
    feeds: Sequence[Feeds]


def write_inputs(model: ForeignModel, folder: Path) -> ModelData:
    """Write seeded inputs of the model to the folder."""
    rng = np.random.default_rng(11)
    if isinstance(model.inputs, Pictures):
        return _write_pictures(model.inputs, folder, rng)
    feeds = [
        {tensor.name: _drawn(tensor, rng) for tensor in model.inputs}  # one inference each
        for _ in range(SAMPLES)
    ]
    stack = {
        tensor.name: (np.concatenate if tensor.samples_along_first else np.stack)([feed[tensor.name] for feed in feeds])
        for tensor in model.inputs
    }
    data = folder / "inputs.npz"
    _save(data, stack)
    return ModelData(data, data, feeds)


def _drawn(tensor: TensorInput, rng: np.random.Generator) -> Array:
    match tensor.values:
        case "normal":
            values = rng.normal(0, tensor.high, tensor.shape)
        case "uniform":
            values = rng.uniform(0, tensor.high, tensor.shape)
        case "integers":
            values = rng.integers(0, int(tensor.high), tensor.shape).astype(np.float64)
        case "constant":
            values = np.full(tensor.shape, tensor.high)
    return np.asarray(values).astype(tensor.dtype)


def _write_pictures(pictures: Pictures, folder: Path, rng: np.random.Generator) -> ModelData:
    """Write noise in coarse and fine grains, which compresses about as a photo does."""
    data = folder / "pictures"
    data.mkdir()
    feeds: list[Feeds] = []
    for index in range(SAMPLES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((pictures.width, pictures.height))
        fine = rng.integers(-20, 21, (pictures.height, pictures.width, 3))
        pixels = np.clip(np.asarray(coarse, np.int16) + fine, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"{index:02d}.png")
        values = (pixels / 255).astype(np.float32)
        feeds.append({pictures.name: (values if pictures.layout == "nhwc" else values.transpose(2, 0, 1))[None]})
    calibration = folder / "calibration.npz"
    _save(calibration, {"pictures": np.concatenate([feed[pictures.name] for feed in feeds])})
    return ModelData(data, calibration, feeds)


def _save(path: Path, arrays: Feeds) -> None:
    # Names such as `input:0` are no keyword arguments, and `numpy.savez` takes them all the same.
    np.savez(path, **arrays)  # type: ignore[arg-type]
