"""The settings of `tbf`, at the rates where they were measured."""

import pytest

from runner.launchers.shaping import token_bucket


@pytest.mark.parametrize(
    ("bit_per_s", "expected"),
    [
        (200_000_000, ["rate", "209116022bit", "burst", "32768", "latency", "50ms"]),
        (10_000_000, ["rate", "10455801bit", "burst", "1638", "latency", "1000ms"]),
        (1_000_000, ["rate", "1045580bit", "burst", "1600", "latency", "3000ms"]),
    ],
)
def test_rates_count_frames_and_bursts_stay_above_one(bit_per_s: int, expected: list[str]) -> None:
    assert token_bucket(bit_per_s).arguments() == expected
