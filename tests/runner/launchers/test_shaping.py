"""The settings of `tbf`, at the rates where they were measured."""

import pytest

from runner.launchers.shaping import shaping_of, token_bucket


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


def test_a_link_without_delay_is_a_bucket_alone() -> None:
    assert shaping_of(10_000_000, 0.0).settings() == [["root", "tbf", *token_bucket(10_000_000).arguments()]]


def test_a_delay_comes_before_the_rate_and_holds_what_both_hold() -> None:
    delay, bucket = shaping_of(10_000_000, 0.02).settings()
    assert delay[:4] == ["root handle 1:", "netem", "delay", "20000us"]
    assert int(delay[-1]) >= 10_000_000 / 8 * (0.02 + 1.0) / 1448
    assert bucket == ["parent 1:1 handle 10:", "tbf", *token_bucket(10_000_000).arguments()]
