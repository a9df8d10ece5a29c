import numpy as np
import pytest
from scipy import stats

from catalog.statistics import drop_bounds
from catalog.statistics.drop_bounds import InfluentialImages
from catalog.statistics.drops import mean_iou_drop
from catalog.statistics.feasibility import drop_within, mean_iou_at_least


def pixels(rng: np.random.Generator, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    union = rng.integers(0, 50, size=(images, classes)) * (rng.random((images, classes)) < 0.6)
    union[0, 0] = 10
    return (union * rng.random((images, classes))).astype(int), union


def naive_mean_iou(intersection: np.ndarray, union: np.ndarray) -> float:
    ratios = [i / u for i, u in zip(intersection.sum(axis=0), union.sum(axis=0), strict=True) if u > 0]
    return 100 * float(np.mean(ratios))


def test_the_influences_are_the_derivative_and_their_squares_the_variance() -> None:
    rng = np.random.default_rng(1)
    reference = pixels(rng, 200, 5)
    candidate = (reference[0] * 9 // 10, reference[1])
    reference[1][:, 4] = candidate[1][:, 4] = 0  # a class that never occurs
    reference[0][:, 4] = candidate[0][:, 4] = 0
    drop = mean_iou_drop(reference, candidate, n_resamples=3000, rng=2)
    assert drop.drop_pp == pytest.approx(naive_mean_iou(*reference) - naive_mean_iou(*candidate))
    left_out = [
        naive_mean_iou(*(np.delete(table, image, axis=0) for table in reference))
        - naive_mean_iou(*(np.delete(table, image, axis=0) for table in candidate))
        for image in range(200)
    ]
    influences = np.array(left_out) - drop.drop_pp  # the jackknife, as an independent computation
    error = np.sqrt((influences**2).sum())
    freedom = (influences**2).sum() ** 2 / (influences**4).sum() - 1
    assert isinstance(drop.bound, InfluentialImages)
    assert drop.bound.freedom == pytest.approx(freedom, rel=0.1)
    assert error * 0.97 < drop.bound.error_pp < error * 1.3
    for level in (0.95, 0.99):
        assert drop.upper_pp(level) >= drop.drop_pp + 0.97 * error * stats.t.ppf(level, drop.bound.freedom)
        assert drop.confidence_at_most(drop.upper_pp(level)) == pytest.approx(level)
    assert drop.low_pp < drop.drop_pp < drop.high_pp
    assert drop.pvalue is None and drop.refusal is None
    assert drop.items == 200


def test_concentrated_influence_leaves_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(5)
    union = rng.integers(20, 40, size=(100, 3))
    union[0] *= 30
    reference = union - 2
    spread = reference - rng.integers(0, 3, size=union.shape)
    one = spread.copy()
    one[0] = 0
    even = mean_iou_drop((reference[1:], union[1:]), (spread[1:], union[1:]), rng=1).bound
    uneven = mean_iou_drop((reference, union), (one, union), rng=1)
    assert isinstance(even, InfluentialImages) and isinstance(uneven.bound, InfluentialImages)
    assert uneven.bound.freedom < 2 < 15 < even.freedom
    assert not drop_within(uneven, uneven.drop_pp + 10).holds


def test_images_of_which_few_make_most_of_the_drop_promise_nothing() -> None:
    rng = np.random.default_rng(7)
    wrong = promised = even = 0
    for _ in range(60):
        union = np.ceil(200 * np.exp(2.0 * rng.standard_normal((300, 3))))
        reference = np.floor(union * rng.uniform(0.6, 1, (300, 1)))
        missed = np.where(rng.random((300, 1)) < 0.5, rng.beta(1, 3, (300, 1)), 0)
        drop = mean_iou_drop((reference, union), (np.floor(reference * (1 - missed)), union), n_resamples=100, rng=rng)
        promised += drop.refusal is None
        wrong += drop.refusal is None and drop.upper_pp(0.95) < 80 * 0.5 * 0.25
        level = np.full((300, 3), 200.0)
        same = (level * 0.8 * (1 - missed)).astype(int)
        even += mean_iou_drop((level * 0.8, level), (same, level), n_resamples=100, rng=rng).refusal is None
    assert (promised <= 6, wrong <= 2, even) == (True, True, 60)
    assert drop.refusal is not None and "weigh like" in drop.refusal.reason
    assert not drop_within(drop, 90.0).holds


def test_identical_masks_are_a_rule_of_three_in_images() -> None:
    union = np.full((300, 4), 50)
    same = mean_iou_drop((union - 5, union), (union - 5, union), rng=1)
    assert (same.drop_pp, same.refusal) == (0.0, None) and same.note is not None
    assert same.upper_pp(0.95) == pytest.approx(100 * (1 - 0.05 ** (1 / 300)))  # about 3 / 300
    assert (same.low_pp, same.high_pp) == pytest.approx((-1.2221, 1.2221), abs=1e-4)
    assert same.confidence_at_most(0.5) == pytest.approx(1 - 0.995**300)
    assert not drop_within(same, 0.5).holds and drop_within(same, 0.5).out_of_reach and drop_within(same, 1.0).holds
    itself = mean_iou_drop((union - 5, union), (union - 5, union), bit_identical=True)
    assert (itself.low_pp, itself.high_pp, itself.upper_pp(0.9999)) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="300 images that differ"):
        mean_iou_drop((union - 5, union), (union - 6, union), bit_identical=True)


def test_few_images_with_influence_and_rare_classes_promise_nothing() -> None:
    rng = np.random.default_rng(2)
    union = rng.integers(20, 40, size=(60, 3))
    reference = union - rng.integers(0, 5, size=union.shape)
    for differing, refused in ((1, True), (29, True), (30, False), (60, False)):
        candidate = reference.copy()
        candidate[:differing] -= 2
        drop = mean_iou_drop((reference, union), (candidate, union), rng=1)
        assert (drop.refusal is not None) is refused
        assert drop_within(drop, 90.0).holds is not refused
        assert drop.low_pp < drop.high_pp
    rare = union.copy()
    rare[9:, 2] = 0
    drop = mean_iou_drop((np.minimum(reference, rare), rare), (np.minimum(reference - 2, rare), rare), rng=1)
    assert drop.refusal is not None and "9 of 60 images" in drop.refusal.reason
    check = mean_iou_at_least(np.minimum(reference, rare), rare, 10.0, rng=1)
    assert (check.holds, check.bound) == (False, None) and check.refusal is not None


def test_mean_iou_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    reference, candidate = pixels(rng, 30, 4), pixels(rng, 30, 4)
    at_once = mean_iou_drop(reference, candidate, n_resamples=100, rng=1)
    monkeypatch.setattr(drop_bounds, "_CHUNK", 30 * 7)
    in_chunks = mean_iou_drop(reference, candidate, n_resamples=100, rng=1)
    assert in_chunks.upper_pp(0.95) == pytest.approx(at_once.upper_pp(0.95))


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


def test_a_floor_of_mean_iou_is_near_the_lower_bound_of_redrawn_images() -> None:
    rng = np.random.default_rng(3)
    intersection, union = pixels(rng, 200, 4)
    check = mean_iou_at_least(intersection, union, 30.0, n_resamples=3000, rng=4)
    redrawn = [naive_mean_iou(intersection[d], union[d]) for d in rng.integers(200, size=(3000, 200))]
    assert check.estimate == pytest.approx(naive_mean_iou(intersection, union))
    assert check.bound == pytest.approx(np.quantile(redrawn, 0.05), abs=0.5)
    assert check.holds
    assert not mean_iou_at_least(intersection, union, check.estimate, rng=4).holds


def test_a_seed_draws_images_when_a_bound_is_first_used_and_once_for_all_drops() -> None:
    rng = np.random.default_rng(1)
    reference, candidate = pixels(rng, 40, 3), pixels(rng, 40, 3)
    drop_bounds._seeded_draws.cache_clear()
    loss = mean_iou_drop(reference, candidate, n_resamples=200, rng=5)
    gain = mean_iou_drop(candidate, reference, n_resamples=200, rng=5)
    assert loss.drop_pp == pytest.approx(-gain.drop_pp)
    assert drop_bounds._seeded_draws.cache_info().misses == 0
    assert loss.low_pp < loss.drop_pp < loss.high_pp
    assert (gain.low_pp, gain.high_pp) == pytest.approx((-loss.high_pp, -loss.low_pp))
    assert drop_bounds._seeded_draws.cache_info().misses == 1


def test_a_generator_draws_at_once() -> None:
    rng = np.random.default_rng(1)
    reference, candidate = pixels(rng, 40, 3), pixels(rng, 40, 3)
    generator = np.random.default_rng(5)
    drop = mean_iou_drop(reference, candidate, n_resamples=200, rng=generator)
    generator.random(1000)
    assert drop.high_pp == mean_iou_drop(reference, candidate, n_resamples=200, rng=5).high_pp
