"""A measurement that nothing disturbed; each test spoils one figure of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from catalog.evidence.records import MeasurementRecord
from tests.evidence_builder import (
    STARTED,
    link_probe_record,
    measurement_record,
    sample_records,
    tier_run_record,
)

LATENCY_S = [0.05 + 0.001 * index for index in range(30)]


def sound(**changes: Any) -> MeasurementRecord:
    run = tier_run_record(
        "mobile",
        provider="none",
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
        "finished_at": STARTED + timedelta(seconds=10),
        "warmup_latency_s": LATENCY_S,
        "window_s": 2.0,
        "clock_jump_s": 1e-6,
        "host_load": {"cpus": 2, "other_cpus": 0.1, "steal_cpus": 0.0, "others": []},
        "tier_runs": [run, edge],
        "link_probes": [link_probe_record("mobile-edge", measured_bit_per_s=1.02e6, moment="before", tolerance=0.05)],
        "samples": sample_records(LATENCY_S),
    }
    return measurement_record(1, "net", "identity", "edge", 1, **(values | changes))


@pytest.fixture
def measurement() -> Callable[..., MeasurementRecord]:
    return sound
