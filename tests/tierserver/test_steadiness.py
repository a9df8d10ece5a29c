"""When a warm-up is over."""

import random

import pytest

from tierserver.client import is_steady


@pytest.mark.parametrize(
    ("latencies_s", "steady"),
    [
        ([0.1, 0.1, 0.1, 0.1], True),
        ([0.1, 0.1, 0.1], False),  # two windows of two are needed
        ([0.3, 0.1, 0.1, 0.1], False),  # the first is an outlier of the others
        ([0.12, 0.12, 0.1, 0.1], False),  # the windows' means differ by a fifth
        ([0.104, 0.104, 0.1, 0.1], True),
        ([0.12, 0.12, 0.1, 0.1, 0.1, 0.1], True),  # only the last two windows count
        ([0.1, 0.1, 0.11, 0.13], True),  # a disturbance at the end is no warm-up
        ([0.04, 0.04, 0.1, 0.1], False),  # but the latency that follows is not known to be this one
        ([0.02, 0.17, 0.09, 0.1], False),  # the same mean, with a spread that has not settled
        ([0.1001, 0.1, 0.1, 0.1], True),  # a thousandth is beyond the fence of equal values, and no warm-up
    ],
)
def test_two_windows_agree(latencies_s: list[float], steady: bool) -> None:
    assert is_steady(latencies_s) is steady


def inferences(latencies_s: list[float]) -> int:
    """Return after how many a warm-up ends."""
    return next((count for count in range(1, len(latencies_s) + 1) if is_steady(latencies_s[:count])), len(latencies_s))


def test_noise_hardly_prolongs_a_warm_up_and_a_fall_does() -> None:
    rng = random.Random(1)
    noisy = [inferences([rng.gauss(1, 0.1) for _ in range(9)]) for _ in range(400)]
    assert sum(noisy) / len(noisy) < 5.5 and sum(count == 9 for count in noisy) < 0.05 * len(noisy)
    falling = [inferences([1 + 0.5**index + rng.gauss(0, 0.02) for index in range(9)]) for _ in range(400)]
    assert min(falling) > 5, "the first values, half as long again, are past"
