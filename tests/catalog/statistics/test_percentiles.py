import numpy as np
import pytest

from catalog.statistics.samples import percentile_by_round, percentile_over_rounds


def test_rounds_weigh_alike_whatever_their_size() -> None:
    values, rounds = [1.0, 2.0, 3.0, 30.0], [1, 1, 1, 2]
    assert percentile_over_rounds(values, rounds, 50) == 16.0
    # R: quantile(c(1, 2, 3), 0.9, type = 7) is 2.8
    np.testing.assert_allclose(percentile_by_round(values, rounds, 90), [2.8, 30.0])


def test_order_does_not_matter_and_rounds_come_sorted() -> None:
    rng = np.random.default_rng(1)
    values, rounds = rng.random(60), np.repeat([3, 1, 2], 20)
    mixed = rng.permutation(60)
    expected = [np.percentile(values[rounds == number], 90) for number in (1, 2, 3)]
    np.testing.assert_array_equal(percentile_by_round(values[mixed], rounds[mixed], 90), expected)


def test_one_all_tied_and_none() -> None:
    assert percentile_over_rounds([0.5], [7], 99) == 0.5
    assert percentile_over_rounds([0.5] * 9, [1, 2, 3] * 3, 90) == 0.5
    assert np.isnan(percentile_over_rounds([], [], 50))


def test_a_nan_is_not_hidden() -> None:
    by_round = percentile_by_round([1.0, float("nan"), 2.0], [1, 1, 2], 50)
    assert np.isnan(by_round[0])
    assert by_round[1] == 2.0
    assert np.isnan(percentile_over_rounds([1.0, float("nan"), 2.0], [1, 1, 2], 50))


@pytest.mark.parametrize(
    ("values", "rounds", "percentile"), [([1.0], [1, 2], 50), ([[1.0]], [[1]], 50), ([1.0], [1], 101)]
)
def test_wrong_shapes_and_percentiles_are_refused(values: object, rounds: object, percentile: float) -> None:
    with pytest.raises(ValueError, match=r"one length|0 to 100"):
        percentile_by_round(values, rounds, percentile)  # type: ignore[arg-type]
