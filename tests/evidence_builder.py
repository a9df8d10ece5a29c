"""Evidence as a fill writes it, with chosen numbers: the one builder of all tests.

The functions return records; `EvidenceBuilder` stores them through the catalog's own functions. What a test does not
choose is sound and complete, and every default can be replaced by name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from catalog.declaration import SloSpec
from catalog.evidence.database import Database
from catalog.evidence.records import (
    AccuracyRecord,
    ArtifactFile,
    ArtifactRecord,
    EnvironmentRecord,
    ItemHits,
    LinkProbeRecord,
    MeasurementRecord,
    SampleRecord,
    StrategyRecord,
    TierRunRecord,
)
from catalog.evidence.writing import record_measurement, sync_slos, upsert_environment

STARTED = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
LINKS: dict[str, list[str]] = {"mobile": [], "edge": ["mobile-edge"], "cloud": ["mobile-edge", "edge-cloud"]}


def latency_key(environment: int, subject: str, operator: str, placement: str) -> str:
    """Return a content key that can be read."""
    return f"latency:{environment}:{subject}:{operator}:{placement}"


def accuracy_key(environment: int, subject: str, operator: str) -> str:
    """Return a content key that can be read."""
    return f"accuracy:{environment}:{subject}:{operator}"


def artifact_key(subject: str, operator: str) -> str:
    """Return a content key that can be read."""
    return f"artifact:{subject}:{operator}"


def links_to(placement: str) -> list[str]:
    """Return the links between mobile, where every request begins, and the last tier of a placement."""
    return LINKS[placement.split("-")[-1]]


def named_passes(*names: str) -> list[dict[str, Any]]:
    """Return passes without options, as a strategy stores them."""
    return [{"name": name, "options": {}} for name in names]


def environment_record(key: str = "env", /, **changes: Any) -> EnvironmentRecord:
    """Return a machine with two CPUs."""
    values: dict[str, Any] = {
        "key": key, "launcher": "docker", "scale": "1", "host": "host", "cpu_model": "cpu", "cpu_count": 2,
        "memory_bytes": 2**33, "kernel": "6", "engine": "none", "onnxruntime": "1", "tierwise": "0",
    }  # fmt: skip
    return EnvironmentRecord(**(values | changes))


def strategy_record(environment: int, subject: str, operator: str, placement: str, /, **changes: Any) -> StrategyRecord:
    """Return the declaration of a classification in three rounds."""
    values: dict[str, Any] = {
        "subject": subject,
        "operator": operator,
        "placement": placement,
        "tiers": placement.split("-"),
        "passes": [] if operator == "identity" else named_passes(operator),
        "artifact_key": artifact_key(subject, operator),
        "latency_key": latency_key(environment, subject, operator, placement),
        "accuracy_key": accuracy_key(environment, subject, operator),
        "task": "classification",
        "rounds": 3,
        "status": "applicable",
    }
    return StrategyRecord(**(values | changes))


def artifact_record(subject: str, operator: str, /, **changes: Any) -> ArtifactRecord:
    """Return an artifact of one file that is ready."""
    values: dict[str, Any] = {
        "key": artifact_key(subject, operator),
        "subject": subject,
        "operator": operator,
        "passes": [],
        "status": "ready",
        "files": [ArtifactFile(part=0, file="whole.onnx", sha256="ab" * 32, size_bytes=2048)],
        "size_bytes": 2048,
    }
    return ArtifactRecord(**(values | changes))


def sample_records(latencies_s: Iterable[float], *, input_name: str = "{:04d}", **changes: Any) -> list[SampleRecord]:
    """Return one sample per latency, each of another input."""
    values: dict[str, Any] = {"repetition": 0, "transmission_s": 0.0}
    return [
        SampleRecord(seq=seq, input_id=input_name.format(seq), latency_s=float(latency_s), **(values | changes))
        for seq, latency_s in enumerate(latencies_s)
    ]


def tier_run_record(tier: str, /, **changes: Any) -> TierRunRecord:
    """Return a tier with half a CPU and 512 MiB, of which nothing is known but its limits."""
    values: dict[str, Any] = {"cpus": 0.5, "memory_bytes": 2**29, "threads": 1, "provider": "cpu"}
    return TierRunRecord(tier=tier, **(values | changes))


def link_probe_record(link: str, direction: str = "up", /, **changes: Any) -> LinkProbeRecord:
    """Return a probe of 1 Mbit/s that carried a little more."""
    values: dict[str, Any] = {"declared_bit_per_s": 1e6, "measured_bit_per_s": 1.01e6, "rtt_s": 0.001}
    return LinkProbeRecord(link=link, direction=direction, **(values | changes))


def measurement_record(
    environment: int, subject: str, operator: str, placement: str, number: int, /, **changes: Any
) -> MeasurementRecord:
    """Return one complete and valid round, without samples."""
    values: dict[str, Any] = {
        "latency_key": latency_key(environment, subject, operator, placement),
        "environment_id": environment,
        "subject": subject,
        "operator": operator,
        "placement": placement,
        "round": number,
        "position": 0,
        "seed": 1,
        "status": "complete",
        "verdict": "VALID",
        "inputs_select": "random",
        "started_at": STARTED,
        "finished_at": STARTED,
    }
    return MeasurementRecord(**(values | changes))


def accuracy_record(
    environment: int, subject: str, operator: str, hits: Sequence[bool] = (), /, **changes: Any
) -> AccuracyRecord:
    """Return the accuracy of a classification whose items were right or wrong at the first guess."""
    values: dict[str, Any] = {
        "key": accuracy_key(environment, subject, operator),
        "environment_id": environment,
        "subject": subject,
        "operator": operator,
        "provider": "CPUExecutionProvider",
        "metric_primary": "top1",
        "items": len(hits),
        "status": "complete",
        "started_at": STARTED,
        "finished_at": STARTED,
        "item_hits": [ItemHits(f"{item:05d}", bool(hit), True) for item, hit in enumerate(hits)],
    }
    if len(hits):
        values["top1_pct"] = 100 * sum(map(bool, hits)) / len(hits)
    return AccuracyRecord(**(values | changes))


@dataclass
class EvidenceBuilder:
    """Stores records in a database; every method is one transaction."""

    database: Database

    def environment(self, key: str = "env", **changes: Any) -> int:
        """Store an environment and return its row."""
        with self.database.session() as session:
            row = upsert_environment(session, environment_record(key, **changes))
            session.commit()
        return row

    def store_rounds(self, records: Iterable[MeasurementRecord]) -> None:
        """Store measured rounds."""
        with self.database.session() as session:
            for record in records:
                record_measurement(session, record)
            session.commit()

    def slos(self, targets: dict[str, dict[str, Any]]) -> None:
        """Declare the named targets, and no others."""
        with self.database.session() as session:
            sync_slos(session, {name: SloSpec.model_validate(target) for name, target in targets.items()})
            session.commit()
