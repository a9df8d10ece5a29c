"""Exchange at the study's size: `python -m benchmarks.exchange`.

72 strategies x 5 rounds x 100 inputs with parts, links and probes, 24 accuracies over 2 000 items; made-up numbers with
the digits that clocks give, so that they compress no better than real ones. Prints times and sizes of this machine; on
a busy one, look at the CPU time.
"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from catalog.evidence.database import Database, open_database
from catalog.evidence.records import (
    AccuracyRecord,
    ClassPixels,
    EnvironmentRecord,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
    StrategyRecord,
    TierRunRecord,
)
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    sync_strategies,
    upsert_environment,
)
from catalog.exchange import collect, document_bytes, import_files, parse_document, rows_csv

SUBJECTS = ("resnet", "resnext", "fcn", "duc")
WHOLE, PARTED = ("identity", "quantized", "early_exit", "quantized_early_exit"), ("partition", "qep")
SINGLE = ("mobile", "edge", "cloud")
ACROSS = ("mobile-edge", "edge-cloud", "mobile-cloud")
LINKS = ("mobile-edge", "edge-cloud")
ROUNDS, INPUTS, ITEMS, CLASSES = 5, 100, 2000, 5
NOW = datetime(2026, 11, 24, tzinfo=UTC)
T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    """Run, print how long it took, return what came out."""
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    took_s, busy_s = time.perf_counter() - started, time.process_time() - busy
    print(f"{what:<52} {took_s:6.2f} s, of which {busy_s:5.2f} s of CPU")
    return result


def fill(database: Database, rng: np.random.Generator) -> None:
    """Everything the evidence of four subjects has."""
    with database.session() as session:
        names = dict.fromkeys(("host", "cpu_model", "kernel", "engine", "onnxruntime", "tierwise"), "benchmark")
        record = EnvironmentRecord("env", "docker", "1", cpu_count=2, memory_bytes=2**34, **names)
        where = upsert_environment(session, record)
        declared = [
            strategy(subject, operator, placement)
            for subject in SUBJECTS
            for operators, placements in ((WHOLE, SINGLE), (PARTED, ACROSS))
            for operator in operators
            for placement in placements
        ]
        sync_strategies(session, where, declared)
        for record in declared:
            for number in range(1, ROUNDS + 1):
                record_measurement(session, measurement(record, where, number, rng))
        for subject in SUBJECTS:
            for operator in (*WHOLE, *PARTED):
                record_accuracy(session, accuracy(subject, operator, where, rng))
        session.commit()


def strategy(subject: str, operator: str, placement: str) -> StrategyRecord:
    """Declared, with readable keys."""
    passes = [] if operator == "identity" else [{"name": operator, "options": {}}]
    keys = [f"{kind}.{subject}.{operator}" for kind in ("artifact", "latency", "accuracy")]
    keys[1] += f".{placement}"
    return StrategyRecord(
        subject=subject,
        operator=operator,
        placement=placement,
        tiers=placement.split("-"),
        passes=passes,
        artifact_key=keys[0],
        latency_key=keys[1],
        accuracy_key=keys[2],
        task="classification",
        rounds=ROUNDS,
        status="applicable",
    )


def measurement(strategy: StrategyRecord, where: int, number: int, rng: np.random.Generator) -> MeasurementRecord:
    """One round: a sample for each input, with every tier's durations and every link's bytes."""
    inputs = [f"{index:04d}.jpg" for index in range(INPUTS)]
    sent = np.random.default_rng(0).integers(10_000, 200_000, INPUTS)
    samples = []
    for seq, input_id in enumerate(inputs):
        parts = [PartTimes(tier, *map(float, rng.lognormal(-6, 0.3, 4))) for tier in strategy.tiers]
        links = [LinkBytes(link, int(sent[seq]), int(rng.integers(690, 710))) for link in LINKS]
        busy_s = sum(part.preprocess_s + part.compute_s + part.postprocess_s + part.serialise_s for part in parts)
        transmission_s = float(rng.lognormal(-4, 0.3))
        samples.append(
            SampleRecord(seq, input_id, 0, busy_s + transmission_s, transmission_s, parts=parts, links=links)
        )
    probes = [
        LinkProbeRecord(link, way, 2e8, float(rng.normal(2e8, 1e5)), float(rng.random()))
        for link in LINKS
        for way in ("up", "down")
    ]
    return MeasurementRecord(
        latency_key=strategy.latency_key,
        environment_id=where,
        subject=strategy.subject,
        operator=strategy.operator,
        placement=strategy.placement,
        round=number,
        position=0,
        seed=7,
        status="complete",
        verdict="VALID",
        inputs_select="random",
        started_at=NOW,
        finished_at=NOW,
        protocol={"version": 1, "input_ids": inputs},
        conditions={"placement": list(strategy.tiers)},
        tier_runs=[TierRunRecord(tier, 0.5, 2**29, 1, "cpu", float(rng.random())) for tier in SINGLE],
        link_probes=probes,
        samples=samples,
    )


def accuracy(subject: str, operator: str, where: int, rng: np.random.Generator) -> AccuracyRecord:
    """Hits for two subjects, pixels of the classes that occur for the others."""
    values: dict[str, Any] = {"environment_id": where, "subject": subject, "operator": operator, "provider": "cpu"}
    values |= {"key": f"accuracy.{subject}.{operator}", "items": ITEMS, "status": "complete"}
    values |= {"started_at": NOW, "finished_at": NOW}
    names = [f"{index:05d}" for index in range(ITEMS)]
    if subject in ("resnet", "resnext"):
        hits = rng.random((ITEMS, 2)) < (0.9, 0.99)
        rows = [ItemHits(name, bool(top1), bool(top5)) for name, (top1, top5) in zip(names, hits, strict=True)]
        return AccuracyRecord(metric_primary="top1", top1_pct=90.0, top5_pct=99.0, item_hits=rows, **values)
    unions = rng.integers(50, 1500, (ITEMS, CLASSES))
    inner = (unions * rng.beta(8, 2, unions.shape)).astype(int)
    pixels = [
        ClassPixels(name, label, int(inner[item, label]), int(unions[item, label]))
        for item, name in enumerate(names)
        for label in range(CLASSES)
    ]
    return AccuracyRecord(metric_primary="miou", miou_pct=80.0, class_pixels=pixels, **values)


def main() -> None:
    """Fill, export, import, and the same as rows."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with open_database(directory / "measured.db", create=True) as database:
            timed(
                "fill (not exchange): 72 strategies, 36 000 samples", lambda: fill(database, np.random.default_rng(1))
            )
            with database.session() as session:
                document = timed("collect the document", lambda: collect(session))
        content = timed("write it as JSON", lambda: document_bytes(document))
        compressed = timed("write it as JSON and compress", lambda: document_bytes(document, compress=True))
        print(f"{'JSON':<52} {len(content) / 2**20:6.2f} MiB\n{'compressed':<52} {len(compressed) / 2**20:6.2f} MiB")
        timed("parse and check it", lambda: parse_document(content, file="all.json"))
        (directory / "all.json.gz").write_bytes(compressed)
        (directory / "rows.csv").write_text(rows_csv(document, "latencies"))
        for file, what in (("all.json.gz", "the document"), ("rows.csv", "36 000 rows of CSV")):
            with open_database(directory / f"{file}.db", create=True) as database:
                importing = partial(import_files, database, [directory / file])
                timed(f"import {what}", importing)
                timed(f"import {what} again", importing)


if __name__ == "__main__":
    main()
