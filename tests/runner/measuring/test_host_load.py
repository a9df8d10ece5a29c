"""The load of the machines under the tiers: each by its own clock, and the most disturbed one is described."""

from collections.abc import Mapping
from typing import Any

import pytest

from runner.measuring.host_load import Snapshot, host_load
from tierserver.messages import HostStats, StatsResult

HOUR_S = 3600.0


def stats(boot: str, *, monotonic_s: float, wall_s: float, busy_s: float, cpu_s: float) -> StatsResult:
    return StatsResult(
        cpu_seconds=cpu_s,
        peak_rss_bytes=1,
        threads=1,
        load_average=(0.5, 0.5, 0.5),
        instance=boot,
        pid=1,
        pid_namespace="",
        wall_s=wall_s,
        monotonic_s=monotonic_s,
        major_faults=0,
        host=HostStats(boot, 4, busy_s, 0.0),
    )


def load(used: Mapping[str, tuple[str, float, float]], *, offset_s: float = 0.0) -> dict[str, Any]:
    """Return the load over 10 s: by tier its machine, the busy seconds of that machine, and the tier's own."""
    moments = [
        Snapshot(
            {
                tier: stats(
                    boot,
                    monotonic_s=100 + offset_s * index + seconds,
                    wall_s=1e9 - offset_s * index + seconds,
                    busy_s=50 * index + busy_s * seconds / 10,
                    cpu_s=own_s * seconds / 10,
                )
                for index, (tier, (boot, busy_s, own_s)) in enumerate(used.items())
            }
        )
        for seconds in (0.0, 10.0)
    ]
    return host_load(*moments)


def test_on_one_machine_all_tiers_are_its_own() -> None:
    one = load({"mobile": ("a", 12.0, 2.0), "edge": ("a", 12.0, 6.0)})
    assert one["own_cpus"] == pytest.approx(0.8) and one["other_cpus"] == pytest.approx(0.4)


def test_of_two_machines_the_more_disturbed_one_is_described_by_its_own_tiers() -> None:
    quiet_client = load({"mobile": ("a", 2.0, 2.0), "edge": ("b", 30.0, 10.0)})
    assert quiet_client["own_cpus"] == pytest.approx(1.0) and quiet_client["other_cpus"] == pytest.approx(2.0)
    busy_client = load({"mobile": ("a", 22.0, 2.0), "edge": ("b", 11.0, 10.0)})
    assert busy_client["own_cpus"] == pytest.approx(0.2) and busy_client["other_cpus"] == pytest.approx(2.0)


def test_clocks_hours_apart_change_nothing() -> None:
    used = {"mobile": ("a", 22.0, 2.0), "edge": ("b", 30.0, 10.0)}
    there, here = load(used, offset_s=5 * HOUR_S), load(used)
    assert there.pop("others") == here.pop("others") == []
    assert there == pytest.approx(here)
