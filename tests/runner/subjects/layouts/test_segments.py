"""COCO's segmentations: polygons, plain and packed run lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.subjects.layouts.published import draw, unpack


def pack(counts: list[int]) -> str:
    """Packed run lengths, written from their description."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
    return text


def test_a_polygon_covers_its_inside() -> None:
    covered = draw([[2, 1, 7, 1, 7, 4, 2, 4]], 6, 10)
    assert covered.shape == (6, 10) and covered[2:4, 3:7].all()
    assert not covered[:, :2].any() and not covered[5].any()


def test_run_lengths_go_down_the_columns() -> None:
    covered = draw({"counts": [1, 2, 3], "size": [3, 2]}, 3, 2)
    np.testing.assert_array_equal(covered, [[False, False], [True, False], [True, False]])


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=30))
def test_packed_run_lengths_are_read(counts: list[int]) -> None:
    assert unpack(pack(counts)) == counts


def test_packed_text_draws_as_the_plain_numbers_do() -> None:
    rng = np.random.default_rng(3)
    counts = [int(count) for count in rng.multinomial(40 * 30, [1 / 9] * 9)]
    plain = draw({"counts": counts, "size": [40, 30]}, 40, 30)
    np.testing.assert_array_equal(draw({"counts": pack(counts), "size": [40, 30]}, 40, 30), plain)
    assert plain.sum() == sum(counts[1::2])


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[1, 2, 3, 4]], "three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three points"),
        ({"counts": [1, 2], "size": [2, 2]}, "add up to 4"),
        ({"counts": [5, -1], "size": [2, 2]}, "add up to 4"),
        ({"counts": [4], "size": [9, 9]}, "the image is"),
        ({"counts": "o", "size": [2, 2]}, "in the middle"),
        ({"counts": "€", "size": [2, 2]}, "does not belong"),
        ("polygon", "list of polygons"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        draw(segmentation, 2, 2)
