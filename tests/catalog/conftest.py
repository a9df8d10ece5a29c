"""A synthetic estate: two operators on three placements, three rounds, with known numbers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catalog.evidence.database import Database, open_database
from catalog.evidence.records import (
    AccuracyRecord,
    ArtifactFile,
    EnvironmentRecord,
    LinkBytes,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
    StrategyRecord,
)
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    sync_strategies,
    upsert_artifact,
    upsert_environment,
)
from tests.conftest import Contents
from tests.evidence_builder import (
    LINKS,
    STARTED,
    accuracy_record,
    artifact_record,
    environment_record,
    link_probe_record,
    measurement_record,
    named_passes,
    sample_records,
    strategy_record,
    tier_run_record,
)

PASSES: dict[str, list[dict[str, Any]]] = {"identity": [], "quantized": named_passes("static_ptq")}


def environment(key: str = "env") -> EnvironmentRecord:
    return environment_record(key, launcher="process", details={"why": "no engine"})


def strategy(operator: str, placement: str, **changes: Any) -> StrategyRecord:
    """Return a strategy whose keys name no environment: measured in another, they are the same."""
    keys: dict[str, Any] = {
        "passes": PASSES[operator],
        "artifact_key": f"artifact-{operator}",
        "latency_key": f"latency-{operator}-{placement}",
        "accuracy_key": f"accuracy-{operator}",
    }
    return strategy_record(1, "net", operator, placement, **(keys | changes))


def samples(latency_s: Any, placement: str) -> list[SampleRecord]:
    return [
        replace(
            sample,
            input_id=f"{sample.seq % 10:04d}.jpg",
            repetition=sample.seq // 10,
            transmission_s=0.001,
            parts=[PartTimes(placement, 0.001, 0.002, 0.0, 0.0)],
            links=[LinkBytes(link, 1000 * (sample.seq % 10) + len(link), 50) for link in LINKS[placement]],
        )
        for sample in sample_records(latency_s)
    ]


def measurement(environment_id: int, operator: str, placement: str, number: int, **changes: Any) -> MeasurementRecord:
    values: dict[str, Any] = {
        "latency_key": f"latency-{operator}-{placement}",
        "started_at": STARTED + timedelta(minutes=number),
        "finished_at": STARTED + timedelta(minutes=number, seconds=7.5),
        "protocol": {"version": 1},
        "conditions": {"placement": [placement]},
        "tier_runs": [tier_run_record("mobile", cold_start_s=0.1)],
        "link_probes": [link_probe_record(link, measured_bit_per_s=1.1e6) for link in LINKS[placement]],
        "samples": samples(np.linspace(0.01, 0.02, 20), placement),
    }
    return measurement_record(environment_id, "net", operator, placement, number, **(values | changes))


def accuracy(environment_id: int, operator: str, hits: Any, **changes: Any) -> AccuracyRecord:
    values: dict[str, Any] = {"key": f"accuracy-{operator}", "provider": "cpu", "top5_pct": 100.0}
    return accuracy_record(environment_id, "net", operator, hits, **(values | changes))


@pytest.fixture
def make() -> Any:
    """Return the record factories, by name."""
    return SimpleNamespace(
        environment=environment, strategy=strategy, samples=samples, measurement=measurement, accuracy=accuracy
    )


Latencies = dict[tuple[str, str], list[Any]]


def estate_latencies() -> Latencies:
    """Return the latencies of the estate by strategy, one array per round."""
    rng = np.random.default_rng(7)
    return {
        (operator, placement): [rng.lognormal(-3, 0.5, size) for size in (30, 1, 20)]
        for operator in PASSES
        for placement in LINKS
    }


def store_estate(database: Database) -> None:
    """Store the whole estate."""
    with database.session() as session:
        where = upsert_environment(session, environment())
        sync_strategies(session, where, [strategy(o, p) for o in PASSES for p in LINKS])
        for index, operator in enumerate(PASSES):
            files = [ArtifactFile(0, "model.onnx", "ab", 100 + index)]
            artifact = {"key": f"artifact-{operator}", "passes": PASSES[operator], "files": files}
            upsert_artifact(session, artifact_record("net", operator, size_bytes=100 + index, **artifact))
            record_accuracy(session, accuracy(where, operator, [True] * (9 - index) + [False] * (1 + index)))
        for (operator, placement), rounds in estate_latencies().items():
            for number, values in enumerate(rounds, 1):
                taken = samples(values, placement)
                record_measurement(session, measurement(where, operator, placement, number, samples=taken))
        session.commit()


@pytest.fixture
def contents(request: pytest.FixtureRequest) -> Contents | None:
    """Return the estate for a test that takes `fill`: to copy it is much quicker than to store it."""
    return Contents("estate", store_estate) if "fill" in request.fixturenames else None


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def fill() -> Callable[[], Latencies]:
    """Let the test's database hold the whole estate; returns the latencies by strategy, one array per round."""
    return estate_latencies
