"""The record of a tier: what its counters say of the round, and what they cannot say."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from runner.launchers.base import TierLimits
from runner.measuring.records import tier_run
from tierserver.messages import StatsResult

TIER = TierLimits("edge", 1.0, 2**29, 1)
WARMED = StatsResult(
    cpu_seconds=8.0, peak_rss_bytes=1, threads=1, load_average=(0.0,), instance="first", pid=1, pid_namespace="",
    wall_s=0.0, monotonic_s=0.0, major_faults=40, waited_s=2.0,
)  # fmt: skip


def record_of(ended: StatsResult) -> Any:
    moments = {
        name: SimpleNamespace(tiers={"edge": stats})
        for name, stats in (("loaded", WARMED), ("warmed", WARMED), ("ended", ended))
    }
    measured = SimpleNamespace(**moments, cold_start_s={}, warmup=(), samples=())
    return tier_run(cast(Any, SimpleNamespace(providers={})), cast(Any, measured), TIER)


def test_a_window_is_what_the_counters_grew_by() -> None:
    record = record_of(replace(WARMED, cpu_seconds=9.5, major_faults=42, waited_s=2.25))
    assert (record.window_cpu_seconds, record.window_major_faults, record.window_waited_s) == (1.5, 2, 0.25)
    assert record.window_periods is None and record.window_memory_limit_events is None
    assert not record.restarted


def test_a_tier_that_started_again_has_no_window() -> None:
    record = record_of(replace(WARMED, cpu_seconds=0.5, major_faults=3, waited_s=0.1, instance="second"))
    assert (record.window_cpu_seconds, record.window_major_faults, record.window_waited_s) == (None, None, None)
    assert record.restarted
