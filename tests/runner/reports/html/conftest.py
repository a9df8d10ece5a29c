"""A synthetic study with plausible effects, written through the catalog's own functions; and a reader of pages."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.evidence.database import open_database
from catalog.evidence.records import (
    AccuracyRecord,
    ClassPixels,
    ItemHits,
    LinkBytes,
    MeasurementRecord,
    PartTimes,
    SampleRecord,
    Verdict,
)
from catalog.evidence.writing import record_accuracy, record_measurement, sync_strategies, upsert_artifact
from tests.evidence_builder import (
    STARTED,
    EvidenceBuilder,
    accuracy_record,
    artifact_record,
    link_probe_record,
    links_to,
    measurement_record,
    named_passes,
    sample_records,
    strategy_record,
    tier_run_record,
)

PASSES = {
    "identity": [],
    "quantized": ["static_ptq"],
    "early_exit": ["early_exit"],
    "partition": ["partition"],
    "quantized_early_exit": ["static_ptq", "early_exit"],
    "quantized_early_exit_partition": ["static_ptq", "early_exit", "partition"],
}
SINGLE, ACROSS = ("mobile", "edge", "cloud"), ("mobile-edge", "edge-cloud", "mobile-cloud")
STRATEGIES = tuple((o, p) for o in PASSES for p in (ACROSS if "partition" in PASSES[o] else SINGLE))
SPEED = {"mobile": 2.0, "edge": 1.0, "cloud": 0.5}
LINK_S = {"mobile-edge": 0.002, "edge-cloud": 0.012}


@dataclass(frozen=True)
class Subject:
    """Compute seconds on the edge, how much its input weighs on the links, and its task."""

    name: str
    compute_s: float = 0.010
    weight: float = 1.0
    task: str = "classification"


STUDY = (
    Subject("fashion-resnet", 0.008),
    Subject("fashion-resnext", 0.014),
    Subject("canvas-fcn", 0.026, weight=0.1, task="segmentation"),
    Subject("canvas-duc", 0.040, weight=1.5, task="segmentation"),
)


def compute_factor(operator: str, tier: str) -> float:
    """Quantization pays on the edge and costs on the mobile tier, as in the study."""
    quantized = {"mobile": 1.12, "edge": 0.68, "cloud": 1.0}[tier] if "static_ptq" in PASSES[operator] else 1.0
    return quantized * (0.87 if "early_exit" in PASSES[operator] else 1.0)


@dataclass
class Filling(EvidenceBuilder):
    """What a fill would write; `effects` turns all latencies of a strategy, to plant what a test looks for."""

    seed: int = 1
    effects: dict[tuple[str, str], float] = field(default_factory=dict)

    def environment(self, key: str = "e" * 64, **changes: Any) -> int:
        machine: dict[str, Any] = {
            "host": "bench-7", "cpu_model": "EPYC <9> & co", "memory_bytes": 24 * 2**30, "kernel": "6.18",
            "engine": "docker 20.10", "onnxruntime": "1.32.0", "tierwise": "0.1.0",
        }  # fmt: skip
        return super().environment(key, **(machine | changes))

    def declare(
        self, environment: int, subjects: Sequence[Subject], strategies: Sequence[tuple[str, str]], rounds: int
    ) -> None:
        records = [
            strategy_record(
                environment,
                subject.name,
                operator,
                placement,
                passes=named_passes(*PASSES[operator]),
                task=subject.task,
                rounds=rounds,
            )
            for subject in subjects
            for operator, placement in strategies
        ]
        with self.database.session() as session:
            sync_strategies(session, environment, records)
            for record in records:
                artifact = {"passes": record.passes, "files": (), "size_bytes": 2 * 2**20}
                upsert_artifact(session, artifact_record(record.subject, record.operator, **artifact))
            session.commit()

    def measure(
        self,
        environment: int,
        subjects: Sequence[Subject],
        strategies: Sequence[tuple[str, str]],
        *,
        rounds: int,
        inputs: int,
        detailed: bool = True,
    ) -> None:
        rng = np.random.default_rng(self.seed)
        with self.database.session() as session:
            for subject in subjects:
                of_inputs = np.exp(rng.normal(0, 0.12, inputs))
                for number in range(1, rounds + 1):
                    of_round = np.exp(rng.normal(0, 0.012))
                    for operator, placement in strategies:
                        noise = np.exp(rng.normal(0, 0.02, inputs)) * np.where(rng.random(inputs) < 0.02, 1.5, 1.0)
                        scale = of_inputs * of_round * noise * self.effects.get((operator, placement), 1.0)
                        record = self._record(environment, subject, operator, placement, number, scale, detailed)
                        record_measurement(session, record)
            session.commit()

    def _record(
        self, environment: int, subject: Subject, operator: str, placement: str, number: int, scale: Any, detailed: bool
    ) -> MeasurementRecord:
        tiers = placement.split("-")
        links = links_to(placement)
        compute = {
            tier: subject.compute_s * SPEED[tier] * compute_factor(operator, tier) / len(tiers) for tier in tiers
        }
        overhead = 0.05 * subject.compute_s
        carried = sum(LINK_S[link] for link in links) * subject.weight * (2.5 if len(tiers) > 1 else 1.0)
        samples = []
        for seq, factor in enumerate(scale.tolist()):
            parts = [
                PartTimes(tier, overhead * factor, seconds * factor, overhead / 2, overhead / 4)
                for tier, seconds in compute.items()
            ]
            spent = sum(part.preprocess_s + part.compute_s + part.postprocess_s + part.serialise_s for part in parts)
            samples.append(
                SampleRecord(
                    seq=seq,
                    input_id=f"{seq:04d}.png",
                    repetition=0,
                    latency_s=spent + carried * factor,
                    transmission_s=carried * factor if detailed else 0.0,
                    parts=parts if detailed else (),
                    links=[LinkBytes(link, 4000 + seq, 50) for link in links] if detailed else (),
                )
            )
        at = STARTED + timedelta(minutes=number)
        rates: dict[str, Any] = {"declared_bit_per_s": 1e7, "measured_bit_per_s": 1.004e7, "tolerance": 0.05}
        probes = [link_probe_record(link, way, moment="before", **rates) for link in links for way in ("up", "down")]
        return measurement_record(
            environment,
            subject.name,
            operator,
            placement,
            number,
            started_at=at,
            finished_at=at,
            samples=samples,
            link_probes=probes if detailed else (),
            tier_runs=[tier_run_record(tier, cold_start_s=0.2) for tier in tiers] if detailed else (),
        )

    def judge(
        self, environment: int, subjects: Sequence[Subject], operators: Sequence[str], *, items: int = 400
    ) -> None:
        """One accuracy per operator, its items shared by all; early exit loses most."""
        lost = {"static_ptq": 0.004, "early_exit": 0.05}
        with self.database.session() as session:
            for subject in subjects:
                luck = np.random.default_rng(5).random((items, 5))
                for operator in operators:
                    level = 0.86 - sum(lost.get(name, 0.0) for name in PASSES[operator])
                    record_accuracy(session, self._accuracy(environment, subject, operator, luck, level))
            session.commit()

    def _accuracy(self, environment: int, subject: Subject, operator: str, luck: Any, level: float) -> AccuracyRecord:
        values: dict[str, Any] = {"metric_primary": "top1", "items": len(luck)}
        hits = luck[:, 0] < level
        if subject.task == "classification":
            values["top1_pct"], values["top5_pct"] = 100 * float(hits.mean()), 100 * float((luck[:, 1] < 0.97).mean())
            values["item_hits"] = [
                ItemHits(f"{i:04d}", bool(hit), bool(other < 0.97))
                for i, (hit, other) in enumerate(zip(hits, luck[:, 1], strict=True))
            ]
        else:
            shared = (100 * level * (0.9 + 0.2 * luck[:60])).clip(0, 100).astype(int)
            values |= {"metric_primary": "miou", "items": 60, "miou_pct": float((shared.sum(0) / 6000 * 100).mean())}
            values["class_pixels"] = [
                ClassPixels(f"{i:04d}", k, int(shared[i, k]), 100) for i in range(60) for k in range(5)
            ]
        return accuracy_record(environment, subject.name, operator, **values)

    def exact(
        self,
        environment: int,
        subject: Subject,
        medians_s: Mapping[tuple[str, str], float],
        *,
        rounds: int = 3,
        inputs: int = 31,
        verdict: Verdict = "VALID",
    ) -> None:
        """Latencies in known ratios: all strategies share the factors of inputs (median 1) and of rounds."""
        factors = np.linspace(0.99, 1.01, inputs)
        reason = None if verdict == "VALID" else "noise"
        self.store_rounds(
            measurement_record(
                environment,
                subject.name,
                operator,
                placement,
                number,
                started_at=STARTED + timedelta(minutes=number),
                finished_at=STARTED + timedelta(minutes=number),
                samples=sample_records(median_s * factors * (1 + 0.002 * (number - 2)), input_name="{:04d}.png"),
                verdict=verdict,
                reason=reason,
            )
            for number in range(1, rounds + 1)
            for (operator, placement), median_s in medians_s.items()
        )

    def study(self, subjects: Sequence[Subject] = STUDY, *, rounds: int = 5, inputs: int = 100) -> int:
        """All of it in one environment, with the targets of the embedded catalog."""
        environment = self.environment()
        self.declare(environment, subjects, STRATEGIES, rounds)
        self.measure(environment, subjects, STRATEGIES, rounds=rounds, inputs=inputs)
        self.judge(environment, subjects, list(PASSES))
        self.slos(
            {
                "interactive": {"latency": {"p90": "40ms"}, "accuracy": {"max_drop": 1.0}},
                "batch": {"latency": {"p90": "200ms"}, "accuracy": {"max_drop": 6.0}},
            }
        )
        return environment


@pytest.fixture
def filling(sqlite_template: Path, tmp_path: Path) -> Iterator[Filling]:
    with open_database(shutil.copy(sqlite_template, tmp_path / "evidence.db")) as database:
        yield Filling(database)


class Page(HTMLParser):
    """What a page holds: ids, references, tables, figures, text; elements must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.ids: list[str] = []
        self.references: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "hr", "col", "img"):
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action", "xlink:href", "data"):
                self.addresses.append(value or "")
            if name in ("aria-labelledby", "aria-describedby"):
                self.references += (value or "").split()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] == "style":
            return
        if self._open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings.append(data)
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Page]:
    return Page


@dataclass(frozen=True)
class Made:
    """The factories of this module, which tests cannot import."""

    Subject: type = Subject
    STRATEGIES: tuple[tuple[str, str], ...] = STRATEGIES
    PASSES: Mapping[str, list[str]] = field(default_factory=lambda: PASSES)


@pytest.fixture(scope="session")
def made() -> Made:
    return Made()


@pytest.fixture(scope="session")
def studied(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the study's subjects, one per task, with all its strategies; not to be written to."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    with open_database(shutil.copy(sqlite_template, path)) as database:
        Filling(database).study((STUDY[0], STUDY[2]), rounds=3, inputs=30)
    return path
