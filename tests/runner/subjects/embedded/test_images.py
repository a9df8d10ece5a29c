"""Canvases: the same bytes from the same seed, everywhere."""

import hashlib

import numpy as np
import pytest
from numpy.random import RandomState

from runner.subjects.embedded.images import VISIBLE, compose_canvas, compose_canvases, resize

GARMENTS = RandomState(7).randint(0, 256, (6, 28, 28)).astype(np.uint8)
LABELS = np.arange(6, dtype=np.int64)


def test_a_seed_composes_the_same_canvas_on_every_machine() -> None:
    canvas = compose_canvas(GARMENTS[:3], LABELS[:3], RandomState(1))
    assert canvas.image.dtype == canvas.mask.dtype == np.uint8
    assert canvas.image.shape == canvas.mask.shape == (64, 64)
    digest = hashlib.sha256(canvas.image.tobytes() + canvas.mask.tobytes()).hexdigest()
    assert digest == "7f829a2bed8b10892f7c94110843ba57a40b639d337f609e9f4cc9c9f5b7049b"


def test_a_longer_sequence_begins_with_the_shorter_one() -> None:
    short = list(compose_canvases(GARMENTS, LABELS, count=3, seed=5))
    long = list(compose_canvases(GARMENTS, LABELS, count=5, seed=5))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(short, long, strict=False))


def test_the_mask_marks_exactly_the_garments_pixels() -> None:
    garment = np.zeros((28, 28), np.uint8)
    garment[4:24, 8:20] = 255
    canvas = compose_canvas(garment[None], np.array([3]), RandomState(2), 128)
    assert set(np.unique(canvas.mask)) == {0, 4}
    assert (canvas.image[canvas.mask == 4] >= VISIBLE).all()
    assert canvas.image[canvas.mask == 0].max() < 255


def test_garments_grow_with_the_canvas() -> None:
    shares = [(compose_canvas(GARMENTS[:2], LABELS[:2], RandomState(3), size).mask > 0).mean() for size in (64, 512)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


@pytest.mark.parametrize("count", [0, 5])
def test_a_canvas_takes_one_to_four_garments(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 4 garments"):
        compose_canvas(GARMENTS[:count], LABELS[:count], RandomState(0))


def test_resizing_to_the_same_size_changes_nothing() -> None:
    assert np.array_equal(resize(GARMENTS[0], 28, 28), GARMENTS[0])


def test_resizing_a_constant_keeps_it_constant() -> None:
    assert (resize(np.full((28, 28), 255, np.uint8), 201, 33) == 255).all()
