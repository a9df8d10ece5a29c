"""Latency inputs: within the declared range, and each a function of its index."""

import io
from pathlib import Path

import pytest
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.embedded.datasets import BUILTIN, CanvasDataset, FashionDataset
from runner.subjects.embedded.images import CANVAS_SIDES_PX, PIXELS, POOL


@pytest.fixture(scope="module", params=["fashion", "canvas"])
def dataset(request: pytest.FixtureRequest) -> FashionDataset | CanvasDataset:
    return FashionDataset(BUILTIN) if request.param == "fashion" else CanvasDataset(BUILTIN, "unused here")


def test_a_picture_is_the_same_alone_and_in_the_pool(dataset: FashionDataset | CanvasDataset, tmp_path: Path) -> None:
    pool = list(dataset.pictures(range(20)))
    dataset.write_inputs(tmp_path, ["0017.jpg"])
    assert [path.name for path in tmp_path.iterdir()] == ["0017.jpg"]
    assert (tmp_path / "0017.jpg").read_bytes() == pool[17]


def test_the_largest_are_the_largest_of_the_pool(dataset: FashionDataset | CanvasDataset, tmp_path: Path) -> None:
    ids = dataset.input_ids()
    assert len(ids) == len(set(ids)) == POOL
    dataset.write_inputs(tmp_path, ids)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert [sizes[name] for name in dataset.largest(5)] == sorted(sizes.values(), reverse=True)[:5]


def test_fashion_pictures_are_colour_jpegs_of_the_declared_area() -> None:
    images = [Image.open(io.BytesIO(picture)) for picture in FashionDataset(BUILTIN).pictures(range(POOL))]
    assert {(image.format, image.mode) for image in images} == {("JPEG", "RGB")}
    areas = [image.width * image.height for image in images]
    # Whole rows: an area falls short of the drawn one by less than a row.
    assert all(PIXELS[0] * 0.99 <= area <= PIXELS[1] for area in areas)
    assert min(areas) < 100_000 and max(areas) > 800_000
    assert len({round(image.width / image.height, 1) for image in images}) >= 6


def test_canvas_pictures_are_square_gray_jpegs_of_the_declared_sides() -> None:
    images = [Image.open(io.BytesIO(p)) for p in CanvasDataset(BUILTIN, "unused here").pictures(range(POOL))]
    assert {(image.format, image.mode) for image in images} == {("JPEG", "L")}
    assert all(image.width == image.height for image in images)
    sides = [image.width for image in images]
    assert CANVAS_SIDES_PX[0] <= min(sides) < 80 and 400 < max(sides) <= CANVAS_SIDES_PX[1]


def test_an_unknown_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"0200\.jpg.*allowed: 0000\.jpg to 0199\.jpg"):
        FashionDataset(BUILTIN).write_inputs(tmp_path, ["0200.jpg"])


def test_the_pools_have_different_fingerprints() -> None:
    fingerprints = [FashionDataset(BUILTIN).inputs_fingerprint(), CanvasDataset(BUILTIN, "x").inputs_fingerprint()]
    assert len(set(fingerprints)) == 2 and all(len(fingerprint) == 64 for fingerprint in fingerprints)
