"""The settings of `tbf`, at the rates where they were measured, and what the predictions assume of them."""

import pytest

from recommender.whatif import burst_bytes, grain_bytes
from runner.launchers.shaping import shaping_of, token_bucket
from runner.measuring import experiment
from tierserver.paced_link import Direction


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


# The recommender may import neither launcher nor tier server, and the tier server is shipped alone: these tests keep
# their link constants equal.
@pytest.mark.parametrize("bit_per_s", [100_000, 1_000_000, 10_000_000, 50_000_000, 200_000_000, 10_000_000_000])
def test_predictions_assume_the_chunks_of_the_paced_link(bit_per_s: int) -> None:
    assert grain_bytes("process", bit_per_s) == pytest.approx(Direction(bit_per_s, 0.0).chunk_bytes, abs=1)


@pytest.mark.parametrize("bit_per_s", [100_000, 1_000_000, 10_000_000, 200_000_000, 10_000_000_000])
def test_predictions_assume_the_burst_and_the_segments_of_the_token_bucket(bit_per_s: int) -> None:
    bucket, segment = token_bucket(bit_per_s), grain_bytes("docker", bit_per_s)
    payload_share = bit_per_s / bucket.rate_bit_per_s
    assert burst_bytes("docker", bit_per_s) == pytest.approx(bucket.burst_bytes * payload_share, abs=1)
    assert segment / payload_share == pytest.approx(1514, abs=0.1)


def test_probes_count_the_segments_of_the_launchers() -> None:
    assert grain_bytes("docker", 1_000_000) == experiment._FRAME_BYTES
