"""Run this bundle: an encoded input in, the prediction out. Needs onnxruntime, numpy and pillow, and nothing else.

    python run.py picture.jpg                       all parts in this process; the prediction as JSON
    python run.py picture.jpg --part head -o cut.npz    one part, as on its tier; what crosses the link is in cut.npz
    python run.py cut.npz --part tail                   the next part, on the next tier
    python run.py --check                           compare every file with the manifest's checksums

As a module: `Bundle()(Path("picture.jpg").read_bytes())` gives arrays by name.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Set before the import, which reads it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

HERE = Path(__file__).resolve().parent
SHOWN = 20


class Bundle:
    """The parts in order, or the one that is named, each with the threads and the provider it was measured with."""

    def __init__(self, directory: Path = HERE, part: str | None = None) -> None:
        self.manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        every = self.manifest["parts"]
        self.parts = [entry for entry in every if part in (None, entry["part"])]
        if not self.parts:
            raise SystemExit(f"there is no part {part!r}; the parts are: {', '.join(entry['part'] for entry in every)}")
        self.first, self.last = self.parts[0] is every[0], self.parts[-1] is every[-1]
        self.sessions = [session(directory / part["file"], part, self.manifest["session"]) for part in self.parts]

    def __call__(self, encoded: bytes) -> dict[str, Any]:
        """Return the outputs by name, of the whole strategy or of the part."""
        arrays = self.inputs(encoded)
        for session in self.sessions:
            names = [value.name for value in session.get_outputs()]
            arrays = dict(zip(names, session.run(names, arrays), strict=True))
        return postprocess(arrays, self.manifest["postprocess"]) if self.last else arrays

    def inputs(self, encoded: bytes) -> dict[str, Any]:
        """Return the first graph's inputs: from an image, a file of tensors, or the outputs of the part before."""
        if not self.first:
            with np.load(io.BytesIO(encoded), allow_pickle=False) as content:
                return dict(content)
        names = [value.name for value in self.sessions[0].get_inputs()]
        if self.manifest["preprocess"]["kind"] == "tensors":
            return dict(zip(names, tensors(encoded), strict=True))
        return {names[0]: preprocess(encoded, self.manifest["preprocess"])}


def session(path: Path, part: dict[str, Any], settings: dict[str, Any]) -> onnxruntime.InferenceSession:
    """Create a session with the settings of the measurement."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = part["threads"]
    options.inter_op_num_threads = settings["inter_op_num_threads"]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, settings["graph_optimization_level"])
    # 3 is ERROR: ONNX Runtime's warnings would stand between a user and the prediction.
    options.log_severity_level = 3
    for name, value in settings["config"].items():
        options.add_session_config_entry(name, value)
    if part["provider"] not in onnxruntime.get_available_providers():
        raise SystemExit(f"{path.name} was measured with {part['provider']}, which this onnxruntime does not have")
    return onnxruntime.InferenceSession(str(path), options, providers=[part["provider"]])


# The functions below repeat the tier server's, which a bundle must not need; every bundle is made only if both give the
# same outputs bit by bit (`check_runs`).
def preprocess(encoded: bytes, spec: dict[str, Any]) -> Any:
    """Turn an image file into the graph's input: decode, resize, (pixel * scale - mean) / std."""
    pixels = np.asarray(frame(decode(encoded, spec["color"]), spec))
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    elif spec["color"] == "bgr":
        pixels = pixels[:, :, ::-1]
    if spec["layout"] == "nchw":
        pixels = pixels.transpose(2, 0, 1)
    if spec["dtype"] == "uint8":
        return np.ascontiguousarray(pixels)[np.newaxis]
    axes = (-1, 1, 1) if spec["layout"] == "nchw" else (1, 1, -1)
    plane = (1, 2) if spec["layout"] == "nchw" else (0, 1)
    # In C order, because the sum of a mean depends on the order of its terms in memory.
    values = np.ascontiguousarray(pixels, np.float32) * np.float32(spec["scale"])
    mean = np.asarray(spec["mean"], np.float32).reshape(axes)
    values = values - (values.mean(axis=plane, keepdims=True) if spec["center"] else mean)
    values = values / np.asarray(spec["std"], np.float32).reshape(axes)
    return np.ascontiguousarray(values, dtype=spec["dtype"])[np.newaxis]


def decode(encoded: bytes, color: str) -> Any:
    """Decode the first picture of the file, upright, gray or RGB."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        image: Any = ImageOps.exif_transpose(opened)
    mode = "L" if color == "gray" else "RGB"
    if image.mode.startswith("I"):  # 16 bits: the high byte counts
        image = Image.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "CMYK" and mode == "L":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def frame(image: Any, spec: dict[str, Any]) -> Any:
    """Resize the picture to the graph's height and width: stretched, padded, or its middle."""
    from PIL import Image

    size, resampling = (spec["width"], spec["height"]), Image.Resampling.BILINEAR
    if image.size == size and spec["shorter_side"] is None:
        return image
    if spec["resize"] == "stretch":
        return image.resize(size, resampling)
    if spec["resize"] == "pad":
        factor = min(size[0] / image.width, size[1] / image.height)
        inner = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        framed = Image.new(image.mode, size, (spec["padding"],) * len(image.getbands()))
        framed.paste(image.resize(inner, resampling), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return framed
    if spec["shorter_side"] is None:
        factor = max(size[0] / image.width, size[1] / image.height)
    else:
        factor = spec["shorter_side"] / min(image.size)
    width, height = size[0] / factor, size[1] / factor
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + width, image.width), min(top + height, image.height))
    return image.resize(size, resampling, box=box)


def tensors(encoded: bytes) -> list[Any]:
    """Read the .npy arrays of a file, one after the other."""
    stream, arrays = io.BytesIO(encoded), []
    while stream.tell() < len(encoded):
        arrays.append(np.load(stream, allow_pickle=False))
    return arrays


def postprocess(outputs: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return classes and scores, a map of labels, or the outputs as they are."""
    if spec["kind"] == "tensors":
        return outputs
    first = next(iter(outputs.values()))
    if spec["kind"] == "label_map":
        return {"labels": label_map(first, spec)}
    scores = first.reshape(-1)
    if spec["softmax"]:
        scores = np.exp(scores - scores.max())
        scores = scores / scores.sum()
    # Stable, so that equal scores are in the order of their classes on every machine.
    classes = np.argsort(-scores, kind="stable")[: spec["k"]].astype(np.int64)
    return {"classes": classes, "scores": scores[classes].astype(np.float32)}


def label_map(first: Any, spec: dict[str, Any]) -> Any:
    """Return the label of each pixel: the largest score's class, or whether the one score is above the threshold."""
    if spec["threshold"] is not None:
        plane = first[0, 0] if spec["layout"] == "nchw" else first[0, ..., 0]
        return (plane > spec["threshold"]).astype(np.uint8)
    labels = first[0].argmax(axis=0 if spec["layout"] == "nchw" else -1).astype(np.uint8)
    if spec["height"] is None or spec["width"] is None:
        return labels
    cell, height, width = spec["cell"], spec["height"], spec["width"]
    # Dense upsampling (Wang et al. 2018): each place of the graph's output holds the labels of cell x cell pixels.
    cells = labels.reshape(cell, cell, height // cell, width // cell)
    return np.ascontiguousarray(cells.transpose(2, 0, 3, 1)).reshape(height, width)


def damaged(directory: Path = HERE) -> list[str]:
    """List what is wrong with the files; nothing when all are what the manifest says."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    problems = []
    for entry in manifest["files"]:
        path = directory / entry["file"]
        # A manifest of others may name anything, and a terminal obeys control characters.
        name = "".join(filter(str.isprintable, entry["file"]))
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
                problems.append(f"{name} is not the file that was bundled (its SHA-256 differs)")
    return problems


def shown(array: Any) -> object:
    """Return small arrays whole, and type and shape of large ones."""
    return array.tolist() if array.size <= SHOWN else {"dtype": str(array.dtype), "shape": list(array.shape)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", type=Path, help="an image (or file of tensors); of a later part the .npz")
    parser.add_argument("--part", help="only this part")
    parser.add_argument("-o", "--output", type=Path, help="write the outputs to this .npz")
    parser.add_argument("--check", action="store_true", help="verify the files' checksums")
    arguments = parser.parse_args()
    if arguments.check:
        wrong = damaged()
        print("\n".join(wrong) or "every file is as it was bundled")
        return 1 if wrong else 0
    if arguments.input is None:
        parser.error("name an input, or say --check")
    outputs = Bundle(part=arguments.part)(arguments.input.read_bytes())
    if arguments.output is not None:
        # A stream, because savez appends .npz to a name.
        with arguments.output.open("wb") as stream:
            np.savez(stream, **outputs)
    print(json.dumps({name: shown(array) for name, array in outputs.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
