"""A measurement that nothing disturbed; each test spoils one figure of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog.evidence.records import LinkProbeRecord, MeasurementRecord, SampleRecord, TierRunRecord

STARTED = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
LATENCY_S = [0.05 + 0.001 * index for index in range(30)]


def sound(**changes: Any) -> MeasurementRecord:
    run = TierRunRecord(
        tier="mobile",
        cpus=0.5,
        memory_bytes=2**29,
        threads=1,
        provider="none",
        cold_start_s=None,
        oom_kills=0,
        restarted=False,
        window_cpu_seconds=0.05,
        window_throttled_s=0.0,
        window_waited_s=0.01,
        window_major_faults=0,
        window_memory_limit_events=0,
    )
    edge = replace(run, tier="edge", cpus=1.0, provider="CPUExecutionProvider", window_cpu_seconds=1.0)
    values: dict[str, Any] = {
        "latency_key": "key",
        "environment_id": 1,
        "subject": "net",
        "operator": "identity",
        "placement": "edge",
        "round": 1,
        "position": 0,
        "seed": 1,
        "status": "complete",
        "verdict": "VALID",
        "inputs_select": "random",
        "started_at": STARTED,
        "finished_at": STARTED + timedelta(seconds=10),
        "warmup_latency_s": LATENCY_S,
        "window_s": 2.0,
        "clock_jump_s": 1e-6,
        "host_load": {"cpus": 2, "other_cpus": 0.1, "steal_cpus": 0.0, "others": []},
        "tier_runs": [run, edge],
        "link_probes": [LinkProbeRecord("mobile-edge", "up", 1e6, 1.02e6, 0.001, "before", 0.05)],
        "samples": [SampleRecord(i, f"{i:04d}", 0, latency_s, 0.0) for i, latency_s in enumerate(LATENCY_S)],
    }
    return MeasurementRecord(**(values | changes))


@pytest.fixture
def measurement() -> Callable[..., MeasurementRecord]:
    return sound
