"""Data for a model, as its user would bring them: pictures in a folder, or an archive of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

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
    """Write pictures of text or noise."""
    data = folder / "pictures"
    data.mkdir()
    feeds: list[Feeds] = []
    for index in range(SAMPLES):
        pixels = (_text if pictures.text else _noise)(pictures.height, pictures.width, rng)
        Image.fromarray(pixels).save(data / f"{index:02d}.png")
        values = (pixels / 255).astype(np.float32)
        feeds.append({pictures.name: (values if pictures.layout == "nhwc" else values.transpose(2, 0, 1))[None]})
    calibration = folder / "calibration.npz"
    _save(calibration, {"pictures": np.concatenate([feed[pictures.name] for feed in feeds])})
    return ModelData(data, calibration, feeds)


def _noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw coarse and fine grains, which compress about as a photo does."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((width, height))
    fine = rng.integers(-20, 21, (height, width, 3))
    pixels: NDArray[np.uint8] = np.clip(np.asarray(coarse, np.int16) + fine, 0, 255).astype(np.uint8)
    return pixels


def _text(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw lines of capital letters and figures, dark on a light ground."""
    picture = Image.new("RGB", (width, height), tuple(int(value) for value in rng.integers(200, 256, 3)))
    pen = ImageDraw.Draw(picture)
    for top in range(8, height - 24, 32):
        letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVW 0123456789"), width // 16))
        pen.text((int(rng.integers(4, 24)), top), letters, fill=(20, 20, 40), font_size=int(rng.integers(16, 26)))
    return np.asarray(picture)


def _save(path: Path, arrays: Feeds) -> None:
    # Names such as `input:0` are no keyword arguments, and `numpy.savez` takes them all the same.
    np.savez(path, **arrays)  # type: ignore[arg-type]
