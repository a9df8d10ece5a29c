import numpy as np
import pytest

from catalog.statistics import iou_drops
from catalog.statistics.feasibility import mean_iou_at_least
from catalog.statistics.iou_drops import mean_iou_drop


def pixels(rng: np.random.Generator, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    union = rng.integers(0, 50, size=(images, classes)) * (rng.random((images, classes)) < 0.6)
    union[0, 0] = 10
    return (union * rng.random((images, classes))).astype(int), union


def naive_mean_iou(intersection: np.ndarray, union: np.ndarray) -> float:
    ratios = [i / u for i, u in zip(intersection.sum(axis=0), union.sum(axis=0), strict=True) if u > 0]
    return 100 * float(np.mean(ratios))


def test_mean_iou_redraws_images_for_both_at_once() -> None:
    rng = np.random.default_rng(1)
    reference = pixels(rng, 40, 5)
    candidate = (reference[0] * 9 // 10, reference[1])
    reference[1][:, 4] = candidate[1][:, 4] = 0  # a class that never occurs
    reference[0][:, 4] = candidate[0][:, 4] = 0
    drop = mean_iou_drop(reference, candidate, n_resamples=3000, rng=2)
    assert drop.drop_pp == pytest.approx(naive_mean_iou(*reference) - naive_mean_iou(*candidate))
    naive = []
    for _ in range(3000):
        drawn = rng.integers(40, size=40)
        naive.append(naive_mean_iou(*(t[drawn] for t in reference)) - naive_mean_iou(*(t[drawn] for t in candidate)))
    low, high = np.quantile(naive, [0.025, 0.975])
    width = high - low
    assert (drop.low_pp, drop.high_pp) == pytest.approx((low, high), abs=0.1 * width)
    assert drop.pvalue is None
    assert drop.items == 40


def test_mean_iou_in_chunks_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    reference, candidate = pixels(rng, 30, 4), pixels(rng, 30, 4)
    same = mean_iou_drop(reference, reference, n_resamples=100, rng=1)
    assert (same.drop_pp, same.low_pp, same.high_pp) == (0, 0, 0)
    assert same.note is not None
    at_once = mean_iou_drop(reference, candidate, n_resamples=100, rng=1)
    monkeypatch.setattr(iou_drops, "_CHUNK", 30 * 7)
    np.testing.assert_allclose(
        mean_iou_drop(reference, candidate, n_resamples=100, rng=1).support_pp, at_once.support_pp
    )


def test_mean_iou_refuses_what_is_no_table_of_pixels() -> None:
    intersection, union = pixels(np.random.default_rng(1), 5, 3)
    with pytest.raises(ValueError, match="exchanged"):
        mean_iou_drop((union, intersection), (intersection, union))
    with pytest.raises(ValueError, match="one shape"):
        mean_iou_drop((intersection, union), (intersection[:3], union[:3]))
    with pytest.raises(ValueError, match="no class occurs"):
        mean_iou_drop((union * 0, union * 0), (intersection, union))
    with pytest.raises(ValueError, match="n_resamples"):
        mean_iou_drop((intersection, union), (intersection, union), n_resamples=1)


def test_a_floor_of_mean_iou_is_the_lower_bound_of_the_redrawn_images() -> None:
    rng = np.random.default_rng(3)
    intersection, union = pixels(rng, 50, 4)
    check = mean_iou_at_least(intersection, union, 30.0, n_resamples=3000, rng=4)
    redrawn = [naive_mean_iou(intersection[d], union[d]) for d in rng.integers(50, size=(3000, 50))]
    assert check.estimate == pytest.approx(naive_mean_iou(intersection, union))
    assert check.bound == pytest.approx(np.quantile(redrawn, 0.05), abs=0.5)
    assert check.holds
    assert not mean_iou_at_least(intersection, union, check.estimate, rng=4).holds
