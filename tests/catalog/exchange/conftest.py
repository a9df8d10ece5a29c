"""A database with everything the evidence can hold, and the same evidence whatever its keys are called."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from catalog.declaration.schema import SloSpec
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.records import (
    ArtifactRecord,
    ClassPixels,
    LinkProbeRecord,
    SampleRecord,
    StrategyRecord,
    TierRunRecord,
)
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    sync_slos,
    sync_strategies,
    upsert_artifact,
    upsert_environment,
)
from tests.catalog.conftest import store_estate
from tests.conftest import Contents, NewDatabase


@pytest.fixture
def other(new_database: NewDatabase) -> Iterator[Database]:
    """Open a second, empty database."""
    with open_database(new_database("other.db")) as opened:
        yield opened


@pytest.fixture
def contents(request: pytest.FixtureRequest, contents: Contents | None, make: Any) -> Contents | None:
    """Return what `rich` holds for a test that takes it."""
    if "rich" not in request.fixturenames:
        return contents
    return Contents("rich", lambda database: store_all_kinds(database, make))


@pytest.fixture
def rich(database: Database) -> Database:
    """The estate, and: failed and invalid attempts, a segmentation, an undeclared strategy, a target."""
    return database


def store_all_kinds(database: Database, make: Any) -> None:
    store_estate(database)
    with database.session() as session:
        where = upsert_environment(session, replace(make.environment(), details={"why": "ünï"}))
        failed = make.measurement(where, "identity", "edge", 4, status="failed", verdict="INVALID", samples=())
        record_measurement(session, replace(failed, reason="the tier died", log_tail="line\nline", tier_runs=()))
        some = [
            replace(failed_sample, parts=[], links=[]) if failed_sample.seq % 3 else failed_sample
            for failed_sample in failed_samples(make)
        ]
        invalid = make.measurement(where, "identity", "edge", 5, verdict="INVALID", reason="link", samples=some)
        record_measurement(session, replace(invalid, **counters()))
        segmenting(session, where, make)
        elsewhere = upsert_environment(session, replace(make.environment("docker"), launcher="docker"))
        sync_strategies(session, elsewhere, declared(make))
        record = make.measurement(elsewhere, "identity", "cloud", 1, latency_key="docker-latency", verdict="DOUBTFUL")
        record_measurement(session, replace(record, reason="load"))
        target = {"latency": {"p90": "100ms"}, "accuracy": {"max_drop": 1.0}}
        sync_slos(session, {"fast": SloSpec.model_validate(target)})
        refused = ArtifactRecord("refused", "net", "partition", [{"name": "partition"}], "inapplicable", "no cut")
        upsert_artifact(session, refused)
        session.commit()


def counters() -> dict[str, Any]:
    """Return every optional field of a measurement, a tier and a link: what tells whether it is valid."""
    probe = LinkProbeRecord("mobile-edge", "up", 1e6, 5e5, 0.1, "after", 0.05, 100, 1000, 0.01, 0.1, [4e5, 4.5e5])
    run = TierRunRecord("edge", 1.0, 2**30, 1, "cpu", 0.1, 2**27, 3.5, 4, 50, 0.25)
    window = {f"window_{name}": 2 for name in ("periods", "throttled_periods", "major_faults", "memory_limit_events")}
    window |= {f"window_{name}": 0.5 for name in ("cpu_seconds", "throttled_s", "waited_s")}
    totals = {"first_inference_s": 0.2, "waited_s": 0.3, "major_faults": 1, "memory_limit_events": 0, "oom_kills": 0}
    tier = replace(run, **window, **totals, memory_peak_bytes=2**28, restarted=False)
    findings = [{"rule": "link", "verdict": "INVALID", "text": "ünder"}]
    measured = {"warmup_latency_s": [0.2, 0.1], "window_s": 1.5, "clock_jump_s": -0.5, "host_load": {"before": 0.5}}
    measured |= {"look": 2, "error_share": 1 / 6, "testbed": "lab-1"}
    return {**measured, "probing_s": 0.75, "findings": findings, "tier_runs": [tier], "link_probes": [probe]}


def failed_samples(make: Any) -> list[SampleRecord]:
    samples: list[SampleRecord] = make.samples(np.linspace(0.01, 0.02, 7), "edge")
    return samples


def segmenting(session: Any, where: int, make: Any) -> None:
    occurring = [(item, label) for item in range(3) for label in (0, 2 + item)]
    pixels = [ClassPixels(f"{item}", label, 10 + item, 20 + label) for item, label in occurring]
    changes = {"metric_primary": "miou", "miou_pct": 61.5, "top1_pct": None, "top5_pct": None, "key": "pixels"}
    record = make.accuracy(where, "identity", [1, 1, 1], item_hits=(), class_pixels=pixels, subject="canvas", **changes)
    record_accuracy(session, record)
    failed = replace(record, status="failed", miou_pct=None, class_pixels=(), reason="died", items=0)
    record_accuracy(session, replace(failed, finished_at=record.finished_at + timedelta(seconds=1)))


def declared(make: Any) -> list[StrategyRecord]:
    """What the last fill declares: one of the estate's strategies is gone, a segmentation is new."""
    canvas = {"subject": "canvas", "task": "segmentation", "accuracy_key": "pixels", "latency_key": "canvas-latency"}
    names = [(operator, place) for operator in ("identity", "quantized") for place in ("mobile", "edge", "cloud")]
    rows = [make.strategy(*name) for name in names if name != ("quantized", "edge")]
    rows = [replace(row, latency_key=f"docker-{row.latency_key}") for row in rows]
    rows[2] = replace(rows[2], latency_key="docker-latency")
    refused = {"status": "inapplicable", "reason": "no cut", "rounds": 2}
    return [*rows, make.strategy("identity", "mobile", **canvas, **refused)]


def plain(evidence: Any) -> Any:
    """Return evidence without what an import changes: the prefix of keys, ids, the files it came from."""
    if isinstance(evidence, np.ndarray):
        return evidence.tolist()
    if isinstance(evidence, str):
        return evidence.removeprefix("imported:")
    if isinstance(evidence, (tuple, list)):
        return [plain(element) for element in evidence]
    if isinstance(evidence, dict):
        return {key: plain(value) for key, value in evidence.items()}
    if hasattr(evidence, "__dataclass_fields__"):
        return {name: plain(value) for name, value in vars(evidence).items() if name not in ("id", "origin", "origins")}
    return evidence


@pytest.fixture
def stored_evidence() -> Callable[[Database], Any]:
    """Return all evidence of a database, comparable."""

    def read(database: Database) -> Any:
        with database.session() as session:
            return plain(strategy_evidence(session))

    return read
