"""A synthetic estate: two operators on three placements, three rounds, with known numbers."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from catalog.evidence import (
    AccuracyRecord,
    ArtifactFile,
    ArtifactRecord,
    Database,
    EnvironmentRecord,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
    StrategyRecord,
    TierRunRecord,
    open_database,
    record_accuracy,
    record_measurement,
    sync_strategies,
    upsert_artifact,
    upsert_environment,
)

STARTED = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
PASSES: dict[str, list[dict[str, Any]]] = {"identity": [], "quantized": [{"name": "static_ptq", "options": {}}]}
LINKS = {"mobile": [], "edge": ["mobile-edge"], "cloud": ["mobile-edge", "edge-cloud"]}


def environment(key: str = "env") -> EnvironmentRecord:
    return EnvironmentRecord(
        key=key,
        launcher="process",
        scale="1",
        host="host",
        cpu_model="cpu",
        cpu_count=2,
        memory_bytes=2**33,
        kernel="6",
        engine="none",
        onnxruntime="1",
        tierwise="0",
        details={"why": "no engine"},
    )


def strategy(operator: str, placement: str, **changes: Any) -> StrategyRecord:
    values: dict[str, Any] = {
        "subject": "net",
        "operator": operator,
        "placement": placement,
        "tiers": [placement],
        "passes": PASSES[operator],
        "artifact_key": f"artifact-{operator}",
        "latency_key": f"latency-{operator}-{placement}",
        "accuracy_key": f"accuracy-{operator}",
        "task": "classification",
        "rounds": 3,
        "status": "applicable",
    }
    return StrategyRecord(**(values | changes))


def samples(latency_s: Any, placement: str) -> list[SampleRecord]:
    return [
        SampleRecord(
            seq=seq,
            input_id=f"{seq % 10:04d}.jpg",
            repetition=seq // 10,
            latency_s=float(value),
            transmission_s=0.001,
            parts=[PartTimes(placement, 0.001, 0.002, 0.0, 0.0)],
            links=[LinkBytes(link, 1000 * (seq % 10) + len(link), 50) for link in LINKS[placement]],
        )
        for seq, value in enumerate(latency_s)
    ]


def measurement(environment_id: int, operator: str, placement: str, number: int, **changes: Any) -> MeasurementRecord:
    values: dict[str, Any] = {
        "latency_key": f"latency-{operator}-{placement}",
        "environment_id": environment_id,
        "subject": "net",
        "operator": operator,
        "placement": placement,
        "round": number,
        "position": 0,
        "seed": 1,
        "status": "complete",
        "verdict": "VALID",
        "inputs_select": "random",
        "started_at": STARTED + timedelta(minutes=number),
        "finished_at": STARTED + timedelta(minutes=number, seconds=7.5),
        "protocol": {"version": 1},
        "conditions": {"placement": [placement]},
        "tier_runs": [TierRunRecord("mobile", 0.5, 2**29, 1, "cpu", cold_start_s=0.1)],
        "link_probes": [LinkProbeRecord(link, "up", 1e6, 1.1e6, 0.001) for link in LINKS[placement]],
        "samples": samples(np.linspace(0.01, 0.02, 20), placement),
    }
    return MeasurementRecord(**(values | changes))


def accuracy(environment_id: int, operator: str, hits: Any, **changes: Any) -> AccuracyRecord:
    values: dict[str, Any] = {
        "key": f"accuracy-{operator}",
        "environment_id": environment_id,
        "subject": "net",
        "operator": operator,
        "provider": "cpu",
        "metric_primary": "top1",
        "items": len(hits),
        "status": "complete",
        "started_at": STARTED,
        "finished_at": STARTED,
        "top1_pct": 100 * float(np.mean(hits)),
        "top5_pct": 100.0,
        "item_hits": [ItemHits(f"{index:05d}", bool(hit), True) for index, hit in enumerate(hits)],
    }
    return AccuracyRecord(**(values | changes))


@pytest.fixture
def make() -> Any:
    """Return the record factories, by name."""

    class Make:
        pass

    for factory in (environment, strategy, samples, measurement, accuracy):
        setattr(Make, factory.__name__, staticmethod(factory))
    return Make


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_database(database_url) as opened:
        yield opened


Latencies = dict[tuple[str, str], list[Any]]


@pytest.fixture
def fill(database: Database) -> Callable[[], Latencies]:
    """Store the whole estate; returns the latencies by strategy, one array per round."""

    def filling() -> Latencies:
        rng = np.random.default_rng(7)
        latencies: Latencies = {}
        with database.session() as session:
            where = upsert_environment(session, environment())
            sync_strategies(session, where, [strategy(o, p) for o in PASSES for p in LINKS])
            for index, operator in enumerate(PASSES):
                files = [ArtifactFile(0, "model.onnx", "ab", 100 + index)]
                record = ArtifactRecord(f"artifact-{operator}", "net", operator, PASSES[operator], "ready")
                upsert_artifact(session, vars_replace(record, files=files, size_bytes=100 + index))
                record_accuracy(session, accuracy(where, operator, [True] * (9 - index) + [False] * (1 + index)))
                for placement in LINKS:
                    rounds = [rng.lognormal(-3, 0.5, size) for size in (30, 1, 20)]
                    latencies[operator, placement] = rounds
                    for number, values in enumerate(rounds, 1):
                        taken = samples(values, placement)
                        record_measurement(session, measurement(where, operator, placement, number, samples=taken))
            session.commit()
        return latencies

    return filling


def vars_replace(record: ArtifactRecord, **changes: Any) -> ArtifactRecord:
    return ArtifactRecord(**(vars(record) | changes))
