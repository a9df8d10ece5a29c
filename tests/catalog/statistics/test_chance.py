"""When an accuracy says no more than a constant answer, and when nothing can be said of it."""

import pytest
from scipy import stats

from catalog.statistics.description import chance_remark

BALANCED = {"0": 100, "1": 100}


@pytest.mark.parametrize(
    ("metric", "pct", "items", "counts", "said"),
    [
        ("agreement", 100 * 12 / 22, 22, {"0": 12, "1": 10}, "always answering class 0, which gives 54.55 %"),
        ("top1", 95.5, 200, {"0": 10, "1": 190}, "always answering class 1, which gives 95.00 %"),
        ("top1", 0.0, 30, {"0": 10, "1": 10, "2": 10}, "0.00 % cannot be distinguished"),
        ("top1", 100.0, 30, {"4": 30}, "all 30 items are of class 4"),
        ("agreement", 100.0, 30, {"4": 30, "5": 0}, "identity answers class 4 on all 30 items"),
        ("miou", 100.0, 3, {"0": 5000}, "all pixels are of class 0"),
        ("miou", 44.0, 3, {"0": 900, "1": 100}, "which gives 45.00 %"),
        ("agreement", 90.0, 3, {"0": 900, "1": 100}, "which gives 90.00 % of these pixels"),
    ],
)
def test_what_a_constant_answer_gives_too_is_remarked(
    metric: str, pct: float, items: int, counts: dict[str, int], said: str
) -> None:
    assert said in (chance_remark(metric, pct, items, counts) or "")


@pytest.mark.parametrize(
    ("metric", "pct", "items", "counts"),
    [
        ("top1", 90.0, 200, BALANCED),
        ("agreement", 100.0, 22, {"0": 12, "1": 10}),
        ("miou", 60.0, 3, {"0": 900, "1": 100}),
        ("top1", 50.0, 200, None),
        ("top1", 50.0, 0, BALANCED),
        ("top1", 50.0, 200, "two classes"),
        ("top1", 50.0, 200, {"0": "many"}),
        ("top1", 50.0, 200, {}),
    ],
)
def test_nothing_is_remarked_above_chance_or_where_no_classes_were_counted(
    metric: str, pct: float, items: int, counts: object
) -> None:
    assert chance_remark(metric, pct, items, counts) is None


@pytest.mark.parametrize("hits", range(90, 131))
def test_the_test_is_the_exact_binomial_one(hits: int) -> None:
    exact = stats.binomtest(hits, 200, 0.5, alternative="greater").pvalue
    assert (chance_remark("top1", hits / 2, 200, BALANCED) is None) == (exact <= 0.05)
