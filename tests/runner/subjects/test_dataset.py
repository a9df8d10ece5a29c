"""Items files and calibration images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runner.errors import SubjectError
from runner.subjects.embedded.datasets import (
    BUILTIN,
    CanvasDataset,
    FashionDataset,
    canvases_sha256,
    validation_canvases,
)


def test_fashion_items_are_the_shipped_images_losslessly(tmp_path: Path) -> None:
    dataset = FashionDataset(BUILTIN)
    assert dataset.write_items(tmp_path / "items") == 2_000  # no suffix is appended
    with np.load(tmp_path / "items") as content:
        assert set(content.files) == {"item_id", "image", "offset", "label"}
        assert content["label"].dtype == content["offset"].dtype == np.int64
        assert content["image"].dtype == np.uint8 and content["image"].ndim == 1
        assert len(content["offset"]) == 2_001 and content["offset"][-1] == len(content["image"])
        assert len(set(content["item_id"])) == 2_000
        start, stop = content["offset"][41:43]
        decoded = np.asarray(Image.open(io.BytesIO(content["image"][start:stop].tobytes())))
    assert np.array_equal(decoded, dataset.validation_garments.images[41])


def test_canvas_items_hold_a_mask_for_each_image(tmp_path: Path) -> None:
    garments = FashionDataset(BUILTIN).validation_garments
    canvases = validation_canvases(garments)
    dataset = CanvasDataset(BUILTIN, canvases_sha256(canvases))
    assert dataset.write_items(tmp_path / "items.npz") == 2_000
    with np.load(tmp_path / "items.npz") as content:
        assert set(content.files) == {"item_id", "image", "offset", "mask"}
        masks = content["mask"]
        start, stop = content["offset"][7:9]
        decoded = np.asarray(Image.open(io.BytesIO(content["image"][start:stop].tobytes())))
    assert masks.shape == (2_000, 64, 64) and masks.dtype == np.uint8
    assert np.array_equal(decoded, canvases[7].image) and np.array_equal(masks[7], canvases[7].mask)


def test_items_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        FashionDataset(BUILTIN).write_items(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_calibration_images_come_from_the_training_part() -> None:
    dataset = FashionDataset(BUILTIN)
    held_out = {image.tobytes() for image in dataset.validation_garments.images}
    assert not held_out & {image.tobytes() for image in dataset.calibration_garments.images}
    assert np.array_equal(dataset.calibration_garments.labels[:10], np.arange(10))
    assert len(dataset.calibration(200)) == 200


def test_calibration_canvases_are_canvases() -> None:
    images = CanvasDataset(BUILTIN, "unused here").calibration(30)
    assert {Image.open(io.BytesIO(image)).size for image in images} == {(64, 64)} and len(images) == 30


def test_more_calibration_images_than_there_are_is_refused() -> None:
    with pytest.raises(SubjectError, match="allowed: 1 to 200"):
        FashionDataset(BUILTIN).calibration(201)
